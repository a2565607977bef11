"""The id of a request: the one that a proxy or a client gives it, or a new one.

It stands in the answer, in a problem, and in each line that is logged meanwhile. The standard library alone,
since logs are set up before anything else is loaded.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final

HEADER: Final = "X-Request-ID"
# A UUID, a trace id, what proxies make; nothing that would be something else in a log or a page.
_SANE: Final = re.compile(r"[A-Za-z0-9._\-]{1,64}", re.ASCII)

# Of the task that answers a request; empty elsewhere, as in what runs in the background.
current: ContextVar[str] = ContextVar("request_id", default="")


def choose(given: Sequence[str]) -> str:
    """Take the id that was given, or make one where there is none, more than one, or one that is no id."""
    return given[0] if len(given) == 1 and _SANE.fullmatch(given[0]) else secrets.token_hex(8)
