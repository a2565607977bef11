"""Lost by lease: what a worker has whose lease has ended is lost, until the lease runs again.

It is a view, the same in every sidecar because all read the same leases. Nothing of it enters Redis or has an
id: a viewer that is connected has it from the frames between those of the log, a new one from its snapshot,
and one that comes back is told what it may not have seen.

    lease ends ─► lost (previous: what it was) ─► lease runs again ─► as it was (previous: lost)
                          │
                          └─► an event of the log, whatever it says, shows the task as it is
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

import anyio
import anyio.lowlevel

from celery_plugin.contract import JSON, EventType, Position, encode
from sidecar.event_log import Frame, view_frame
from sidecar.feed import Feed
from sidecar.state import State, read_event
from sidecar.store import Leases
from sidecar.tasks import Task

REASON = "worker_lost"
MESSAGE = "Lost: its worker no longer renews its lease"
# Of a worker whose record does not say; the plugin's default.
LEASE_SECONDS = 15.0
# A worker with 100,000 tasks must not hold up the loop when it goes.
STEP_CHANGES = 200
# By then every sidecar that reads Redis has seen the same, and told its viewers.
AGREED_SECONDS = 5.0
# How long what no longer stands is kept.
CLEAN_SECONDS = 60.0
# How long a reading of the leases waits for the events that were written before it.
PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Change:
    """A task or a worker that is shown otherwise than before, without an event of the log."""

    event_type: str
    event: bytes
    subject: Task | JSON

    @property
    def extra(self) -> bytes:
        """What is shown of it only where it is asked for."""
        return self.subject.extra if isinstance(self.subject, Task) else b"{}"


class _Moment:
    """When changes were made; ``agreed_by`` is the offset by which everyone had them, None if not yet."""

    def __init__(self) -> None:
        self.at = anyio.current_time()
        self.agreed_by: int | None = None


class View:
    """Makes a feed follow the leases."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        # The changes that stand, by what they are about, in their order.
        self._standing: dict[tuple[str, str], tuple[Change, _Moment]] = {}
        self._recent: list[_Moment] = []
        self._clean_at = 0.0

    async def prepare(self, state: State, leases: Leases) -> None:
        """Show what the leases say in a state that nobody sees yet."""
        await self._make(state, leases)

    async def follow(self, leases: Leases) -> None:
        """Show what the leases say; passed over where the feed does not get to where they were read."""
        state = self._feed.state
        if await self._reaches(leases.position) and self._feed.state is state:
            self._agree()
            await self._make(state, leases)

    def since(self, position: Position) -> Iterator[Frame]:
        """The frames of what a viewer may not have seen that was at this position last."""
        for change, moment in self._standing.values():
            told = moment.agreed_by is not None and moment.agreed_by < position.offset
            if not told and _stands(self._feed.state, change):
                yield view_frame(position.offset, change.event_type, change.event, change.extra)

    async def _reaches(self, position: Position) -> bool:
        with anyio.move_on_after(PATIENCE_SECONDS):
            while self._feed.position.epoch == position.epoch:
                if self._feed.position.offset >= position.offset:
                    return True
                await self._feed.wait()
        return False

    async def _make(self, state: State, leases: Leases) -> None:
        moment, number = _Moment(), 0
        for number, change in enumerate(changes(state, leases), 1):
            self._standing[_key(change)] = (change, moment)
            if self._feed.state is state:
                self._feed.show(change.event_type, change.event, change.extra)
            if not number % STEP_CHANGES:
                self._feed.wake()
                await anyio.lowlevel.checkpoint()
        if number:
            self._recent.append(moment)
            self._feed.wake()

    def _agree(self) -> None:
        now = anyio.current_time()
        for moment in self._recent:
            if now - moment.at >= AGREED_SECONDS:
                moment.agreed_by = self._feed.position.offset
        self._recent = [moment for moment in self._recent if moment.agreed_by is None]
        if now < self._clean_at:
            return
        self._clean_at = now + CLEAN_SECONDS
        state = self._feed.state
        self._standing = {key: value for key, value in self._standing.items() if _stands(state, value[0])}


def changes(state: State, leases: Leases) -> Iterator[Change]:
    """Make the state show what the leases say, a change at a time; events may be applied in between."""
    yield from _worker_changes(state, leases)
    yield from _losses(state, leases)
    yield from _returns(state, leases)


def _worker_changes(state: State, leases: Leases) -> Iterator[Change]:
    for worker_id, record in list(state.workers.items()):
        if state.workers.get(worker_id) is not record:
            continue
        runs = leases.run(worker_id)
        if worker_id in state.ended_workers and runs:
            del state.ended_workers[worker_id]
            yield Change(EventType.WORKER_STATUS, encode(record).encode(), record)
        elif worker_id not in state.ended_workers and not runs and _is_judged(record, leases):
            shown = {**record, "status": "offline", "lost_at": _lost_at(state, leases, worker_id)}
            state.ended_workers[worker_id] = shown
            yield Change(EventType.WORKER_STATUS, encode(shown).encode(), shown)


def _is_judged(record: JSON, leases: Leases) -> bool:
    return record["status"] != "offline" and not _is_newer(record.get("offset"), leases)


def _is_newer(offset: object, leases: Leases) -> bool:
    """Tell what was written behind the reading: it came from a worker that was alive then."""
    return isinstance(offset, int) and offset > leases.position.offset


def _losses(state: State, leases: Leases) -> Iterator[Change]:
    gone = {worker_id for worker_id in state.held if worker_id and not _has(state, leases, worker_id)}
    if not gone:
        return
    for task in [*state.active.values(), *state.waiting.values()]:
        if task.worker_id in gone and not _is_newer(task.offset, leases) and _is_here(state, task):
            event = _lost_event(task, _lost_at(state, leases, task.worker_id))
            yield Change(EventType.TASK_STATUS, event, state.lose(task, event))


def _returns(state: State, leases: Leases) -> Iterator[Change]:
    back = {task.worker_id for task in state.lost.values()}
    back = {worker_id for worker_id in back if _has(state, leases, worker_id)}
    if not back:
        return
    for task in list(state.lost.values()):
        if task.worker_id in back and _is_here(state, task):
            found = state.find(task)
            yield Change(EventType.TASK_STATUS, _with_previous(found, task), found)


def _has(state: State, leases: Leases, worker_id: str) -> bool:
    """Tell whether a worker can have tasks."""
    worker = state.workers.get(worker_id)
    return leases.run(worker_id) and (worker is None or worker["status"] != "offline")


def _is_here(state: State, task: Task) -> bool:
    return state.task(task.task_id) is task


def _lost_event(task: Task, lost_at: float | None) -> bytes:
    told = {"status": "lost", "reason": REASON, "message": MESSAGE, "lost_at": lost_at}
    return encode(read_event(task.event) | {"previous": _seen(task)} | told).encode()


def _with_previous(found: Task, lost: Task) -> bytes:
    return encode(read_event(found.event) | {"previous": _seen(lost)}).encode()


def _seen(task: Task) -> JSON:
    return {"status": task.status, "worker": task.worker or None}


def _lost_at(state: State, leases: Leases, worker_id: str) -> float | None:
    """When the worker renewed its lease last, or, where it gave that up, when it spoke last."""
    record = state.workers.get(worker_id, {})
    end = leases.ends.get(worker_id)
    seconds = record.get("lease_seconds", LEASE_SECONDS)
    if not _is_time(end):
        spoke = record.get("timestamp")
        return spoke if _is_time(spoke) else None
    return round(end - (seconds if _is_time(seconds) else LEASE_SECONDS), 6)


def _is_time(value: object) -> TypeGuard[float]:
    # Integers of any length are JSON, and a lease may be anything that Redis takes for a number.
    return isinstance(value, int | float) and abs(value) < 1e12 and not math.isnan(value)


def _key(change: Change) -> tuple[str, str]:
    subject = change.subject
    return (change.event_type, subject.task_id if isinstance(subject, Task) else subject["worker_id"])


def _stands(state: State, change: Change) -> bool:
    """Tell whether what a change showed has not been replaced since."""
    subject = change.subject
    if isinstance(subject, Task):
        return _is_here(state, subject)
    return state.worker(subject["worker_id"]) is subject
