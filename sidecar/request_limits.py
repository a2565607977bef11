"""How large a request may be: its query, and its body, which only two routes have."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar.headers import read_headers
from sidecar.paths import SESSION, TICKETS, route_path
from sidecar.problems import problem

# A filter of a hundred ids is about 5 KB, a ticket about as large as its token. The whole head may have twice
# this.
QUERY_MAX_BYTES: Final = 16 * 1024
PARAMETERS_MAX: Final = 500
# What they need stands in their headers; a client may send an empty object.
BODY_MAX_BYTES: Final = 1024
_WITH_BODY: Final = frozenset({("POST", SESSION), ("POST", TICKETS)})


class RequestLimits:
    """Refuses a request that is too large before anything looks into it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        refusal = _refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)


def _refusal(scope: Scope) -> Response | None:
    query: bytes = scope["query_string"]
    if len(query) > QUERY_MAX_BYTES:
        return problem(414, f"a query has at most {QUERY_MAX_BYTES} bytes", code="query_too_long")
    if query.count(b"&") >= PARAMETERS_MAX:
        detail = f"a query has at most {PARAMETERS_MAX} parameters"
        return problem(400, detail, code="too_many_parameters")
    allowed = BODY_MAX_BYTES if (scope["method"], route_path(scope)) in _WITH_BODY else 0
    if _is_larger(scope, allowed):
        return problem(413, f"the body may have {allowed} bytes here", code="body_too_large")
    return None


def _is_larger(scope: Scope, allowed: int) -> bool:
    # Of a body in chunks nobody knows how large it becomes.
    if read_headers(scope, b"transfer-encoding"):
        return True
    return any(
        not (length.isascii() and length.isdigit() and len(length) < 10 and int(length) <= allowed)
        for length in read_headers(scope, b"content-length")
    )
