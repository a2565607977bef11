"""The place from which the plugin watches: Celery's own event dispatcher in the worker's main process.

It sees every task event, with ``-E`` and without, also of a pool child that was killed, which signals
inside the child can never report. What Celery itself sends stays as it was. Two departures from Celery:
an observing dispatcher calls itself ``enabled`` even where it sends nothing, because the worker asks that
before it tells of a task; and it goes on observing after ``disable``, because requests made before a
broker reconnect keep the dispatcher of their time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Observe = Callable[[str, dict[str, Any]], None]


def observing(base: type[Any], hostname: str, observe: Observe) -> type[Any]:
    """Make a dispatcher class that tells ``observe`` of every event of the worker with this hostname.

    Producers inside the worker make dispatchers of the same class for ``task-sent``; they carry another
    hostname and observe nothing.
    """

    class ObservingDispatcher(base):  # type: ignore[misc]  # Celery is not typed
        _observes = False
        _sends = False

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._observes = self.hostname == hostname

        @property
        def enabled(self) -> bool:
            return self._observes or self._sends

        @enabled.setter
        def enabled(self, enabled: bool) -> None:
            self._sends = enabled

        def disable(self) -> None:
            if self._sends:
                super().disable()

        def send(self, type: str, *args: Any, **fields: Any) -> Any:  # noqa: A002  # its name in Celery
            if self._observes:
                observe(type, fields)
            return super().send(type, *args, **fields) if self._sends else None

    return ObservingDispatcher
