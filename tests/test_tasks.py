"""Tasks come in the order of receipt, however they came in and went."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import tasks as tasks_module
from sidecar.tasks import Place, Task, TaskGroup


def make(task_id: str, received_at: float) -> Task:
    """A task of which only its place counts."""
    return Task(task_id, "active", 1, received_at, "", "", "", "", b"{}", b"{}")


steps = st.lists(st.tuples(st.text("abcdef", min_size=1, max_size=2), st.integers(0, 5)), max_size=60)
places = st.none() | st.tuples(st.integers(-1, 6).map(float), st.text("abcdef", max_size=2))


@given(steps, places, st.integers(0, 70))
def test_order(history: list[tuple[str, int]], place: Place | None, count: int) -> None:
    """It is a sorted list in all that can be seen, and in blocks inside."""
    group = TaskGroup()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks_module, "BLOCK", 2)
        for task_id, received_at in history:
            if known := group.get(task_id):
                group.discard(known)
            else:
                group.add(make(task_id, float(received_at)))
    behind = sorted(task.place for task in group.values() if place is None or task.place > place)
    assert behind[:count] == [task.place for task in group.after(place, count)]
    assert all(group._blocks)
    assert len(group) == sum(map(len, group._blocks))


def test_blocks_stay_small() -> None:
    """No block grows beyond its bound, whether tasks come in order or against it."""
    order: list[Any] = [range(5000), range(5000, 0, -1)]
    for numbers in order:
        group = TaskGroup()
        for number in numbers:
            group.add(make(str(number), float(number)))
        assert max(map(len, group._blocks)) <= 2 * tasks_module.BLOCK
