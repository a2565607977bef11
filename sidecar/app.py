"""Wires the parts of the sidecar together and lists its routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar.backlog import Backlog
from sidecar.broker import BrokerWatcher
from sidecar.feed import Feed
from sidecar.filters import FILTERS, SEARCH, TaskFilter, read_filter
from sidecar.history import STATUSES as ENDED_STATUSES
from sidecar.lost import View
from sidecar.pages import check_parameters, read_limit
from sidecar.problems import HANDLERS
from sidecar.pulse import Pulse
from sidecar.queries import STATUSES as OPEN_STATUSES
from sidecar.queries import Queries, read_queue
from sidecar.snapshot import Snapshots
from sidecar.status import StatusBoard
from sidecar.stream import EventStream, read_last_event_id
from sidecar.subscriber import Subscriber


@dataclass(frozen=True)
class Parts:
    """What runs behind the routes."""

    feed: Feed
    view: View
    status: StatusBoard
    snapshots: Snapshots
    backlog: Backlog
    queries: Queries
    subscriber: Subscriber
    pulse: Pulse
    broker: BrokerWatcher | None

    async def run(self) -> None:
        """Run every background task until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.subscriber.run)
            tasks.start_soon(self.status.run)
            tasks.start_soon(self.pulse.run, self.status.note_change)
            if self.broker is not None:
                tasks.start_soon(self.broker.run)


def make_app(parts: Parts) -> Starlette:
    """Make the ASGI application."""
    queries = parts.queries

    async def status(request: Request) -> Response:
        check_parameters(request.query_params, ())
        return JSONResponse(await queries.status(), headers=NO_STORE)

    async def tasks(request: Request) -> Response:
        return _json(await queries.tasks(*_list_parameters(request, OPEN_STATUSES)))

    async def pending(request: Request) -> Response:
        given = request.query_params
        check_parameters(given, ("queue", "limit", "cursor"))
        return _json(await queries.pending(read_queue(given), read_limit(given), given.get("cursor")))

    async def history(request: Request) -> Response:
        return _json(await queries.history(*_list_parameters(request, ENDED_STATUSES)))

    async def task(request: Request) -> Response:
        check_parameters(request.query_params, ())
        return _json(await queries.task(request.path_params["task_id"]))

    async def workers(request: Request) -> Response:
        check_parameters(request.query_params, ())
        return JSONResponse(queries.workers(), headers=NO_STORE)

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers=NO_STORE)

    async def readyz(_: Request) -> Response:
        await queries.ready()
        return JSONResponse({"status": "ready"}, headers=NO_STORE)

    def events(request: Request) -> ASGIApp:
        check_parameters(request.query_params, ("last_event_id",))
        last = read_last_event_id(request.headers, request.query_params)
        return EventStream(parts.feed, parts.status, parts.snapshots, parts.backlog, parts.view, last)

    routes = [
        Route("/api/v1/queue/events", _Stream(events), methods=["GET"]),
        Route("/api/v1/queue/status", status),
        Route("/api/v1/queue/tasks", tasks),
        Route("/api/v1/queue/tasks/{task_id}", task),
        Route("/api/v1/queue/pending", pending),
        Route("/api/v1/queue/history", history),
        Route("/api/v1/queue/workers", workers),
        Route("/livez", livez),
        Route("/readyz", readyz),
    ]
    return Starlette(routes=routes, exception_handlers=HANDLERS)


NO_STORE = {"Cache-Control": "no-store"}


def _list_parameters(request: Request, statuses: tuple[str, ...]) -> tuple[TaskFilter, int, str | None]:
    """What every list takes: the filters, the limit and the cursor; raises BadParameter."""
    given = request.query_params
    check_parameters(given, (*FILTERS, SEARCH, "limit", "cursor"))
    return read_filter(given.multi_items(), statuses), read_limit(given), given.get("cursor")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers=NO_STORE)


class _Stream:
    """An endpoint that answers with an ASGI application of its own, chosen by the request."""

    def __init__(self, choose: Callable[[Request], ASGIApp]) -> None:
        self._choose = choose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._choose(Request(scope, receive))(scope, receive, send)
