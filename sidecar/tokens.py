"""Tokens: JWTs that say in one claim what may be read, and when that ends.

{"exp": 1790000000, "aud": "…", "sidecar": {"read": {"tasks": ["…"]}, "fields": ["args"]}}
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from sidecar.auth_keys import Key
from sidecar.denials import Denied, ScopeInsufficient, TokenExpired, TokenInvalid
from sidecar.principal import Principal
from sidecar.scope import BadScope, Scope, read_claim, scope_claim

CLAIM: Final = "sidecar"
# Enough for a few dozen ids beside what an identity provider puts in; checking one must stay cheap.
TOKEN_MAX_CHARS: Final = 8192
# Who signs may be this far ahead by its clock; the end of a token is not put off by it.
CLOCK_SKEW_SECONDS: Final = 10
# A time beyond this is no time: year 33658.
TIME_MAX: Final = 1e12

# What is told to the client; anything else is told as not being readable.
_DETAILS: Final = (
    (jwt.InvalidAudienceError, "it is for another audience"),
    (jwt.MissingRequiredClaimError, "it has no exp or no aud"),
    (jwt.ImmatureSignatureError, "its nbf or iat is in the future"),
)
# PyJWT checks types, but not every number: an exp of 1e400 is an OverflowError.
_UNREADABLE: Final = (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError, AttributeError)


@dataclass(frozen=True)
class Tokens:
    """Reads tokens; empty where no authentication is configured."""

    keys: tuple[Key, ...]
    audience: str = ""

    def read(self, token: str) -> Principal:
        """Tell who a token lets in; raises Denied."""
        claims = read_signed(token, self.keys, self.audience)
        end = claims["exp"]
        if CLAIM not in claims:
            raise ScopeInsufficient(f"the token has no claim {CLAIM}, and so may read nothing")
        return _principal(claims[CLAIM], end)


def read_signed(token: str, keys: Sequence[Key], audience: str = "") -> dict[str, Any]:
    """The claims of a token that one of the keys has signed and whose time has come; raises Denied."""
    if len(token) > TOKEN_MAX_CHARS:
        raise TokenInvalid(f"it has more than {TOKEN_MAX_CHARS} characters")
    for key in _candidates(token, keys):
        try:
            claims = _decode(token, key, audience)
        except jwt.InvalidSignatureError:
            continue
        _check_end(claims)
        return claims
    raise TokenInvalid("its signature is not one of a key that is used here")


def make_token(key: Key, scope: Scope, fields: frozenset[str], *, seconds: float, audience: str = "") -> str:
    """Mint a token with a secret."""
    now = int(time.time())
    claims: dict[str, Any] = {"iat": now, "exp": now + int(seconds), CLAIM: scope_claim(scope, fields)}
    if audience:
        claims["aud"] = audience
    return jwt.encode(claims, key.value, key.algorithm)


def _candidates(token: str, keys: Sequence[Key]) -> Sequence[Key]:
    try:
        header = jwt.get_unverified_header(token)
    except _UNREADABLE:
        raise TokenInvalid("it is no JWT") from None
    # RFC 7515, 4.1.11: what is marked as critical and not understood makes a token invalid.
    if "crit" in header:
        raise TokenInvalid("it is no JWT that is understood here")
    fitting = [key for key in keys if key.algorithm == header.get("alg")]
    if not fitting:
        raise TokenInvalid("it is not signed with the algorithm that is used here")
    named = [key for key in fitting if key.key_id is not None and key.key_id == header.get("kid")]
    return named or fitting


def _decode(token: str, key: Key, audience: str) -> dict[str, Any]:
    required = ["exp", "aud"] if audience else ["exp"]
    try:
        return jwt.decode(
            token,
            key.value,
            algorithms=[key.algorithm],
            audience=audience or None,
            leeway=CLOCK_SKEW_SECONDS,
            options={"require": required, "verify_aud": bool(audience)},
        )
    except jwt.InvalidSignatureError:
        raise
    except jwt.ExpiredSignatureError:
        raise _expired() from None
    except _UNREADABLE as error:
        raise _invalid(error) from None


def _check_end(claims: dict[str, Any]) -> None:
    end = claims["exp"]
    if isinstance(end, bool) or not isinstance(end, int | float) or not abs(end) < TIME_MAX:
        raise TokenInvalid("its exp is no time")
    if end <= time.time():
        raise _expired()


def _principal(claim: Any, end: float) -> Principal:
    try:
        scope, fields = read_claim(claim)
    except BadScope as error:
        raise TokenInvalid(f"its claim {CLAIM} cannot be read: {error}") from None
    if scope.is_empty:
        raise ScopeInsufficient("the token may read nothing")
    return Principal(scope, fields, expires_at=float(end))


def _expired() -> Denied:
    return TokenExpired("its time is over; ask for a new one")


def _invalid(error: Exception) -> Denied:
    details = (detail for kind, detail in _DETAILS if isinstance(error, kind))
    return TokenInvalid(next(details, "it is no JWT that can be read here"))
