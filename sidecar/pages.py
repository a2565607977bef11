"""Pages of a list: how much is in one, and where the next one goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.problems import BadParameter

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
# So many tasks a request looks at; with a filter that few of them match a page ends before it is full.
LOOKED_AT_MAX = 20_000


def make_page(records: Iterable[bytes], cursor: str | None) -> bytes:
    """The answer, as JSON: ``{"tasks":[…],"next":cursor or null}``."""
    return b'{"tasks":[' + b",".join(records) + b'],"next":' + json.dumps(cursor).encode() + b"}"


def read_limit(parameters: Mapping[str, str]) -> int:
    """Parse ``limit``; raises BadParameter."""
    value = parameters.get("limit", str(LIMIT_DEFAULT))
    if not (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= LIMIT_MAX):
        raise BadParameter("limit", f"a number from 1 to {LIMIT_MAX}")
    return int(value)


def write_cursor(place: tuple[Any, ...]) -> str:
    """Encode a place in a list; opaque to clients."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> Any:
    """Decode what `write_cursor` encoded, or any other JSON; raises BadParameter."""
    try:
        return json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError) as error:
        raise bad_cursor() from error


def bad_cursor() -> BadParameter:
    """Make the error to raise for a cursor that was never given out."""
    return BadParameter("cursor", "the value of next in the answer before")


def check_parameters(parameters: Mapping[str, str], allowed: tuple[str, ...]) -> None:
    """Refuse a parameter that would be passed over in silence; raises BadParameter."""
    for name in parameters:
        if name not in allowed:
            raise BadParameter(name[:100], f"one of {', '.join(allowed)}" if allowed else "left out")
