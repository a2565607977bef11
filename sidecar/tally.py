"""What this sidecar counts of itself, over all of its processes: whichever is asked adds them up.

With several processes a scrape comes to any one of them, so each has a row of numbers in memory that the
parent made before it started them. A process that takes the place of another goes on with its row: no counter
goes back. Not the client library's own way for several processes, which wants a directory to write into.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

_NUMBER_BYTES: Final = 8


# By identity: it is looked up with each batch of events.
@dataclass(frozen=True, eq=False)
class Figure:
    """A family of `sidecar_…`: what it counts, and how the rows of the processes become one.

    Of what every process counts alike, as each reads the same log, the highest says how much there was.
    """

    name: str
    text: str
    fold: Callable[[Iterable[float]], float] = sum
    is_gauge: bool = False
    label: str = ""
    values: tuple[str, ...] = ("",)
    # Upper bounds; the family is then a histogram, whose last two numbers are the rest and the sum.
    bounds: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """How many numbers it has."""
        return len(self.bounds) + 2 if self.bounds else len(self.values)


STREAMS: Final = Figure("sidecar_streams", "Streams that are open", is_gauge=True)
OPENED: Final = Figure("sidecar_streams_opened_total", "Streams that were opened")
REFUSED: Final = Figure(
    "sidecar_streams_refused_total",
    "Streams for which there was no room, or which came while the sidecar was about to end",
    label="reason",
    values=("streams", "streams_per_address", "drain"),
)
CUT: Final = Figure(
    "sidecar_streams_cut_total",
    "Streams that were cut: the connection took nothing any more, or a fault of the sidecar's own",
    label="reason",
    values=("stalled", "fault"),
)
RESETS: Final = Figure(
    "sidecar_resets_total",
    "Streams that were told to start over",
    label="reason",
    values=("epoch", "trimmed", "future", "behind", "lost"),
)
SENT: Final = Figure("sidecar_events_sent_total", "Events that were sent, counted for each stream")
EVENTS: Final = Figure("sidecar_events_total", "Events that were read from the log", max)
UNREADABLE: Final = Figure("sidecar_unreadable_total", "Events and records that cannot be read", max)
RELOADS: Final = Figure(
    "sidecar_state_reads_total", "How often the whole state was read, at the start for one", max
)
DRIFT: Final = Figure(
    "sidecar_drift_corrections_total",
    "How often a check found what nothing had told: of the log, or of the broker's queues. It should stay 0",
    max,
    label="of",
    values=("log", "queues"),
)
LAG: Final = Figure(
    "sidecar_event_lag_seconds",
    "From when a worker saw something, by its clock, until this sidecar had read it, by its own",
    bounds=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
BEHIND: Final = Figure(
    "sidecar_events_behind", "Events of the log that had not been read at the last look", max, is_gauge=True
)
REDIS_UP: Final = Figure("sidecar_redis_up", "Whether Redis can be read", min, is_gauge=True)
PROCESSES: Final = Figure("sidecar_processes", "Processes that serve", is_gauge=True)
FIGURES: Final = (
    STREAMS, OPENED, REFUSED, CUT, RESETS, SENT, EVENTS, UNREADABLE, RELOADS, DRIFT, LAG, BEHIND, REDIS_UP,
    PROCESSES,
)  # fmt: skip  # one table, read as one
_STARTS: Final = dict(zip(FIGURES, accumulate((each.width for each in FIGURES), initial=1), strict=False))
# The first number of a row is the id of its process.
_WIDTH: Final = 1 + sum(each.width for each in FIGURES)


class Tally:
    """The rows of all processes, and which one is this one's."""

    def __init__(self, rows: int = 1) -> None:
        self._rows = rows
        self._memory = mmap.mmap(-1, rows * _WIDTH * _NUMBER_BYTES)
        self._numbers = memoryview(self._memory).cast("d")
        self._first = 0

    def take_row(self, number: int) -> None:
        """Count in this row, as this process; what only held for the process before it is forgotten."""
        self._first = number * _WIDTH
        for figure in FIGURES:
            if figure.is_gauge:
                for place in range(figure.width):
                    self._numbers[self._first + _STARTS[figure] + place] = 0.0
        self._numbers[self._first] = os.getpid()
        self.put(PROCESSES, 1)

    def add(self, figure: Figure, number: float = 1, value: str = "") -> None:
        """Count."""
        self._numbers[self._first + _STARTS[figure] + figure.values.index(value)] += number

    def put(self, figure: Figure, number: float) -> None:
        """Say how much there is, or was so far."""
        self._numbers[self._first + _STARTS[figure]] = number

    def observe(self, figure: Figure, seconds: float) -> None:
        """Count in the bucket, and add to the sum."""
        start, bounds = self._first + _STARTS[figure], figure.bounds
        place = next((n for n, bound in enumerate(bounds) if seconds <= bound), len(bounds))
        self._numbers[start + place] += 1
        self._numbers[start + len(bounds) + 1] += seconds

    def folded(self, figure: Figure) -> list[float]:
        """The numbers of a figure over all processes; a gauge only of those that live."""
        firsts = [row * _WIDTH for row in range(self._rows)]
        if figure.is_gauge:
            firsts = [first for first in firsts if _runs(int(self._numbers[first]))]
        places = range(_STARTS[figure], _STARTS[figure] + figure.width)
        if not firsts:
            return [math.nan for _ in places]
        return [figure.fold(self._numbers[first + place] for first in firsts) for place in places]


def _runs(pid: int) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


# Of this process: one for everything in it, as there is but one sidecar in a process.
_here = Tally()


def counts() -> Tally:
    """What this process counts in."""
    return _here


def count_in(tally: Tally, row: int) -> None:
    """Let this process count in a row of what its parent made."""
    global _here  # noqa: PLW0603  # set once, when the process begins
    tally.take_row(row)
    _here = tally
