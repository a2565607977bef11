"""What a browser exchanges a token for: a cookie that its scripts cannot read, or a ticket for a stream.

Both take the token from ``Authorization`` alone, which no page of another origin can send: there is nothing
to forge. No GET changes anything.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sidecar.access import Access
from sidecar.credentials import COOKIE_TOKEN_MAX_CHARS, clear_cookie, set_cookie
from sidecar.denials import TokenInvalid
from sidecar.problems import problem
from sidecar.routing import Endpoint

NO_STORE = {"Cache-Control": "no-store"}


def session_endpoints(access: Access) -> dict[str, Endpoint]:
    """Make the endpoints; they raise Denied."""

    async def open_session(request: Request) -> Response:
        if access.tokens is None:
            return _not_configured("without authentication there is no session")
        token, principal = access.bearer(request.scope)
        if len(token) > COOKIE_TOKEN_MAX_CHARS:
            raise TokenInvalid(f"a cookie holds a token of at most {COOKIE_TOKEN_MAX_CHARS} characters")
        end = principal.expires_at or 0.0
        headers = {**NO_STORE, "Set-Cookie": set_cookie(request.scope, token, end)}
        return JSONResponse({"expires_at": end}, headers=headers)

    async def close_session(request: Request) -> Response:
        return Response(status_code=204, headers={**NO_STORE, "Set-Cookie": clear_cookie(request.scope)})

    async def make_ticket(request: Request) -> Response:
        if access.tokens is None:
            return _not_configured("without authentication no ticket is needed")
        _, principal = access.bearer(request.scope)
        if access.tickets is None:
            return _not_configured("tickets need SIDECAR_AUTH_SECRETS, also beside a public key")
        ticket, seconds = access.tickets.make(principal)
        return JSONResponse({"ticket": ticket, "expires_in": seconds}, headers=NO_STORE)

    return {"open_session": open_session, "close_session": close_session, "make_ticket": make_ticket}


def _not_configured(detail: str) -> Response:
    return problem(404, detail, code="not_configured")
