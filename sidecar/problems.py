"""Answers that are errors: RFC 9457 problem details, from one table."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from sidecar.request_ids import current

TITLES = {
    400: "Bad parameter",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    413: "Body too large",
    414: "Query too long",
    421: "Asked under another name",
    429: "Too many requests",
    500: "Internal error",
    501: "Not possible with this broker",
    503: "Not available",
}
RETRY_AFTER_SECONDS = 2


class BadParameter(Exception):
    """Raised when a parameter is wrong; says what would be right."""

    def __init__(self, parameter: str, expected: str) -> None:
        super().__init__(f"{parameter}: {expected}")
        self.parameter = parameter
        self.expected = expected


class Unavailable(Exception):
    """Raised when a question cannot be answered because Redis is away."""


class Leaving(Exception):
    """Raised when the sidecar is about to end, and nobody should be sent to it."""


class UnknownTask(Exception):
    """Raised when neither a worker nor the history has a task."""


class UnknownQueue(Exception):
    """Raised when nobody knows a queue."""


class OtherBroker(Exception):
    """Raised when a question is about a broker that cannot be looked into; says why."""


def unknown_queue(queue: str) -> UnknownQueue:
    """Make the error to raise for a queue that is not known, or of which nobody is to know."""
    return UnknownQueue(f"no worker, binding or setting names the queue {queue[:100]}")


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: str) -> JSONResponse:
    """Make the answer for a status."""
    content = {
        "type": "about:blank",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        **more,
    }
    if request_id := current.get():
        content["request_id"] = request_id
    return JSONResponse(content, status, headers, media_type="application/problem+json")


async def on_bad_parameter(_: Request, error: Any) -> JSONResponse:
    """Name the parameter and what is allowed."""
    return problem(400, f"{error.parameter} must be {error.expected}", parameter=error.parameter)


async def on_unavailable(_: Request, error: Exception) -> JSONResponse:
    """Say that Redis is away, and when to ask again; why is in the log."""
    return problem(503, "Redis cannot be read at the moment", {"Retry-After": str(RETRY_AFTER_SECONDS)})


async def on_leaving(_: Request, error: Exception) -> JSONResponse:
    """Say that the sidecar goes away."""
    return problem(503, "The sidecar is about to end")


async def on_unknown_task(_: Request, error: Exception) -> JSONResponse:
    """Say that the task is not known."""
    return problem(404, str(error), parameter="task_id")


async def on_unknown_queue(_: Request, error: Exception) -> JSONResponse:
    """Say that the queue is not known; one that is known and empty has an empty list."""
    return problem(404, str(error), parameter="queue")


async def on_other_broker(_: Request, error: Exception) -> JSONResponse:
    """Say why this broker's messages cannot be seen."""
    return problem(501, str(error))


async def on_http_error(request: Request, error: Any) -> JSONResponse:
    """Starlette's own errors, in the same form."""
    detail = f"{request.method} {request.url.path}" if error.status_code in (404, 405) else error.detail
    return problem(error.status_code, detail, dict(error.headers or {}))


async def on_fault(_: Request, error: Exception) -> JSONResponse:
    """Tell nothing of a fault of ours; the log has it."""
    return problem(500, "The sidecar's log says more")


HANDLERS = {
    BadParameter: on_bad_parameter,
    Unavailable: on_unavailable,
    Leaving: on_leaving,
    UnknownTask: on_unknown_task,
    UnknownQueue: on_unknown_queue,
    OtherBroker: on_other_broker,
    HTTPException: on_http_error,
    Exception: on_fault,
}
