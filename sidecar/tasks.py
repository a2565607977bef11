"""Tasks that workers have, and the order in which they were received."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

# Where a task stands among others: when it was received, and its id.
Place = tuple[float, str]

# A block is halved at twice this: both finding the block and moving what is behind in it stay short.
BLOCK = 512


@dataclass(slots=True)
class Task:
    """A task that a worker has; its JSON stays in bytes, 110,000 parsed ones would not fit."""

    task_id: str
    status: str
    offset: int
    received_at: float
    task_name: str
    queue: str
    worker: str
    worker_id: str
    event: bytes
    extra: bytes
    # Of one that is shown as lost: as its worker told of it last.
    was: Task | None = None

    @property
    def place(self) -> Place:
        """Where it stands in a list."""
        return (self.received_at, self.task_id)

    @property
    def record(self) -> bytes:
        """The event and the extra as one JSON object."""
        if self.extra == b"{}":
            return self.event
        return self.event[:-1] + b"," + self.extra[1:]


class TaskGroup(dict[str, Task]):
    """Task id → task; changed by `add` and `discard` alone, and walked in the order of receipt.

    In blocks: one list of 100,000 would move 800 KB for each task that goes in or out at its front, and
    sorting them for a question took 45 ms.
    """

    def __init__(self) -> None:
        super().__init__()
        self._blocks: list[list[Task]] = []  # each sorted, none empty, one behind the other

    def add(self, task: Task) -> None:
        """Put in a task that is not there."""
        self[task.task_id] = task
        if not self._blocks:
            self._blocks.append([task])
            return
        at = self._block(task.place)
        block = self._blocks[at]
        insort(block, task, key=_place)
        if len(block) > 2 * BLOCK:
            self._blocks[at : at + 1] = [block[:BLOCK], block[BLOCK:]]

    def discard(self, task: Task) -> None:
        """Take out a task that is there."""
        del self[task.task_id]
        at = self._block(task.place)
        block = self._blocks[at]
        del block[bisect_left(block, task.place, key=_place)]
        if not block:
            del self._blocks[at]

    def after(self, place: Place | None, count: int) -> list[Task]:
        """So many tasks behind a place, or from the beginning, the one received first first."""
        return list(islice(self._walk(place), count))

    def _walk(self, place: Place | None) -> Iterator[Task]:
        if not self._blocks:
            return
        first = 0 if place is None else self._block(place)
        start = 0 if place is None else bisect_right(self._blocks[first], place, key=_place)
        yield from self._blocks[first][start:]
        for block in islice(self._blocks, first + 1, None):
            yield from block

    def _block(self, place: Place) -> int:
        """The first block that does not end before a place, or the last one."""
        if self._blocks[-1][0].place <= place:
            return len(self._blocks) - 1
        return bisect_left(self._blocks, place, key=_end)


def _place(task: Task) -> Place:
    return (task.received_at, task.task_id)


def _end(block: list[Task]) -> Place:
    return block[-1].place
