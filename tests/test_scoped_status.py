"""The figures of a narrow token count what it may see, and nothing else."""

from __future__ import annotations

import json
import random
import time
import weakref
from typing import Any

import pytest

from celery_plugin.contract import JSON, LogEntry, encode
from sidecar.scope import Scope, read_scope
from sidecar.scoped_status import ScopedStatus, count_tasks, narrow_status
from sidecar.state import State
from tests.support.batches import Sender
from tests.support.deadline import eventually
from tests.support.sse import EventStream
from tests.support.starters import StartSidecar
from tests.support.tokens import SECRET, token
from tests.support.writing import task

STATUSES = ("active", "reserved", "scheduled")
FIGURES: JSON = {
    "type": "queue_status",
    "total_tasks": 100,
    "active_tasks": 40,
    "pending_tasks": 30,
    "reserved_tasks": 20,
    "scheduled_tasks": 10,
    "lost_tasks": 5,
    "failed_last_hour": 7,
    "oldest_waiting_s": 3.0,
    "workers_online": 2,
    "queues": [
        {"name": "high", "pending": 10},
        {"name": "low", "pending": 20},
        {"name": "q", "pending": None},
    ],
    "server_time": 1.0,
}


def put(
    state: State, offset: int, task_id: str, status: str, name: str = "app.a", queue: str = "high"
) -> None:
    """Apply an event."""
    event = {"type": "task_status", "task_id": task_id, "status": status, "task_name": name, "queue": queue}
    state.apply(LogEntry(offset, encode(event).encode(), b"{}"), event)


def one_by_one(state: State, scope: Scope) -> dict[str, int]:
    """Count by looking at every task."""
    counts = dict.fromkeys((*STATUSES, "lost"), 0)
    for group in (state.active, state.waiting, state.lost):
        for each in group.values():
            counts[each.status] += scope.admits(each)
    return counts


@pytest.mark.parametrize(
    "read",
    [
        "*",
        {"tasks": ["1", "2", "3", "none"]},
        {"names": ["app.a*"]},
        {"queues": ["high"]},
        {"tasks": [str(number) for number in range(100)], "names": ["*b"], "queues": ["low"]},
        {"queues": ["none"]},
    ],
)
def test_count(read: Any) -> None:
    """However tasks come, change, are lost and go, the count is the same as looking at each."""
    state, scope, chance = State(), read_scope(read), random.Random(1)
    for offset in range(1, 2000):
        name, queue = chance.choice(["app.a", "app.ab", "", "x.b"]), chance.choice(["high", "low", ""])
        put(state, offset, str(chance.randrange(200)), chance.choice([*STATUSES, "completed"]), name, queue)
        if offset % 7 == 0 and state.active:
            task = next(iter(state.active.values()))
            state.lose(task, task.event)
        if offset % 11 == 0 and state.lost:
            state.find(next(iter(state.lost.values())))
    seen = count_tasks(state, scope)
    assert one_by_one(state, scope) == {status: seen[status] for status in (*STATUSES, "lost")}
    assert len(state.active) + len(state.waiting) + len(state.lost) == sum(
        number for _, number in state.census.numbers()
    )


def test_count_is_cheap() -> None:
    """100,000 tasks of 300 kinds are counted in a few milliseconds, for any scope."""
    state = State()
    for offset in range(1, 100_001):
        put(state, offset, str(offset), STATUSES[offset % 3], f"app.{offset % 100}")
    scope = read_scope({"names": ["*9", "*a*"], "tasks": [str(number) for number in range(100)]})
    best = min(_seconds(state, scope) for _ in range(5))
    assert best < 0.02


def _seconds(state: State, scope: Scope) -> float:
    start = time.perf_counter()
    count_tasks(state, scope)
    return time.perf_counter() - start


def test_everything() -> None:
    """Who may read everything gets the figures as they are."""
    assert FIGURES is narrow_status(FIGURES, read_scope("*"), count_tasks(State(), read_scope("*")))


@pytest.mark.parametrize(
    ("pending", "total", "queues", "read"),
    [
        (10, 12, ["high"], {"queues": ["high"]}),
        (None, None, ["q"], {"queues": ["q"]}),
        (None, None, [], {"names": ["app.*"]}),
        (None, None, [], {"tasks": ["1"]}),
    ],
)
def test_narrow(pending: int | None, total: int | None, queues: list[str], read: Any) -> None:
    """Depths are shown of the queues of the scope; what may not be seen is null."""
    state, scope = State(), read_scope(read)
    put(state, 1, "1", "active")
    put(state, 2, "2", "reserved")
    put(state, 3, "3", "active", "x", "other")
    seen = count_tasks(state, scope)
    figures = narrow_status(FIGURES, scope, seen)
    assert (pending, total) == (figures["pending_tasks"], figures["total_tasks"])
    assert queues == [queue["name"] for queue in figures["queues"]]
    assert (seen["active"], seen["reserved"], 0, 0) == tuple(
        figures[f"{status}_tasks"] for status in (*STATUSES, "lost")
    )
    assert {None} == {figures[name] for name in ("failed_last_hour", "oldest_waiting_s", "workers_online")}
    assert FIGURES.keys() == figures.keys()


# -- as they are told


SCOPES = [
    {"tasks": ["1", "2", "none"]},
    {"names": ["app.a*"]},
    {"queues": ["high"]},
    {"tasks": ["3"], "names": ["*b"], "queues": ["low"]},
]


def test_nothing_that_changes_is_missed() -> None:
    """However tasks and depths change, what is kept for a scope is what a count of now gives."""
    state, chance, board = State(), random.Random(2), ScopedStatus()
    kept = {json.dumps(read): (read_scope(read), board.figures_of(read_scope(read))) for read in SCOPES}
    for offset in range(1, 1000):
        name, queue = chance.choice(["app.a", "app.ab", "", "x.b"]), chance.choice(["high", "low", ""])
        put(state, offset, str(chance.randrange(8)), chance.choice([*STATUSES, "completed"]), name, queue)
        current = FIGURES | {"queues": [depth_of(each, chance.randrange(2)) for each in ("high", "low", "q")]}
        before = {read: figures.version for read, (_, figures) in kept.items()}
        changed = board.refresh(state, current)
        for read, (scope, figures) in kept.items():
            expected = narrow_status(current, scope, count_tasks(state, scope))
            assert encode(expected).encode() in figures.frame
            assert (figures in changed) == (figures.version > before[read])


def depth_of(queue: str, pending: int) -> JSON:
    """How a queue is shown."""
    return {
        "name": queue,
        "pending": pending,
        "by_priority": {"0": pending},
        "consumers": 1,
        "measured_at": 1.0,
    }


def test_nothing_is_kept_for_nobody() -> None:
    """What nobody watches any more is forgotten, and what nothing has happened to is not counted again."""
    state, board = State(), ScopedStatus()
    one, other = (board.figures_of(read_scope({"tasks": [name]})) for name in "12")
    assert one is board.figures_of(read_scope({"tasks": ["1"]}))
    assert [one, other] == board.refresh(state, FIGURES)
    put(state, 1, "1", "active")
    assert [one] == board.refresh(state, FIGURES)
    assert [] == board.refresh(state, FIGURES)
    left = weakref.ref(one)
    del one
    assert left() is None


def until_active(stream: EventStream, count: int) -> JSON:
    """Wait for the figures to say that so many tasks run."""
    told: JSON = stream.until(
        lambda event: event.event == "queue_status" and event.data["active_tasks"] == count
    ).data
    return told


def test_a_stream_has_the_figures_of_its_scope(sender: Sender, start_sidecar: StartSidecar) -> None:
    """They come after the snapshot and when a task of the scope changes, and not when another does."""
    sidecar = start_sidecar(env={"SIDECAR_AUTH_SECRETS": SECRET})
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    headers = {"Authorization": f"Bearer {token({'tasks': ['a'], 'queues': ['mine']}, ttl=600)}"}
    with sidecar.events(headers=headers) as stream:
        assert 0 == stream.until_type("snapshot").data["queue_status"]["active_tasks"]
        assert 0 == stream.until_type("queue_status").data["active_tasks"]
        for number in range(20):
            sender.send(task(f"other{number}", "active", queue="theirs"))
        sender.send(task("a", "active", queue="theirs"), task("b", "reserved", queue="mine"))
        told = stream.until(
            lambda event: event.event == "queue_status" and event.data["active_tasks"] == 1
        ).data
        assert (1, None) == (told["reserved_tasks"], told["workers_online"])
        sender.send(task("a", "completed", queue="theirs"))
        stream.until(lambda event: event.event == "queue_status" and event.data["active_tasks"] == 0)
    assert {"a", "b"} == {event.data["task_id"] for event in stream.seen if event.event == "task_status"}
    # Of each change one, and no more.
    assert len([event for event in stream.seen if event.event == "queue_status"]) <= 4


def test_a_filter_within_a_scope(sender: Sender, start_sidecar: StartSidecar) -> None:
    """The figures are those of all that may be seen, also where a stream lets through less."""
    sidecar = start_sidecar(env={"SIDECAR_AUTH_SECRETS": SECRET})
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    headers = {"Authorization": f"Bearer {token({'queues': ['mine']}, ttl=600)}"}
    params = {"task_id": "none", "types": "queue_status,task_status"}
    with sidecar.events(headers=headers, params=params) as stream:
        stream.until_type("live")
        sender.send(task("b", "active", queue="mine"))
        until_active(stream, 1)
    assert [] == [event for event in stream.seen if event.event == "task_status"]
