"""Where a request may carry a token: in a header, in a cookie, or as a ticket in the address of a stream."""

from __future__ import annotations

import re
import time
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import Scope

from sidecar.denials import TokenInvalid
from sidecar.headers import read_headers
from sidecar.hosts import host_of, is_loopback_host

# A browser takes a cookie of this name only over TLS, from this host alone and for all of its paths.
COOKIE: Final = "__Host-celery-sidecar"
# The same on loopback, where there is no TLS; any program that listens on this machine is given it.
LOOPBACK_COOKIE: Final = "celery-sidecar"
# Browsers drop a cookie of more than 4,096 bytes, with its name and attributes, without a word.
COOKIE_TOKEN_MAX_CHARS: Final = 3800
TICKET: Final = "ticket"

_BEARER: Final = re.compile(r"bearer +([A-Za-z0-9._~+/=\-]+)", re.ASCII | re.IGNORECASE)


def bearer_token(scope: Scope) -> str | None:
    """The token of ``Authorization: Bearer``; None where there is none; raises TokenInvalid.

    Another scheme is a proxy's in front, and none of ours.
    """
    values = read_headers(scope, b"authorization")
    if len(values) > 1:
        # Two readers could each take another one.
        raise TokenInvalid("there is more than one Authorization header")
    if not values or values[0].split(" ")[0].lower() != "bearer":
        return None
    match = _BEARER.fullmatch(values[0].strip())
    if match is None:
        raise TokenInvalid("what follows Bearer is no token")
    return match[1]


def ticket_of(scope: Scope) -> str | None:
    """The ticket of the query; None where there is none; raises TokenInvalid."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    values = [value for name, value in query if name == TICKET]
    if len(values) > 1:
        raise TokenInvalid("there is more than one ticket")
    return values[0] if values else None


def cookie_token(scope: Scope) -> str | None:
    """The token of the cookie; None where there is none; raises TokenInvalid."""
    names = [COOKIE, LOOPBACK_COOKIE] if is_loopback_host(host_of(scope)) else [COOKIE]
    pairs = [
        pair.strip().partition("=") for each in read_headers(scope, b"cookie") for pair in each.split(";")
    ]
    for wanted in names:
        values = [value for name, _, value in pairs if name == wanted]
        if len(values) > 1:
            # Another path or host has put one of the same name beside ours.
            raise TokenInvalid("there is more than one cookie of this name")
        if values:
            return values[0]
    return None


def set_cookie(scope: Scope, token: str, expires_at: float) -> str:
    """Write the header that lets a browser carry a token until it ends, where no script can read it."""
    seconds = max(0, int(expires_at - time.time()))
    return f"{_cookie_name(scope)}={token}; Max-Age={seconds}; {_attributes(scope)}"


def clear_cookie(scope: Scope) -> str:
    """Write the header that makes a browser forget the token."""
    return f"{_cookie_name(scope)}=; Max-Age=0; {_attributes(scope)}"


def _cookie_name(scope: Scope) -> str:
    return LOOPBACK_COOKIE if _is_plain_loopback(scope) else COOKIE


def _attributes(scope: Scope) -> str:
    secure = "" if _is_plain_loopback(scope) else "; Secure"
    return f"Path=/; HttpOnly; SameSite=Strict{secure}"


def _is_plain_loopback(scope: Scope) -> bool:
    return scope["scheme"] == "http" and is_loopback_host(host_of(scope))
