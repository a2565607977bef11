"""The runs that this worker has open: an id is not an execution.

A redelivery, a retry, ``self.replace()`` and ``Reject(requeue=True)`` come back under the same id, and
``retries`` does not order them. So each time the worker receives an id, that is a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from celery_plugin.contract import EXTRA_FIELDS, RANKS


@dataclass(slots=True, eq=False)
class Run:
    """One execution of a task on this worker; times are seconds since the epoch."""

    id: str
    task_id: str
    task_name: str
    args: str | None
    kwargs: str | None
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
    result: str | None = None
    traceback: str | None = None
    reason: str | None = None
    # Celery's own request, while it holds one, and how often it was missing where it should be.
    request: Callable[[], Any] | None = None
    missed: int = 0
    # Made once, when the run is told for the first time.
    facts: str = ""
    extra: str = ""

    @property
    def texts(self) -> dict[str, str]:
        """What is shown only on request, as far as the worker shows it."""
        shown = ((name, getattr(self, name)) for name in EXTRA_FIELDS)
        return {name: text for name, text in shown if text is not None}

    @property
    def rank(self) -> int:
        """How far the run has come; it only grows."""
        return RANKS[self.status]


class RunTable:
    """Run id → run, of those that are open, oldest first. Belongs to the writer's thread."""

    def __init__(self) -> None:
        self._open: dict[str, Run] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._open.values())

    def open(self, run: Run) -> None:
        """Add a run that was just received."""
        self._open[run.id] = run

    def get(self, run_id: str) -> Run | None:
        """Find an open run."""
        return self._open.get(run_id)

    def remove(self, run: Run) -> None:
        """Take a run out."""
        del self._open[run.id]

    def close_all(self) -> list[Run]:
        """Remove and return every run."""
        runs = list(self)
        self._open.clear()
        return runs
