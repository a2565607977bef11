"""Which other origins' pages may read the answers: none, those of a list, or any without a cookie."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar.headers import add_header, read_headers
from sidecar.problems import problem

ANY_ORIGIN: Final = "*"
_METHODS: Final = b"GET, HEAD, POST, DELETE"
# Named, as `*` would not let Authorization pass.
_REQUEST_HEADERS: Final = b"Authorization, Last-Event-ID"
_EXPOSED: Final = b"Retry-After, WWW-Authenticate, X-Request-ID"
_PREFLIGHT_VARY: Final = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
PREFLIGHT_SECONDS: Final = 600


class Cors:
    """Adds the headers by which a browser lets a page read an answer, and answers preflights."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._any = ANY_ORIGIN in origins
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer the preflight."""
        if scope["type"] != "http" or not self._origins:
            await self._app(scope, receive, send)
            return
        preflight = _is_preflight(scope)
        if not self._any:
            add_header(scope, b"vary", _PREFLIGHT_VARY if preflight else b"Origin")
        allowed = self._allow(scope)
        if preflight:
            await _answer_preflight(scope, allowed)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _allow(self, scope: Scope) -> bool:
        """Add what the origin of the request may; tell whether it may anything."""
        origins = read_headers(scope, b"origin")
        if len(origins) != 1:
            return False
        if self._any:
            add_header(scope, b"access-control-allow-origin", b"*")
        elif origins[0] in self._origins:
            add_header(scope, b"access-control-allow-origin", origins[0].encode("latin-1"))
            add_header(scope, b"access-control-allow-credentials", b"true")
        else:
            return False
        add_header(scope, b"access-control-expose-headers", _EXPOSED)
        return True


def _is_preflight(scope: Scope) -> bool:
    return bool(scope["method"] == "OPTIONS" and read_headers(scope, b"access-control-request-method"))


def _answer_preflight(scope: Scope, allowed: bool) -> ASGIApp:
    if not allowed:
        return problem(403, "this origin is not among SIDECAR_CORS_ORIGINS", code="origin_not_allowed")
    add_header(scope, b"access-control-allow-methods", _METHODS)
    add_header(scope, b"access-control-allow-headers", _REQUEST_HEADERS)
    add_header(scope, b"access-control-max-age", str(PREFLIGHT_SECONDS).encode())
    return Response(status_code=204)
