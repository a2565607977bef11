"""What the plugin puts around a request of Celery leaves the application's own as it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery import Celery
from celery.worker.request import Request

from celery_plugin.requests import observe_requests


class Own(Request):  # type: ignore[misc]  # Celery is not typed
    """Does something of its own with each event."""

    def send_event(self, type: str, **fields: Any) -> str:  # noqa: A002  # its name in Celery
        """Take it."""
        return f"{type} {fields}"


def test_a_request_of_the_applications_own_has_each_event() -> None:
    """Also where Celery sends none."""
    told: list[str] = []
    app = Celery("own", set_as_current=False)

    @app.task(name="own.task", Request=Own)  # type: ignore[untyped-decorator]  # Celery is not typed
    def task() -> None: ...

    observe_requests(app, lambda request, event, fields: told.append(event))
    request = object.__new__(app.tasks["own.task"].Request)
    request._eventer = SimpleNamespace(forwards=False)
    assert "task-started {'a': 1}" == request.send_event("task-started", a=1)
    assert ["task-started"] == told
