"""What Celery's events leave out: the request classes of the tasks tell it.

Its events name the id of a task, of which several runs can be open; the request holds the one that it is.
``Ignore`` and ``self.replace()`` send nothing after ``task-started``; a task with ``send_events=False`` sends
nothing at all; ``task-rejected`` does not say whether the task rejected its message or the worker did so on
its way to ``task-failed``; and what failed is named by the wrapper in which the exception came (Celery 5.7).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import Ignore, Reject, Retry, TimeLimitExceeded
from celery.utils.serialization import get_pickled_exception
from celery.worker.request import Request
from kombu.utils.encoding import safe_repr
from kombu.utils.imports import symbol_by_name

from celery_plugin.events import IGNORED, REJECTS
from celery_plugin.runs import Run

logger = logging.getLogger("celery_plugin")

# Takes a request, an event and its fields.
Tell = Callable[[Any, str, dict[str, Any]], None]

# What Celery leaves out of these.
_WITH_MORE = ("task-cancelled", "task-failed", "task-retried")
# The words of self.replace(), whose task comes back under the same id.
_REPLACED = "Replaced by new task"


def observe_requests(app: Any, tell: Tell) -> None:
    """Let the requests of every task tell; to be called before the worker makes its strategies."""
    classes: dict[Any, Any] = {}
    for task in app.tasks.values():
        base = symbol_by_name(task.Request)
        if base not in classes:
            classes[base] = _observing(base, tell)
        task.Request = classes[base]


def _observing(base: Any, tell: Tell) -> Any:
    # The application's own may do what it likes with an event that nobody sends.
    is_celerys = base.send_event is Request.send_event

    class ObservingRequest(base):  # type: ignore[misc]  # Celery is not typed
        # Its run, which it gets when it is received.
        sidecar_run: Run | None = None
        _sidecar_error: BaseException | None = None

        def on_timeout(self, soft: bool, timeout: float) -> Any:
            if not soft:
                self._sidecar_error = TimeLimitExceeded(timeout)
            return super().on_timeout(soft, timeout)

        def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                self._sidecar_look_at(_error_in(exc_info))
            except Exception:
                _give_up("failure")
            return super().on_failure(exc_info, *args, **kwargs)

        def send_event(self, type: str, **fields: Any) -> Any:  # noqa: A002  # its name in Celery
            try:
                tell(self, type, self._sidecar_fields(type, fields) if type in _WITH_MORE else fields)
            except Exception:
                _give_up(type)
            # Where the dispatcher sends nothing, saying so costs as much as telling it here.
            if is_celerys and not getattr(self._eventer, "forwards", True):
                return None
            return super().send_event(type, **fields)

        def _sidecar_look_at(self, error: Any) -> None:
            # What a retry was asked for, if anything.
            self._sidecar_error = error.exc if isinstance(error, Retry) else error
            if isinstance(error, Reject):
                # Once acknowledged, it goes back to nobody.
                requeue = error.requeue and not self.acknowledged
                tell(self, REJECTS, {"requeue": requeue, "exception": safe_repr(error)})
            elif isinstance(error, Ignore):
                tell(self, IGNORED, {"replaced": _REPLACED in str(error)})

        def _sidecar_fields(self, event: str, fields: dict[str, Any]) -> dict[str, Any]:
            if event == "task-cancelled":
                return {**fields, "returns": not self.acknowledged}
            error, self._sidecar_error = self._sidecar_error, None
            exception = None if error is None else safe_repr(get_pickled_exception(error))
            return {**fields, "exception": exception}

    return ObservingRequest


def _error_in(exc_info: Any) -> Any:
    error = exc_info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error


def _give_up(event: str) -> None:
    """Only say so: what goes wrong here must not fail the task."""
    logger.exception("celery_plugin: an event is given up: %s", event)
