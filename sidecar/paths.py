"""Which paths are open to all, and which are streams: what every guard in front of the routes has to know."""

from __future__ import annotations

import re
from typing import Final

from starlette.types import Scope

SESSION: Final = "/api/v1/session"
TICKETS: Final = "/api/v1/tickets"
OPENAPI: Final = "/openapi.json"
METRICS: Final = "/metrics"
API_DOCS: Final = "/docs"
# They tell nothing of the queue. Whoever checks the health of a process has no token.
_OPEN: Final = ("/", "/livez", "/readyz", OPENAPI, API_DOCS)
_OPEN_BELOW: Final = "/static/"
_STREAM: Final = re.compile(r"/api/v1/queue/(?:tasks/[^/]+/)?events")


def route_path(scope: Scope) -> str:
    """The path that the routes see, without where the sidecar is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root + "/") else path


def is_open(scope: Scope) -> bool:
    """Tell whether a path needs no token."""
    path = route_path(scope)
    return path in _OPEN or path.startswith(_OPEN_BELOW)


def is_stream(scope: Scope) -> bool:
    """Tell whether a path is that of a stream."""
    return _STREAM.fullmatch(route_path(scope)) is not None
