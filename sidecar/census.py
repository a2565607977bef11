"""How many tasks there are of each kind, counted as they come and go, and which did so lately.

Of 100,000 tasks there are a few hundred kinds, so what somebody may see of them is counted in no time; and
of what has not changed nothing need be counted again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sidecar.tasks import Task

# Beyond so many in one tenth of a second it is as cheap to count everything again.
CHANGES_MAX = 5000


class Kind(NamedTuple):
    """What tasks that are counted together have in common; to a filter, a task of which no more is known."""

    task_name: str
    queue: str
    status: str
    task_id: str = ""
    worker: str = ""


@dataclass
class Changes:
    """What a scope can name of the tasks that came or went; ``all`` where they were too many."""

    task_ids: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    queues: set[str] = field(default_factory=set)
    all: bool = False


def kind_of(task: Task) -> Kind:
    """Say with which others a task is counted."""
    return Kind(task.task_name, task.queue, task.status)


class Census:
    """Queue → name and status → how many tasks there are."""

    def __init__(self) -> None:
        self._by_queue: dict[str, dict[tuple[str, str], int]] = {}
        self._changed: list[Task] = []
        self._all_changed = True

    def add(self, task: Task) -> None:
        """Count a task."""
        numbers = self._by_queue.get(task.queue)
        if numbers is None:
            numbers = self._by_queue[task.queue] = {}
        kind = (task.task_name, task.status)
        numbers[kind] = numbers.get(kind, 0) + 1
        self._note(task)

    def discard(self, task: Task) -> None:
        """Count a task no longer."""
        numbers, kind = self._by_queue[task.queue], (task.task_name, task.status)
        if numbers[kind] > 1:
            numbers[kind] -= 1
        else:
            del numbers[kind]
            if not numbers:
                del self._by_queue[task.queue]
        self._note(task)

    def numbers(self, queues: Collection[str] | None = None) -> Iterator[tuple[Kind, int]]:
        """Each kind of which there are tasks, in these queues or in all, and how many."""
        for queue in self._by_queue if queues is None else queues:
            for (name, status), number in self._by_queue.get(queue, {}).items():
                yield Kind(name, queue, status), number

    def take_changes(self) -> Changes:
        """What has changed since this was called last; of a new state that is all."""
        changed, self._changed = self._changed, []
        if self._all_changed:
            self._all_changed = False
            return Changes(all=True)
        return Changes(
            {task.task_id for task in changed},
            {task.task_name for task in changed},
            {task.queue for task in changed},
        )

    def _note(self, task: Task) -> None:
        if self._all_changed:
            return
        self._changed.append(task)
        if len(self._changed) > CHANGES_MAX:
            self._changed, self._all_changed = [], True
