"""Makes the routes of the declarations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar.headers import answer_behind
from sidecar.operations import OPERATIONS, Needs, Operation
from sidecar.pages import check_parameters
from sidecar.stream import EventStream

# Takes a request whose parameters are known ones, and answers, perhaps with an application of its own.
Endpoint = Callable[[Request], Awaitable[ASGIApp]]
# They take nothing of the query, whatever a proxy or a health check puts there.
_LENIENT: Final = (Needs.NOTHING, Needs.BEARER)


def make_routes(endpoints: Mapping[str, Endpoint]) -> list[Route]:
    """Make a route of each declaration and the endpoint of its name."""
    names = {operation.name for operation in OPERATIONS}
    if different := names ^ endpoints.keys():
        raise AssertionError(f"declared or made, and not both: {', '.join(sorted(different))}")
    return [_route(operation, endpoints[operation.name]) for operation in OPERATIONS]


def _route(operation: Operation, endpoint: Endpoint) -> Route:
    route = Route(operation.path, _endpoint(operation, endpoint), methods=[operation.method])
    declared = {each.name for each in operation.parameters if each.place == "path"}
    if declared != set(route.param_convertors):
        raise AssertionError(f"{operation.path} declares {declared}")
    return route


def _endpoint(operation: Operation, endpoint: Endpoint) -> _Stream | Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> ASGIApp:
        if operation.needs not in _LENIENT:
            check_parameters(request.query_params, operation.query)
        return await endpoint(request)

    return _Stream(answer) if operation.is_stream else answer  # type: ignore[return-value]  # a Response is one


class _Stream:
    """An endpoint that answers with an ASGI application of its own, chosen by the request."""

    def __init__(self, choose: Endpoint) -> None:
        self._choose = choose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._choose(Request(scope, receive))
        if isinstance(answer, EventStream):
            answer_behind(scope, answer)
        else:
            await answer(scope, receive, send)
