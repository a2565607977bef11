"""The queue from which a message came: its delivery names exchange and routing key, not the queue."""

from __future__ import annotations

from typing import Any


class QueueNames:
    """Remembers exchange and routing key → queue, of which a worker has a handful."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._known: dict[tuple[str | None, str | None], str | None] = {}

    def of(self, delivery_info: dict[str, Any]) -> str | None:
        """Return the name of the queue."""
        exchange, routing_key = delivery_info.get("exchange"), delivery_info.get("routing_key")
        if (exchange, routing_key) not in self._known:
            if len(self._known) > 1000:
                self._known.clear()  # topic exchanges: routing keys without number
            self._known[exchange, routing_key] = self._find(exchange, routing_key)
        return self._known[exchange, routing_key]

    def _find(self, exchange: str | None, routing_key: str | None) -> str | None:
        queues = self._app.amqp.queues.consume_from
        if routing_key in queues and not exchange:
            return routing_key  # the default exchange delivers to the queue of that name
        for name, queue in queues.items():
            if queue.exchange.name == (exchange or "") and queue.routing_key == routing_key:
                return str(name)
        return next(iter(queues), None) if len(queues) == 1 else routing_key
