"""Going away: streams end a few at a time, so that not all clients come to the next sidecar at once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import anyio

from celery_plugin.contract import EventType, encode
from sidecar.event_log import sse
from sidecar.pump import Pump

STEP_SECONDS = 0.02
# For the last words of one that takes them slowly; then its connection is cut.
GRACE_SECONDS = 1.0
RETRY_MS = (1_000, 10_000)


def last_words() -> bytes:
    """What a client is told: to come back, and when; each at another time."""
    retry = f"retry: {random.randint(*RETRY_MS)}\n\n".encode()
    return retry + sse(EventType.DRAIN, encode({"type": EventType.DRAIN}))


class Drain:
    """Begins with the first signal."""

    def __init__(self, pump: Pump, seconds: float) -> None:
        self._pump = pump
        self._seconds = seconds
        self.has_begun = False

    def begin(self) -> None:
        """Admit no more streams; safe in a signal's handler."""
        self.has_begun = True

    async def run(self, hurries: Callable[[], bool]) -> None:
        """End every stream within so many seconds; at once when it hurries."""
        viewers, began = list(self._pump.viewers), time.monotonic()
        count, done = len(viewers), 0
        while done < count and not hurries():
            share = (time.monotonic() - began) / self._seconds if self._seconds else 1.0
            due = min(count, int(share * count) + 1)
            for viewer in viewers[done:due]:
                self._pump.part_with(viewer, last_words())
            done = due
            await anyio.sleep(STEP_SECONDS)
        for _ in range(int(GRACE_SECONDS / STEP_SECONDS)):
            if not self._pump.viewers or hurries():
                break
            await anyio.sleep(STEP_SECONDS)
        for viewer in list(self._pump.viewers):
            viewer.abort()
