"""What the stream of one task begins with: the task, if a worker has it, if it has ended, or if neither.

A task that may not be seen is nowhere: whoever asks for it can tell it from no other that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from celery_plugin.contract import END_STATUSES, JSON, EventType, Position, encode, split_record
from sidecar import control
from sidecar.backlog import Backlog
from sidecar.feed import Feed, Link
from sidecar.forms import Form
from sidecar.problems import Unavailable
from sidecar.snapshot import make_part
from sidecar.state import Unreadable, read_event
from sidecar.store import Store, StoreUnavailable
from sidecar.subjects import subject_of
from sidecar.together import Together
from sidecar.wanted import Wanted, ends_task

# The record of a task that waits in the broker; None where a bounded look does not find it, Unavailable
# where it cannot be asked.
FindPending = Callable[[str], Awaitable[JSON | None]]


async def find_nothing(task_id: str) -> JSON | None:
    """Look nowhere: what waits in the broker is then unknown."""
    return None


@dataclass(frozen=True)
class TaskBeginning:
    """One part, and nothing behind it where the task has ended."""

    chunk: bytes
    position: Position
    place: int
    last: bool = False

    def __len__(self) -> int:
        return 1

    def part(self, number: int) -> bytes:
        """The only one."""
        return self.chunk


class TaskBeginnings:
    """Looks for a task in memory, in what Redis keeps of those that ended, and in the broker's list."""

    def __init__(
        self, feed: Feed, store: Store, backlog: Backlog, find_pending: FindPending = find_nothing
    ) -> None:
        self._feed = feed
        self._ended = Together(store.ended)
        self._backlog = backlog
        self._find_pending = find_pending

    async def make(self, wanted: Wanted) -> TaskBeginning:
        """Find the task and show it; raises StoreUnavailable."""
        [task_id] = wanted.tasks.task_ids
        # What happens from here on is told from the log, so nothing is lost between the looks.
        place, position = self._feed.log.end, self._feed.log.position
        # The second look finds what ended between the first one and the look into memory.
        for _ in range(2):
            ended = await self._kept(wanted)
            task = self._feed.state.task(task_id)
            if task is not None and wanted.tasks.admits(task):
                shown = wanted.form.of(task.event, task.extra)
                return TaskBeginning(self._shown(shown), self._feed.log.position, self._feed.log.end)
            if ended is not None and ended["status"] in END_STATUSES:
                return self._of_ended(ended, wanted.form)
            if ended is not None or self._feed.log.end == place:
                break  # it may have gone on in between, which is told; or nothing has ended
        record = ended or await self._waiting(wanted) or _unknown(task_id)
        return TaskBeginning(self._shown(_in_form(record, wanted.form), position), position, place)

    async def end_of(self, wanted: Wanted) -> JSON | None:
        """The record of a task that has ended; None where it has not, or Redis cannot say."""
        [task_id] = wanted.tasks.task_ids
        try:
            kept = await self._kept(wanted) if self._feed.link is Link.LIVE else None
        except StoreUnavailable:
            return None
        has_ended = kept is not None and kept["status"] in END_STATUSES
        return kept if has_ended and self._feed.state.task(task_id) is None else None

    async def has_seen(self, last: Position, end: JSON) -> bool:
        """Tell whether whoever saw this id last has seen that end."""
        if last.epoch != self._feed.position.epoch:
            return False
        if isinstance(end.get("offset"), int) and end["offset"] <= last.offset:
            return True
        # The record may be of an earlier epoch, whose offsets say nothing here.
        try:
            if await self._backlog.reach(last) is not None:
                return False
        except StoreUnavailable:
            return False
        later = self._feed.log.after(last.offset)
        return not any(frame.task_id == end["task_id"] and ends_task(frame) for frame in later)

    async def _waiting(self, wanted: Wanted) -> JSON | None:
        [task_id] = wanted.tasks.task_ids
        try:
            record = await self._find_pending(task_id)
        except Unavailable:  # what workers do is told all the same
            return None
        return record if record is not None and wanted.tasks.admits(subject_of(record)) else None

    async def _kept(self, wanted: Wanted) -> JSON | None:
        [task_id] = wanted.tasks.task_ids
        record = await self._ended.find(task_id)
        try:
            event = read_event(record or b"")
        except Unreadable:
            return None
        is_shown = event["type"] == EventType.TASK_STATUS and wanted.tasks.admits(subject_of(event))
        return event if is_shown else None

    def _of_ended(self, record: JSON, form: Form) -> TaskBeginning:
        chunk = self._shown(_in_form(record, form)) + control.end(subject_of(record))
        return TaskBeginning(chunk, self._feed.log.position, self._feed.log.end, last=True)

    def _shown(self, record: bytes, position: Position | None = None) -> bytes:
        head = encode({"type": EventType.SNAPSHOT})
        return make_part(head, [record]) + control.live(position or self._feed.log.position)


def _in_form(record: JSON, form: Form) -> bytes:
    event, extra = split_record(record)
    return form.of(encode(event).encode(), encode(extra).encode())


def _unknown(task_id: str) -> JSON:
    return {
        "type": EventType.TASK_STATUS,
        "task_id": task_id,
        "task_name": None,
        "status": "unknown",
        "position": None,
        "message": "Not seen so far",
    }
