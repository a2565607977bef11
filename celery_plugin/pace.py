"""How long the writer rests between two batches.

The first event of a quiet moment goes at once; then the writer rests, so that a busy worker pays for one call
a batch and not for one an event: neither its cores nor Redis's are warm for what is done seldom.
"""

from __future__ import annotations

import math

# A fixed rest of 20 ms gives a p99 of 26 ms, of 2 ms one of 4.
REST_SECONDS = 0.002
# Nobody can read so many, and the rest grows with them: 20 ms here, 150 ms at 2,250 a second.
BUSY_EVENTS_PER_SECOND = 300.0
BUSY_REST_PER_EVENT = 0.02 / 300.0
LONGEST_REST_SECONDS = 0.15
# Over which the rate is taken; longer than the longest rest, or a busy worker would seem quiet after each.
RATE_SECONDS = 0.3


class Pace:
    """Rests by the rate of events, a decaying mean."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._at = 0.0

    def rest(self, events: int, now: float) -> float:
        """How long to rest after so many events have come since the last call, in s; ``now`` is monotonic."""
        since, self._at = self._at, now
        self._rate = self._rate * math.exp((since - now) / RATE_SECONDS) + events / RATE_SECONDS
        if self._rate <= BUSY_EVENTS_PER_SECOND:
            return REST_SECONDS
        return min(LONGEST_REST_SECONDS, self._rate * BUSY_REST_PER_EVENT)
