"""The newest events in memory, as the bytes that go to the viewers: made once, shared by all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

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
    # Made by this sidecar behind the event with that offset: it has no id, and is not replayed.
    view: bool = False


def make_frame(epoch: str, entry: LogEntry, event_type: str | None) -> Frame:
    """Encode an event of the log; of one without a type, which cannot be read, viewers get only the id."""
    position = Position(epoch, entry.offset)
    return Frame(entry.offset, sse(event_type, entry.event, position) if event_type else _bare_id(position))


def _bare_id(position: Position) -> bytes:
    return f"id: {position}\n\n".encode()


class EventLog:
    """Frames without a hole, from one epoch, and between them those of the view; a viewer is a place in it.

    Places count frames from the start of the process; offsets count events in Redis. Only the latter can be
    compared between two sidecars.
    """

    def __init__(self, length: int = LENGTH) -> None:
        self._length = length
        self._frames: deque[Frame] = deque()
        self.position = Position("", 0)
        self.end = 0

    def restart(self, position: Position) -> None:
        """Begin anew behind a position; every place of before has been left behind."""
        self._frames.clear()
        self.end += 1
        self.position = position

    def adopt(self, epoch: str) -> None:
        """Go on under the first epoch: until then there was nothing to tell."""
        self.position = Position(epoch, self.position.offset)

    def append(self, entry: LogEntry, event_type: str | None) -> None:
        """Add the next event; its offset is one more than the last one's. None: it cannot be read."""
        if entry.offset != self.position.offset + 1:
            raise AssertionError(f"offset {entry.offset} does not follow {self.position.offset}")
        self.position = Position(self.position.epoch, entry.offset)
        self._add(make_frame(self.position.epoch, entry, event_type))

    def append_view(self, event_type: str, event: bytes) -> None:
        """Add what this sidecar has to say itself at this offset."""
        self._add(Frame(self.position.offset, sse(event_type, event), view=True))

    def _add(self, frame: Frame) -> None:
        self.end += 1
        self._frames.append(frame)
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

    def holds_place(self, place: int) -> bool:
        """Tell whether every frame since a place is here."""
        return self.end - len(self._frames) <= place

    def since(self, place: int) -> Iterator[Frame]:
        """The frames that came behind a place that the log holds."""
        # From the right, where the viewers are: a deque is slow in its middle.
        return reversed(list(islice(reversed(self._frames), self.end - place)))

    def after(self, offset: int) -> Iterator[Frame]:
        """The events behind an offset that the log holds, without the view."""
        later = takewhile(lambda frame: frame.offset > offset, reversed(self._frames))
        return reversed([frame for frame in later if not frame.view])

    @property
    def first(self) -> int:
        """The offset of the oldest event, or of the next one where there is none."""
        if not self._frames:
            return self.position.offset + 1
        return self._frames[0].offset + self._frames[0].view
