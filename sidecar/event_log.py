"""The newest events in memory, as the bytes that go to the viewers: made once, shared by all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from sse_starlette.event import ServerSentEvent

from celery_plugin.contract import LogEntry, Position

# About 6 MB; a viewer that falls further behind gets a snapshot, which is less to read than what it missed.
LENGTH = 10_000


def sse(event: str, data: bytes | str, position: Position | None = None) -> bytes:
    """Encode one Server-Sent Event; ``data`` is JSON on one line."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    return ServerSentEvent(text, event=event, id=str(position) if position else None, sep="\n").encode()


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of the log, ready to be sent."""

    offset: int
    lean: bytes


def make_frame(epoch: str, entry: LogEntry, event_type: str | None) -> Frame:
    """Encode an event of the log; of one without a type, which cannot be read, viewers get only the id."""
    position = Position(epoch, entry.offset)
    return Frame(entry.offset, sse(event_type, entry.event, position) if event_type else _bare_id(position))


def _bare_id(position: Position) -> bytes:
    return f"id: {position}\n\n".encode()


class EventLog:
    """Frames without a hole, from one epoch; a viewer is a position in it."""

    def __init__(self, length: int = LENGTH) -> None:
        self._length = length
        self._frames: deque[Frame] = deque()
        self.position = Position("", 0)

    def restart(self, position: Position) -> None:
        """Begin anew behind a position."""
        self._frames.clear()
        self.position = position

    def adopt(self, epoch: str) -> None:
        """Go on under the first epoch: until then there was nothing to tell."""
        self.position = Position(epoch, self.position.offset)

    def append(self, entry: LogEntry, event_type: str | None) -> None:
        """Add the next event; its offset is one more than the last one's. None: it cannot be read."""
        if entry.offset != self.position.offset + 1:
            raise AssertionError(f"offset {entry.offset} does not follow {self.position.offset}")
        self.position = Position(self.position.epoch, entry.offset)
        self._frames.append(make_frame(self.position.epoch, entry, event_type))
        # Two, so that what was put back goes again, but not before its viewers have taken it.
        for _ in range(min(2, len(self._frames) - self._length)):
            self._frames.popleft()

    def put_back(self, frames: Sequence[Frame]) -> None:
        """Add older frames, the last of which comes just before the first one here."""
        if frames and frames[-1].offset + 1 != self.first:
            raise AssertionError(f"offset {frames[-1].offset} does not come before {self.first}")
        self._frames.extendleft(reversed(frames))

    def holds(self, position: Position) -> bool:
        """Tell whether everything behind a position is here."""
        return (
            position.epoch == self.position.epoch
            and self.first <= position.offset + 1 <= self.position.offset + 1
        )

    def after(self, offset: int) -> Iterator[Frame]:
        """The frames behind an offset that the log holds."""
        # From the right, where the viewers are: a deque is slow in its middle.
        missing = self.position.offset - offset
        return reversed(list(islice(reversed(self._frames), missing)))

    @property
    def first(self) -> int:
        """The offset of the oldest frame, or of the next one where there is none."""
        return self._frames[0].offset if self._frames else self.position.offset + 1
