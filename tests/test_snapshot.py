"""A snapshot is made once for all who come together, and the log can be followed from it."""

from __future__ import annotations

import time

import pytest

from celery_plugin.contract import LogEntry, Position, encode
from sidecar import snapshot as snapshot_module
from sidecar.event_log import EventLog
from sidecar.feed import Feed, Link
from sidecar.pulse import Measured
from sidecar.snapshot import PART_TASKS, WAITING_MAX, Snapshot, Snapshots
from sidecar.state import State
from sidecar.status import StatusBoard
from tests.support.sse import Event, Parser
from tests.support.viewing import EVERYTHING

EPOCH = "0123456789abcdef"


def make(active: int = 0, waiting: int = 0, length: int = 100) -> tuple[Feed, Snapshots]:
    """A feed with so many tasks, and its snapshots."""
    feed = Feed()
    feed.log = EventLog(length)
    feed.restart(Position(EPOCH, 0), State())
    feed.mark(Link.LIVE)
    for number in range(active + waiting):
        append(feed, f"t{number}", "active" if number < active else "reserved")
    return feed, Snapshots(feed, StatusBoard(feed, Measured(), ()))


def append(feed: Feed, task_id: str, status: str) -> None:
    """Let an event of a task come."""
    event = {"type": "task_status", "task_id": task_id, "status": status}
    feed.append(LogEntry(feed.position.offset + 1, encode(event).encode(), b'{"args":"(1,)"}'))


def events(snapshot: Snapshot) -> list[Event]:
    """What a viewer makes of it."""
    return Parser().feed(b"".join(snapshot.part(number) for number in range(len(snapshot))))


async def test_empty() -> None:
    """Without tasks it still has every member, and ends with live."""
    snapshot = await make()[1].latest(EVERYTHING)
    part, live = events(snapshot)
    assert ([], [], False) == (part.data["tasks"], part.data["workers"], part.data["truncated"])
    assert 0 == part.data["queue_status"]["active_tasks"]
    assert ("live", f"{EPOCH}-0", f"{EPOCH}-0") == (live.event, live.id, live.data["position"])
    assert abs(live.data["server_time"] - time.time()) < 60


async def test_only_live_has_an_id() -> None:
    """A viewer that is cut off in the middle starts over."""
    parts = events(await make(active=PART_TASKS * 2 + 1)[1].latest(EVERYTHING))
    assert ["snapshot"] * 3 + ["live"] == [part.event for part in parts]
    assert [False, False, False, True] == [part.own_id for part in parts]
    assert ["", "", "", f"{EPOCH}-{PART_TASKS * 2 + 1}"] == [part.id for part in parts]


async def test_parts_join_to_the_whole() -> None:
    """Each task is in one part, without its arguments."""
    parts = events(await make(active=PART_TASKS + 3, waiting=PART_TASKS)[1].latest(EVERYTHING))
    tasks = [task for part in parts[:-1] for task in part.data["tasks"]]
    assert {f"t{number}" for number in range(2 * PART_TASKS + 3)} == {task["task_id"] for task in tasks}
    assert 2 * PART_TASKS + 3 == len(tasks)
    assert not any("args" in task for task in tasks)


async def test_truncated() -> None:
    """Every active task is shown; of very many waiting ones some, with a mark and the totals."""
    first, *_ = parts = events(await make(active=3, waiting=WAITING_MAX + 1)[1].latest(EVERYTHING))
    tasks = [task for part in parts[:-1] for task in part.data["tasks"]]
    assert 3 == sum(task["status"] == "active" for task in tasks)
    assert 3 + WAITING_MAX == len(tasks)
    assert (True, WAITING_MAX + 1) == (
        first.data["truncated"],
        first.data["queue_status"]["reserved_tasks"],
    )


async def test_shared_and_followed() -> None:
    """For a moment all get the same bytes, and the log goes on from their position."""
    feed, snapshots = make(active=2)
    snapshot = await snapshots.latest(EVERYTHING)
    append(feed, "later", "active")
    assert (await snapshots.latest(EVERYTHING)) is snapshot
    assert [3] == [frame.offset for frame in feed.log.after(snapshot.position.offset)]


async def test_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is too old is made anew."""
    feed, snapshots = make(active=2)
    snapshot = await snapshots.latest(EVERYTHING)
    append(feed, "later", "active")
    monkeypatch.setattr(snapshot_module, "MAX_AGE_SECONDS", -1)
    assert Position(EPOCH, 3) == (await snapshots.latest(EVERYTHING)).position
    assert Position(EPOCH, 2) == snapshot.position


async def test_never_behind_the_log() -> None:
    """One from which the log cannot be followed any more is made anew, however young."""
    feed, snapshots = make(length=5)
    await snapshots.latest(EVERYTHING)
    for number in range(6):
        append(feed, f"t{number}", "active")
    assert Position(EPOCH, 6) == (await snapshots.latest(EVERYTHING)).position
    feed.restart(Position("f" * 16, 6), State())
    assert Position("f" * 16, 6) == (await snapshots.latest(EVERYTHING)).position
