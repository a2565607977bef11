"""Celery's own event dispatcher in the worker's main process: it lets the requests of the tasks tell.

With ``-E`` and without: it calls itself ``enabled`` even where it sends nothing, because the worker asks that
before a request tells of its end. What Celery itself sends stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OFFLINE = "worker-offline"


def observing(base: type[Any], hostname: str, went_offline: Callable[[], None]) -> type[Any]:
    """Make a dispatcher class that tells when the worker with this hostname goes offline.

    Producers inside the worker make dispatchers of the same class for ``task-sent``; they carry another
    hostname and observe nothing.
    """

    class ObservingDispatcher(base):  # type: ignore[misc]  # Celery is not typed
        _observes = False
        # Whether Celery itself wants the events.
        forwards = False

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._observes = self.hostname == hostname

        @property
        def enabled(self) -> bool:
            return self._observes or self.forwards

        @enabled.setter
        def enabled(self, enabled: bool) -> None:
            self.forwards = enabled

        def disable(self) -> None:
            if self.forwards:
                super().disable()

        def send(self, type: str, *args: Any, **fields: Any) -> Any:  # noqa: A002  # its name in Celery
            if self._observes and type == OFFLINE:
                went_offline()
            return super().send(type, *args, **fields) if self.forwards else None

    return ObservingDispatcher


def lend_dispatcher(consumer: Any) -> None:
    """Give the tasks a dispatcher where the worker has none.

    With ``--without-heartbeat --without-gossip`` and without ``-E`` Celery leaves the dispatcher out, and the
    tasks would have nobody to tell of their events. They keep the one that is there while their strategies
    are made; the consumer itself goes on without.
    """
    update_strategies = consumer.update_strategies

    def update_with_dispatcher() -> None:
        if consumer.event_dispatcher is not None:
            update_strategies()
            return
        consumer.event_dispatcher = consumer.app.events.Dispatcher(hostname=consumer.hostname, enabled=False)
        try:
            update_strategies()
        finally:
            consumer.event_dispatcher = None

    consumer.update_strategies = update_with_dispatcher
