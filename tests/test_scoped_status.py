"""The figures of a narrow token count what it may see, and nothing else."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from celery_plugin.contract import JSON, LogEntry, encode
from sidecar.scope import Scope, read_scope
from sidecar.scoped_status import count_tasks, narrow_status
from sidecar.state import State

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
        for task in group.values():
            counts[task.status] += scope.admits(task)
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
