"""The state as a new viewer gets it: bytes and the position from which the log goes on, shared by all.

A snapshot goes out in parts, so that a large queue neither holds up the loop nor makes one giant line. Only
``live``, which ends it, carries an id: a viewer that is cut off in the middle starts over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import anyio

from celery_plugin.contract import JSON, EventType, Position, encode
from sidecar.event_log import sse
from sidecar.feed import Feed
from sidecar.state import State
from sidecar.status import StatusBoard
from sidecar.tasks import Task

MAX_AGE_SECONDS = 1.0
PART_TASKS = 500
# Every active task is shown; of those that wait a viewer can use about this many, and the totals.
WAITING_MAX = 1000


@dataclass(frozen=True)
class Snapshot:
    """Frames to send, and where to go on."""

    frames: tuple[bytes, ...]
    position: Position
    place: int
    made_at: float


class Snapshots:
    """Makes a snapshot and keeps it for a second: a thousand viewers that come together share it."""

    def __init__(self, feed: Feed, status: StatusBoard) -> None:
        self._feed = feed
        self._status = status
        self._latest: Snapshot | None = None

    def latest(self) -> Snapshot:
        """The shared snapshot; from its place the log can be followed."""
        latest = self._latest
        fresh = latest is not None and anyio.current_time() - latest.made_at <= MAX_AGE_SECONDS
        if latest is None or not fresh or not self._feed.log.holds_place(latest.place):
            frames, log = tuple(self._frames()), self._feed.log
            latest = Snapshot(frames, log.position, log.end, anyio.current_time())
            self._latest = latest
        return latest

    def _frames(self) -> Iterator[bytes]:
        state = self._feed.state
        running, waiting = _by_rank(state)
        tasks = [*running, *waiting[:WAITING_MAX]]
        head: JSON = {"type": EventType.SNAPSHOT, "queue_status": self._status.current()}
        head |= {"workers": state.shown_workers(), "truncated": len(waiting) > WAITING_MAX}
        yield _part(encode(head), tasks[:PART_TASKS])
        for start in range(PART_TASKS, len(tasks), PART_TASKS):
            yield _part(encode({"type": EventType.SNAPSHOT}), tasks[start : start + PART_TASKS])
        position = self._feed.position
        yield sse(EventType.LIVE, encode({"type": EventType.LIVE, "position": str(position)}), position)


def _by_rank(state: State) -> tuple[list[Task], list[Task]]:
    """The tasks that run or ran when they were lost, and the others, of which a few more than are shown."""
    ran = [task for task in state.lost.values() if task.was is not None and task.was.status == "active"]
    others = (task for task in state.lost.values() if task.was is None or task.was.status != "active")
    return [*state.active.values(), *ran], [*islice(chain(others, state.waiting.values()), WAITING_MAX + 1)]


def _part(head: str, tasks: Iterable[Task]) -> bytes:
    return sse(
        EventType.SNAPSHOT,
        head[:-1].encode() + b',"tasks":[' + b",".join(task.event for task in tasks) + b"]}",
    )
