"""Tickets: what a browser puts into the address of a stream, since an EventSource can send no header.

An address ends up in logs and histories, so a ticket is good for a minute at most and for opening streams
alone. It is a small JWT of its own key, nothing is kept of it: every replica that has the same secret accepts
it, and within its life it may be used again, as an EventSource does that reconnects. The stream that it opens
ends with the token that it was made from.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import jwt

from sidecar.auth_keys import Key
from sidecar.denials import TokenExpired, TokenInvalid
from sidecar.principal import Principal
from sidecar.scope import BadScope, read_claim, scope_claim
from sidecar.tokens import TIME_MAX, read_signed

TICKET_SECONDS: Final = 60


@dataclass(frozen=True)
class Tickets:
    """Makes and reads tickets; the first key signs."""

    keys: tuple[Key, ...]

    def make(self, principal: Principal) -> tuple[str, int]:
        """A ticket with what a token gives, and for how many seconds it is good."""
        now = int(time.time())
        token_end = principal.expires_at if principal.expires_at is not None else now + TICKET_SECONDS
        end = int(min(now + TICKET_SECONDS, token_end))
        claims = {"exp": end, "until": token_end, **scope_claim(principal.scope, principal.fields)}
        return jwt.encode(claims, self.keys[0].value, self.keys[0].algorithm), end - now

    def read(self, ticket: str) -> Principal:
        """Tell who a ticket lets in; raises Denied."""
        claims = read_signed(ticket, self.keys)
        until = claims.get("until")
        try:
            scope, fields = read_claim(claims)
        except BadScope:
            raise TokenInvalid("it is no ticket") from None
        if not isinstance(until, int | float) or not 0 <= until < TIME_MAX or scope.is_empty:
            raise TokenInvalid("it is no ticket")
        if until <= time.time():
            raise TokenExpired("the token that it was made from has expired")
        return Principal(scope, fields, expires_at=float(until))
