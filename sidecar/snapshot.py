"""The state as a new viewer gets it, and where the log goes on from there; shared by all who want the same.

A snapshot goes out in parts, so that a large queue neither holds up the loop nor makes one giant line. The id
before it leads nowhere, and only ``live``, which ends it, has a place: who is cut off within it starts over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import anyio
import anyio.lowlevel

from celery_plugin.contract import JSON, EventType, Position, encode
from sidecar import control
from sidecar.event_log import sse
from sidecar.feed import Feed
from sidecar.filters import TaskFilter
from sidecar.forms import Form
from sidecar.state import State
from sidecar.status import StatusBoard
from sidecar.tasks import Task
from sidecar.wanted import Wanted

MAX_AGE_SECONDS = 1.0
PART_TASKS = 200
# Every active task is shown; of those that wait a viewer can use about this many, and the totals.
WAITING_MAX: Final = 1000
# So many tasks are looked at in one step of the loop: about 1 ms.
STEP_TASKS = 500


@dataclass
class Snapshot:
    """What a viewer is sent first, and where it goes on."""

    head: JSON
    tasks: list[Task]
    form: Form
    position: Position
    place: int
    made_at: float
    last = False
    # Made as they are first asked for; all are forgotten when a newer snapshot takes the place of this one.
    _parts: dict[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many parts there are."""
        return max(1, -(-len(self.tasks) // PART_TASKS))

    def part(self, number: int) -> bytes:
        """One or more whole events."""
        part = self._parts.get(number)
        if part is None:
            part = self._parts[number] = self._make(number)
        return part

    def forget_parts(self) -> None:
        """Keep no more than is needed to make them again, for a viewer that is slow."""
        self._parts.clear()

    def _make(self, number: int) -> bytes:
        head = self.head if number == 0 else {"type": EventType.SNAPSHOT}
        tasks = self.tasks[number * PART_TASKS : (number + 1) * PART_TASKS]
        frame = make_part(encode(head), (self.form.of(task.event, task.extra) for task in tasks))
        return frame if number + 1 < len(self) else frame + control.live(self.position)


def make_part(head: str, tasks: Iterable[bytes]) -> bytes:
    """One event of a snapshot: the members of its head, and tasks."""
    return sse(EventType.SNAPSHOT, head[:-1].encode() + b',"tasks":[' + b",".join(tasks) + b"]}")


# What a snapshot depends on: what is wanted, and how many waiting tasks.
_Key = tuple[Wanted, int | None]


class Snapshots:
    """Makes a snapshot and keeps it for a second: a thousand viewers that come together share it."""

    def __init__(self, feed: Feed, status: StatusBoard) -> None:
        self._feed = feed
        self._status = status
        self._latest: OrderedDict[_Key, Snapshot] = OrderedDict()
        # One is made at a time; those that waited mostly find what they want.
        self._making = anyio.Lock()

    async def latest(self, wanted: Wanted, waiting_max: int | None = WAITING_MAX) -> Snapshot:
        """A snapshot from whose place the log can be followed; None: with all that wait."""
        key = (wanted, waiting_max)
        if (young := self._young(key)) is not None:
            return young
        async with self._making:
            if (young := self._young(key)) is not None:
                return young
            self._latest[key] = await self._make(wanted, waiting_max)
            return self._latest[key]

    def _young(self, key: _Key) -> Snapshot | None:
        oldest = anyio.current_time() - MAX_AGE_SECONDS
        # They stand in the order in which they were begun, so that thousands need not all be looked at.
        while self._latest and not self._is_good(next(iter(self._latest.values())), oldest):
            self._latest.popitem(last=False)[1].forget_parts()
        return self._latest.get(key)

    def _is_good(self, snapshot: Snapshot, oldest: float) -> bool:
        return snapshot.made_at >= oldest and self._feed.log.holds_place(snapshot.place)

    async def _make(self, wanted: Wanted, waiting_max: int | None) -> Snapshot:
        # All that belongs to one moment is taken in one step; what takes long comes after it.
        state, log = self._feed.state, self._feed.log
        head, position, place = self._head(wanted), log.position, log.end
        running, waiting = _by_rank(state, wanted.tasks)
        running, waiting = await _admitted(wanted.tasks, running), await _admitted(wanted.tasks, waiting)
        shown = waiting if waiting_max is None else waiting[:waiting_max]
        head["truncated"] = len(shown) < len(waiting)
        if head["truncated"]:
            head |= {"running_total": len(running), "waiting_total": len(waiting)}
        tasks = [*running, *shown] if wanted.has(EventType.TASK_STATUS) else []
        return Snapshot(head, tasks, wanted.form, position, place, anyio.current_time())

    def _head(self, wanted: Wanted) -> JSON:
        head: JSON = {"type": EventType.SNAPSHOT}
        # The figures of now say how much there is besides what was asked for.
        if not wanted.types or wanted.has(EventType.QUEUE_STATUS):
            head["queue_status"] = self._status.current_of(wanted.scope)
        if wanted.has(EventType.WORKER_STATUS):
            workers, names = self._feed.state.shown_workers(), wanted.tasks.workers
            head["workers"] = [worker for worker in workers if not names or worker["worker"] in names]
        return head


def _by_rank(state: State, wanted: TaskFilter) -> tuple[list[Task], list[Task]]:
    """The tasks that run or ran when they were lost, and the others."""
    if named := wanted.candidates.named:
        found = [task for task_id in sorted(named) if (task := state.task(task_id)) is not None]
        return [task for task in found if _runs(task)], [task for task in found if not _runs(task)]
    ran = [task for task in state.lost.values() if _runs(task)]
    others = (task for task in state.lost.values() if not _runs(task))
    return [*state.active.values(), *ran], [*others, *state.waiting.values()]


def _runs(task: Task) -> bool:
    return task.status == "active" or (task.was is not None and task.was.status == "active")


async def _admitted(wanted: TaskFilter, tasks: list[Task]) -> list[Task]:
    if not wanted.selects:
        return tasks
    admitted: list[Task] = []
    for start in range(0, len(tasks), STEP_TASKS):
        admitted += filter(wanted.admits, tasks[start : start + STEP_TASKS])
        await anyio.lowlevel.checkpoint()
    return admitted
