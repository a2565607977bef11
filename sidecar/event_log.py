"""The newest events in memory, as the bytes that go to the viewers: made once, shared by all."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile

from sse_starlette.event import ServerSentEvent

from celery_plugin.contract import JSON, LogEntry, Position
from sidecar.forms import LEAN, Form
from sidecar.subjects import Facts, subjects_of

# About 6 MB; a viewer that falls further behind gets a snapshot, which is less to read than what it missed.
LENGTH = 10_000
# So far apart are the places before and after a restart: more than can ever be put back. Else who stood there
# before would seem to stand among what was put back.
_APART = 2**48


def sse(event: str, data: bytes | str, position: Position | None = None) -> bytes:
    """Encode one Server-Sent Event; ``data`` is JSON."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    if "\n" not in text and "\r" not in text and event.isidentifier():
        # What nearly all events are, in a third of the time.
        place = f"id: {position}\n" if position else ""
        return f"{place}event: {event}\ndata: {text}\n\n".encode()
    return ServerSentEvent(text, event=event, id=str(position) if position else None, sep="\n").encode()


@dataclass(slots=True)
class Frame:
    """One event of the log, ready to be sent."""

    offset: int
    lean: bytes
    # Of an event that cannot be read the type is empty, and no subject is known.
    event_type: str
    subjects: tuple[Facts, ...]
    extra: bytes = b"{}"
    # Made by this sidecar behind the event with that offset: it has no id, and is not replayed.
    view: bool = False
    # The other forms: few ask for them, so each is made when somebody does.
    _others: dict[Form, bytes] | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def task_id(self) -> str:
        """The task that it is about; empty where it is about none."""
        return self.subjects[0].task_id if self.subjects else ""

    @property
    def queue(self) -> str:
        """The queue of that task; empty where it is not known."""
        return self.subjects[0].queue if self.subjects else ""

    def shown(self, form: Form) -> bytes:
        """The event in a form; made once, like the lean one."""
        if form == LEAN or not self.subjects:
            return self.lean
        if self._others is None:
            self._others = {}
        shown = self._others.get(form)
        if shown is None:
            shown = self._others[form] = self._make(form)
        return shown

    def _make(self, form: Form) -> bytes:
        head, data, rest = self.lean.partition(b"data: ")
        event = rest.rstrip()
        return head + data + form.of(event, self.extra) + rest[len(event) :]


def make_frame(epoch: str, entry: LogEntry, event: JSON | None, lost_by: str | None = None) -> Frame:
    """Encode an event of the log; of one that cannot be read, None, viewers get only the id.

    ``lost_by`` is the worker that had lost the task until then, as the leases say and no event does.
    """
    position = Position(epoch, entry.offset)
    if event is None:
        return Frame(entry.offset, bare_id(position), "", ())
    lean = sse(event["type"], entry.event, position)
    subjects = subjects_of(event)
    if lost_by is not None:
        subjects = (*subjects, subjects[0]._replace(status="lost", worker=lost_by))
    return Frame(entry.offset, lean, event["type"], subjects, entry.extra)


def view_frame(offset: int, event_type: str, event: bytes, extra: bytes) -> Frame:
    """Encode what this sidecar has to say itself behind an offset."""
    subjects = subjects_of(json.loads(event))
    return Frame(offset, sse(event_type, event), event_type, subjects, extra, view=True)


def bare_id(position: Position) -> bytes:
    """Encode a place alone: a client remembers it, and dispatches nothing."""
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
        self.end += _APART
        self.position = position

    def adopt(self, epoch: str) -> None:
        """Go on under the first epoch: until then there was nothing to tell."""
        self.position = Position(epoch, self.position.offset)

    def append(self, entry: LogEntry, event: JSON | None, lost_by: str | None = None) -> None:
        """Add the next event; its offset is one more than the last one's. None: it cannot be read."""
        if entry.offset != self.position.offset + 1:
            raise AssertionError(f"offset {entry.offset} does not follow {self.position.offset}")
        self.position = Position(self.position.epoch, entry.offset)
        self._add(make_frame(self.position.epoch, entry, event, lost_by))

    def append_view(self, event_type: str, event: bytes, extra: bytes = b"{}") -> None:
        """Add what this sidecar has to say itself at this offset."""
        self._add(view_frame(self.position.offset, event_type, event, extra))

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

    def between(self, place: int, end: int) -> list[Frame]:
        """The frames that came behind a place that the log holds, up to another one."""
        return list(islice(self.since(place), end - place))

    def place_after(self, offset: int) -> int:
        """The place behind the event with an offset that the log holds, or held last."""
        behind = takewhile(lambda frame: frame.offset > offset, reversed(self._frames))
        return self.end - sum(1 for _ in behind)

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
