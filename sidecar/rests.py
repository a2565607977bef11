"""How long the pump rests between two rounds."""

from __future__ import annotations

from typing import Final

# Up to this share of the time rounds follow one another at once: the machine has the rest to spare.
UNHURRIED: Final = 0.3
# After a quiet time so many seconds of rounds may come in a row.
SAVED_SECONDS: Final = 0.05
# This much longer than the round a rest may be: more goes in one piece, and nobody sees the difference.
MORE_SECONDS: Final = 0.008
# Shorter rounds are not worth a rest, and timers are no finer.
MIN_SECONDS: Final = 0.001


class Rests:
    """Rests only where there is much to do; then about twice as long as the round took.

    Without any, an event that comes during a round is told right behind it. With 1,000 viewers and 200 events
    a second rounds would take all there is, where one for several events costs no more than one for one.
    """

    def __init__(self, now: float, share: float = 1.0) -> None:
        self._share = share
        self._saved = SAVED_SECONDS
        self._at = now

    def after(self, took: float, now: float) -> float:
        """Give the seconds to rest after a round that took so long."""
        self._saved = min(SAVED_SECONDS, self._saved + (now - self._at) * UNHURRIED)
        # What was not rested for in time is not owed for ever.
        self._saved = max(self._saved - took, -SAVED_SECONDS)
        self._at = now
        if took < MIN_SECONDS or self._saved > 0:
            return 0.0
        return self._share * (took + min(took, MORE_SECONDS))
