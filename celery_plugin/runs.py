"""The runs that this worker has open: an id is not an execution.

A redelivery, a retry, ``self.replace()`` and ``Reject(requeue=True)`` come back under the same id, and
``retries`` does not order them. So each time the worker receives an id, that is a run of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from celery_plugin.contract import RANK_WAITING, RANKS


@dataclass(slots=True)
class Run:
    """One execution of a task on this worker; times are seconds since the epoch."""

    id: str
    task_id: str
    task_name: str
    args: str
    kwargs: str
    queue: str | None
    attempt: int
    max_retries: int | None
    priority: int | None
    root_id: str | None
    parent_id: str | None
    group_id: str | None
    received_at: float
    eta: float | None
    status: str
    updated_at: float
    started_at: float | None = None
    finished_at: float | None = None
    runtime: float | None = None
    exception: str | None = None
    reason: str | None = None
    # Made once, when the run is told for the first time.
    facts: str = ""
    extra: str = ""

    @property
    def rank(self) -> int:
        """How far the run has come; it only grows."""
        return RANKS[self.status]


class RunTable:
    """Task id → its open runs, oldest first. Belongs to the writer's thread."""

    def __init__(self) -> None:
        self._open: dict[str, list[Run]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def __iter__(self) -> Iterator[Run]:
        for runs in self._open.values():
            yield from runs

    def open(self, run: Run) -> None:
        """Add a run that was just received."""
        self._open.setdefault(run.task_id, []).append(run)

    def waiting(self, task_id: str) -> Run | None:
        """The oldest run of the id that has not started."""
        return next((run for run in self._open.get(task_id, ()) if run.rank == RANK_WAITING), None)

    def close(self, task_id: str) -> Run | None:
        """Remove and return the oldest open run: Celery ends them in the order in which it began them."""
        runs = self._open.get(task_id)
        if not runs:
            return None
        run = runs.pop(0)
        if not runs:
            del self._open[task_id]
        return run

    def close_all(self) -> list[Run]:
        """Remove and return every run."""
        runs = list(self)
        self._open.clear()
        return runs
