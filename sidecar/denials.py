"""Why a request is not let in, and how that is answered: one small class each, with a code for programs."""

from __future__ import annotations

from typing import ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse

from sidecar.problems import problem

CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Denied(Exception):
    """Raised when a request is not let in; its text goes to the client and never has a credential in it."""

    status: ClassVar = 401
    code: ClassVar = "token_invalid"


class TokenMissing(Denied):
    """Raised when there is no credential where one is needed."""

    code = "token_missing"


class TokenInvalid(Denied):
    """Raised when a credential is not one that was given out, or stands where it must not."""


class TokenExpired(Denied):
    """Raised when a credential was good, and its time is over: a new one helps."""

    code = "token_expired"


class ScopeInsufficient(Denied):
    """Raised when a good token does not reach as far as what is asked for."""

    status = 403
    code = "scope_insufficient"


def denial_response(error: Denied) -> JSONResponse:
    """Make the answer; 403 names no scheme, since another token of the same kind would be asked for."""
    headers = CHALLENGE if error.status == 401 else None
    return problem(error.status, str(error), headers, code=error.code)


async def on_denied(_: Request, error: Exception) -> JSONResponse:
    """Answer for a route that raised one."""
    if not isinstance(error, Denied):
        raise error
    return denial_response(error)
