"""How many streams there may be: all together, of one client, and by what the system allows."""

from __future__ import annotations

import logging
import random
import resource
from collections import Counter

from celery_plugin.contract import EventType, encode
from sidecar.event_log import sse

logger = logging.getLogger(__name__)

# Open files besides the streams: Redis, the broker, questions, and what Python itself has open.
OTHER_FILES = 100
# A client that there is no room for comes back after that long; at different times.
RETRY_MS = (30_000, 60_000)


class Limits:
    """Counts the streams that are open."""

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._open: Counter[str] = Counter()
        self.count = 0

    def enter(self, address: str) -> str | None:
        """Count one more stream of a client; return why there is no room for it, or None."""
        if self.count >= self._total:
            return "streams"
        # A peer without an address is a proxy on a unix socket: all its clients would share one.
        if address and self._open[address] >= self._per_address:
            return "streams_per_address"
        self.count += 1
        self._open[address] += 1
        return None

    def leave(self, address: str) -> None:
        """A stream that was counted has ended."""
        self.count -= 1
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


def overloaded(reason: str) -> bytes:
    """What a client is told that there is no room for: with a 200, or it would never come back."""
    retry = f"retry: {random.randint(*RETRY_MS)}\n\n".encode()
    return retry + sse(EventType.OVERLOADED, encode({"type": EventType.OVERLOADED, "reason": reason}))


def allowed_by_system(wanted: int) -> int:
    """Raise the limit of open files as far as it goes; return how many streams that is enough for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or hard - OTHER_FILES >= wanted:
        return wanted
    allowed = max(1, hard - OTHER_FILES)
    logger.warning("only %d open files are allowed: %d streams instead of %d", hard, allowed, wanted)
    return allowed
