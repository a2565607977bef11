"""Who may come in: turns each request into a `Principal`, or answers why not.

A request that shows a credential is judged by that one alone: a bad token is never made good by a cookie
beside it, nor by what everybody may do.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar.credentials import bearer_token, cookie_token, ticket_of
from sidecar.denials import Denied, TokenInvalid, TokenMissing, denial_response
from sidecar.paths import SESSION, TICKETS, is_open, is_stream, route_path
from sidecar.principal import Principal
from sidecar.tickets import Tickets
from sidecar.tokens import Tokens

logger = logging.getLogger(__name__)

_PRINCIPAL = "sidecar.principal"


@dataclass(frozen=True)
class Access:
    """Without ``tokens`` no credential is looked at, without ``anonymous`` one is needed."""

    tokens: Tokens | None
    tickets: Tickets | None
    anonymous: Principal | None
    # Paths that are open as well, where the settings say so.
    opened: frozenset[str] = frozenset()

    def principal(self, scope: Scope) -> Principal:
        """Tell who asks; raises Denied."""
        shown = self._shown(scope) if self.tokens is not None else None
        if shown is not None:
            return shown
        if self.anonymous is None:
            raise TokenMissing("a token is needed: Authorization: Bearer <token>")
        return self.anonymous

    def bearer(self, scope: Scope) -> tuple[str, Principal]:
        """The token of the header and who it lets in, where nothing else will do; raises Denied."""
        token = bearer_token(scope)
        if token is None or self.tokens is None:
            raise TokenMissing("a token is needed: Authorization: Bearer <token>")
        return token, self.tokens.read(token)

    def _shown(self, scope: Scope) -> Principal | None:
        """Who the credential of a request lets in; None where it shows none."""
        tokens = self.tokens
        if tokens is None:
            return None
        if (token := bearer_token(scope)) is not None:
            return tokens.read(token)
        if (ticket := ticket_of(scope)) is not None:
            return self._of_ticket(scope, ticket)
        token = cookie_token(scope)
        return None if token is None else tokens.read(token)

    def _of_ticket(self, scope: Scope, ticket: str) -> Principal:
        if not is_stream(scope):
            raise TokenInvalid("a ticket opens streams and answers no question")
        if self.tickets is None:
            raise TokenInvalid("tickets need SIDECAR_AUTH_SECRETS")
        return self.tickets.read(ticket)


class AccessControl:
    """Lets a request through with its principal, or answers 401 or 403."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or self._decides_itself(scope):
            await self._app(scope, receive, send)
            return
        try:
            principal = self._access.principal(scope)
        except Denied as error:
            logger.debug("%s %s is refused: %s", scope["method"], scope["path"], error)
            await denial_response(error)(scope, receive, send)
            return
        await self._app({**scope, _PRINCIPAL: principal}, receive, send)

    def _decides_itself(self, scope: Scope) -> bool:
        """Tell whether a route is open, or takes nothing but a header and so looks at it itself."""
        path = route_path(scope)
        return is_open(scope) or path in self._access.opened or path in (SESSION, TICKETS)


def principal_of(request: Request) -> Principal:
    """Who asks; only behind `AccessControl`, and not on an open path."""
    principal: Principal = request.scope[_PRINCIPAL]
    return principal
