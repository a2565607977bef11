"""How many tasks there are of each kind, counted as they come and go, and which have changed lately.

Of 100,000 tasks there are a few hundred kinds, so what somebody may see of them is counted in no time; and
of what has not changed nothing need be counted again.
"""

from __future__ import annotations

from collections import Counter
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

    def note(self, task: Task) -> None:
        """A task has come or gone."""
        if self.all:
            return
        self.task_ids.add(task.task_id)
        self.names.add(task.task_name)
        self.queues.add(task.queue)
        self.all = len(self.task_ids) > CHANGES_MAX


def kind_of(task: Task) -> Kind:
    """Say with which others a task is counted."""
    return Kind(task.task_name, task.queue, task.status)


class Census:
    """Kind → how many tasks of it there are, by their queue."""

    def __init__(self) -> None:
        self._by_queue: dict[str, Counter[Kind]] = {}
        # Of a new state everything is new.
        self._changes = Changes(all=True)

    def add(self, task: Task) -> None:
        """Count a task."""
        self._by_queue.setdefault(task.queue, Counter())[kind_of(task)] += 1
        self._changes.note(task)

    def discard(self, task: Task) -> None:
        """Count a task no longer."""
        kinds, kind = self._by_queue[task.queue], kind_of(task)
        kinds[kind] -= 1
        if not kinds[kind]:
            del kinds[kind]
        if not kinds:
            del self._by_queue[task.queue]
        self._changes.note(task)

    def numbers(self, queues: Collection[str] | None = None) -> Iterator[tuple[Kind, int]]:
        """Each kind of which there are tasks, in these queues or in all, and how many."""
        for queue in self._by_queue if queues is None else queues:
            yield from self._by_queue.get(queue, {}).items()

    def take_changes(self) -> Changes:
        """What has changed since this was called last."""
        changes, self._changes = self._changes, Changes()
        return changes
