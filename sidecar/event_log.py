"""The newest events in memory, as the bytes that go to the viewers: made once, shared by all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from sse_starlette.event import ServerSentEvent

from celery_plugin.contract import LogEntry, Position

# About 6 MB; who is further behind gets a snapshot, which is less to read than what was missed.
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


class EventLog:
    """Frames without a hole, from one epoch; a viewer is a position in it."""

    def __init__(self, length: int = LENGTH) -> None:
        self._frames: deque[Frame] = deque(maxlen=length)
        self.position = Position("", 0)

    def restart(self, position: Position) -> None:
        """Begin anew behind a position."""
        self._frames.clear()
        self.position = position

    def adopt(self, epoch: str) -> None:
        """Go on under the first epoch: until then there was nothing to tell."""
        self.position = Position(epoch, self.position.offset)

    def append(self, entry: LogEntry, event_type: str) -> None:
        """Add the next event; its offset is one more than the last one's."""
        self._push(entry.offset, sse(event_type, entry.event, Position(self.position.epoch, entry.offset)))

    def skip(self, offset: int) -> None:
        """Take an event that cannot be shown into account: viewers get its id and nothing else."""
        self._push(offset, f"id: {self.position.epoch}-{offset}\n\n".encode())

    def _push(self, offset: int, lean: bytes) -> None:
        if offset != self.position.offset + 1:
            raise AssertionError(f"offset {offset} does not follow {self.position.offset}")
        self.position = Position(self.position.epoch, offset)
        self._frames.append(Frame(offset, lean))

    def holds(self, position: Position) -> bool:
        """Tell whether everything behind a position is here."""
        return (
            position.epoch == self.position.epoch
            and self._first <= position.offset + 1 <= self.position.offset + 1
        )

    def after(self, offset: int) -> Iterator[Frame]:
        """The frames behind an offset that the log holds."""
        # From the right, where the viewers are: a deque is slow in its middle.
        missing = self.position.offset - offset
        return reversed(list(islice(reversed(self._frames), missing)))

    @property
    def _first(self) -> int:
        return self._frames[0].offset if self._frames else self.position.offset + 1
