"""How many messages wait in the queues of a worker whose broker is no Redis; of a Redis the sidecar knows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery_plugin.askers import AmqpAsker, Asker, Names, VirtualAsker
from celery_plugin.contract import encode
from celery_plugin.meter import Found, Meter
from celery_plugin.writer import DEPTH, Observe

logger = logging.getLogger("celery_plugin")

# By the type of kombu's driver; the lists of a Redis the sidecar reads itself.
_ASKERS: dict[str, Callable[[Names, Any], Asker]] = {
    "amqp": AmqpAsker,
    "filesystem": VirtualAsker,
    "memory": VirtualAsker,
    "sqs": VirtualAsker,
}


def asker_of(app: Any) -> Found | None:
    """Make the connection, still closed, with who asks over it; None where nobody needs to ask, or can."""
    # A heartbeat would have to be sent between two rounds.
    connection = app.connection_for_read(heartbeat=0)
    kind = connection.transport.driver_type
    if kind == "redis":
        return None
    if kind not in _ASKERS:
        logger.debug("celery_plugin: a broker of type %s does not tell how many messages wait", kind)
        return None
    names = _known_queues if kind == "amqp" else _consumed_queues
    return connection, partial(_ASKERS[kind], partial(names, app))


def _known_queues(app: Any) -> set[str]:
    return {*app.amqp.queues, *app.amqp.queues.consume_from}


def _consumed_queues(app: Any) -> list[str]:
    return list(app.amqp.queues.consume_from)


class DepthMeter:
    """Measures for a worker, and tells what it measured as the worker's other news."""

    def __init__(self, app: Any, observe: Observe, every_seconds: float) -> None:
        self._app = app
        self._observe = observe
        meter = Meter(self, every_seconds)
        self.start, self.stop = meter.start, meter.stop

    def find(self) -> Found | None:
        """Ask the worker's broker."""
        return asker_of(self._app)

    def on_depth(self, queue: str, pending: int | None) -> None:
        """Write it down with its time."""
        if pending is not None:
            depth = {"pending": pending, "measured_at": round(time.time(), 6)}
            self._observe(DEPTH, {"of": queue, "json": encode(depth)})

    def on_away(self, reason: str) -> None:
        """Say it once."""
        logger.warning(
            "celery_plugin: cannot ask the broker how many messages wait, trying again: %s", reason
        )

    def on_back(self) -> None:
        """Say it to who looks closely."""
        logger.debug("celery_plugin: the broker tells again how many messages wait")

    def on_fault(self) -> None:
        """Say where."""
        logger.exception("celery_plugin: the broker is not asked how many messages wait")
