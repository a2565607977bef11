"""What Celery's events leave out: the request classes of the tasks tell it.

``Ignore`` and ``self.replace()`` send nothing after ``task-started``; a task with ``send_events=False`` sends
nothing at all; and ``task-rejected`` does not say whether the task rejected its message or the worker did so
on its way to ``task-failed``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.exceptions import Ignore, Reject
from kombu.utils.imports import symbol_by_name

from celery_plugin.events import IGNORED, REJECTS

Observe = Callable[[str, dict[str, Any]], None]

# The words of self.replace(), whose task comes back under the same id.
_REPLACED = "Replaced by new task"


def observe_requests(app: Any, observe: Observe) -> None:
    """Let the requests of every task tell; to be called before the worker makes its strategies."""
    classes: dict[Any, Any] = {}
    for task in app.tasks.values():
        base = symbol_by_name(task.Request)
        if base not in classes:
            classes[base] = _observing(base, observe)
        task.Request = classes[base]


def _observing(base: Any, observe: Observe) -> Any:
    class ObservingRequest(base):  # type: ignore[misc]  # Celery is not typed
        def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
            error = getattr(exc_info.exception, "exc", None) or exc_info.exception
            if isinstance(error, Reject):
                observe(REJECTS, {"uuid": self.id})
            elif isinstance(error, Ignore):
                observe(IGNORED, {"uuid": self.id, "replaced": _REPLACED in str(error)})
            return super().on_failure(exc_info, *args, **kwargs)

        def send_event(self, type: str, **fields: Any) -> Any:  # noqa: A002  # its name in Celery
            # Where it sends, the dispatcher observes it.
            if not self.task.send_events:
                observe(type, {"uuid": self.id, **fields})
            return super().send_event(type, **fields)

    return ObservingRequest
