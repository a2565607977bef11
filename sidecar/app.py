"""Wires the parts of the sidecar together, and says what answers each question of `operations`."""

from __future__ import annotations

from dataclasses import dataclass

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from sidecar import assets
from sidecar.access import Access, principal_of
from sidecar.api_docs import api_endpoints
from sidecar.broker import BrokerWatcher
from sidecar.denials import Denied, on_denied
from sidecar.drain import Drain
from sidecar.filters import TaskFilter, read_filter
from sidecar.guard import guard
from sidecar.history import STATUSES as ENDED_STATUSES
from sidecar.metrics import Metrics
from sidecar.pages import read_limit
from sidecar.parameters import read_wanted, read_wanted_of_task
from sidecar.principal import Principal
from sidecar.problems import HANDLERS, Leaving, problem
from sidecar.pulse import Pulse
from sidecar.pump import Pump
from sidecar.queries import STATUSES as OPEN_STATUSES
from sidecar.queries import Queries, read_queue
from sidecar.routing import Endpoint, make_routes
from sidecar.scoped import within
from sidecar.sessions import session_endpoints
from sidecar.settings import METRICS_BY_TOKEN, METRICS_OFF, Settings
from sidecar.status import StatusBoard
from sidecar.stream import Streams, read_last_event_id
from sidecar.subscriber import Subscriber
from sidecar.task_beginning import TaskBeginnings


@dataclass(frozen=True)
class Parts:
    """What runs behind the routes."""

    status: StatusBoard
    task_beginnings: TaskBeginnings
    pump: Pump
    drain: Drain
    streams: Streams
    queries: Queries
    metrics: Metrics
    subscriber: Subscriber
    pulse: Pulse
    broker: BrokerWatcher | None

    async def run(self) -> None:
        """Run every background task until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.subscriber.run)
            tasks.start_soon(self.status.run)
            tasks.start_soon(self.pump.run)
            tasks.start_soon(self.pulse.run, self.status.note_change)
            if self.broker is not None:
                tasks.start_soon(self.broker.run)


def make_app(parts: Parts, settings: Settings, access: Access) -> ASGIApp:
    """Make the ASGI application."""
    queries = parts.queries

    async def status(request: Request) -> Response:
        return JSONResponse(await queries.status(principal_of(request).scope), headers=NO_STORE)

    async def tasks(request: Request) -> Response:
        return _json(await queries.tasks(*_list_parameters(request, OPEN_STATUSES)))

    async def pending(request: Request) -> Response:
        given = request.query_params
        page = queries.pending(
            principal_of(request), read_queue(given), read_limit(given), given.get("cursor")
        )
        return _json(await page)

    async def history(request: Request) -> Response:
        return _json(await queries.history(*_list_parameters(request, ENDED_STATUSES)))

    async def task(request: Request) -> Response:
        return _json(await queries.task(principal_of(request), request.path_params["task_id"]))

    async def workers(request: Request) -> Response:
        principal_of(request).require_everything()
        return JSONResponse(queries.workers(), headers=NO_STORE)

    async def metrics(request: Request) -> Response:
        if settings.metrics == METRICS_OFF:
            return problem(404, "SIDECAR_METRICS is off", code="not_configured")
        if settings.metrics == METRICS_BY_TOKEN:
            principal_of(request).require_everything()
        body, media_type = await parts.metrics.text(request.headers.get("accept", ""))
        return Response(body, media_type=media_type, headers=NO_STORE)

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers=NO_STORE)

    async def readyz(_: Request) -> Response:
        if parts.drain.has_begun:
            raise Leaving
        await queries.ready()
        return JSONResponse({"status": "ready"}, headers=NO_STORE)

    async def events(request: Request) -> ASGIApp:
        principal = principal_of(request)
        wanted, waiting_max = read_wanted(request.query_params)
        last = read_last_event_id(request.headers, request.query_params)
        return parts.streams.open(wanted.within(principal), last, waiting_max, principal.expires_at)

    async def task_events(request: Request) -> ASGIApp:
        principal = principal_of(request)
        wanted = read_wanted_of_task(request.path_params["task_id"], request.query_params).within(principal)
        last = read_last_event_id(request.headers, request.query_params)
        end = await parts.task_beginnings.end_of(wanted) if last is not None else None
        if last is not None and end is not None and await parts.task_beginnings.has_seen(last, end):
            # An EventSource that comes back after the end stops at nothing else.
            return Response(status_code=204, headers=NO_STORE)
        return parts.streams.open(wanted, last, expires_at=principal.expires_at)

    endpoints: dict[str, Endpoint] = {
        "events": events,
        "status": status,
        "tasks": tasks,
        "task": task,
        "task_events": task_events,
        "pending": pending,
        "history": history,
        "workers": workers,
        "metrics": metrics,
        **session_endpoints(access),
        "livez": livez,
        "readyz": readyz,
        **api_endpoints(),
    }
    # What a browser is given is no part of what programs may ask.
    front_end = [Route("/", assets.page), Route("/static/{path:path}", assets.static)]
    app = Starlette(
        routes=[*make_routes(endpoints), *front_end], exception_handlers={**HANDLERS, Denied: on_denied}
    )
    return guard(app, settings, access)


NO_STORE = {"Cache-Control": "no-store"}


def _list_parameters(
    request: Request, statuses: tuple[str, ...]
) -> tuple[Principal, TaskFilter, int, str | None]:
    """What every list takes: who asks, the filters, the limit and the cursor; raises BadParameter."""
    given, principal = request.query_params, principal_of(request)
    wanted = within(principal, read_filter(given.multi_items(), statuses))
    return principal, wanted, read_limit(given), given.get("cursor")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers=NO_STORE)
