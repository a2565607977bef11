"""A line in the log for each request, when it has been answered; a stream's when it has ended.

Not for what asks whether the process is well: that comes every few seconds and is never what one looks for.
Of the address only the path is logged: what is searched for may be a value of somebody's arguments.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from starlette.types import Scope

from sidecar.addresses import Network, client_address
from sidecar.paths import route_path
from sidecar.request_ids import HEADER, choose, current

logger = logging.getLogger("sidecar.access")

_QUIET: Final = frozenset({"/livez", "/readyz"})
_PATH_MAX_CHARS: Final = 500
_HEADER: Final = HEADER.lower().encode()


class RequestLog:
    """Gives each request an id, and logs it where that is wanted."""

    def __init__(self, *, logs: bool = False, trusted: Sequence[Network] = ()) -> None:
        self._logs = logs
        self._trusted = trusted

    def begin(self, scope: Scope) -> Answering:
        """A request has come."""
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER]
        request_id = choose(given)
        current.set(request_id)
        return Answering(request_id)

    def end(self, scope: Scope, answering: Answering) -> None:
        """It has been answered, or its client has gone."""
        if not self._logs or route_path(scope) in _QUIET or not logger.isEnabledFor(logging.INFO):
            return
        fields: dict[str, Any] = {
            "method": scope["method"],
            "path": str(scope["path"])[:_PATH_MAX_CHARS],
            "status": answering.status,
            "duration_ms": round((time.monotonic() - answering.began) * 1000, 1),
            "client": client_address(scope, self._trusted),
        }
        logger.info("%s %s %s in %s ms for %s", *map(_shown, fields.values()), extra={"fields": fields})


class Answering:
    """A request that is being answered; a stream keeps it as long as it is open."""

    __slots__ = ("began", "request_id", "status")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        # None: nothing has been answered so far.
        self.status: int | None = None
        self.began = time.monotonic()

    @property
    def header(self) -> tuple[bytes, bytes]:
        """The header of the answer."""
        return _HEADER, self.request_id.encode()


def _shown(value: object) -> object:
    return "-" if value in (None, "") else value
