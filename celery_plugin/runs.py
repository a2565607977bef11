"""The runs that this worker has open: an id is not an execution.

A redelivery, a retry, ``self.replace()`` and ``Reject(requeue=True)`` come back under the same id, and
``retries`` does not order them. So each time the worker receives an id, that is a run of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery_plugin.contract import RANKS, RECORD_MAX_BYTES
from celery_plugin.texts import cut

# What a run has come to, and when, in seconds since the epoch.
Step = tuple[str, float]


@dataclass(slots=True, eq=False)
class Run:
    """One execution of a task on this worker; times are seconds since the epoch.

    The request of the task holds its run, from its receipt on; only the writer's thread changes it.
    """

    id: str
    task_id: str
    task_name: str
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
    # Celery's own request, while it holds one, and how often it was missing where it should be.
    request: Callable[[], Any] | None = None
    missed: int = 0
    # Its args and kwargs as they came, until it is decided what of them is shown.
    unread: tuple[str, str] | None = None
    args: str | None = None
    kwargs: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    runtime: float | None = None
    exception: str | None = None
    result: str | None = None
    traceback: str | None = None
    reason: str | None = None
    # Made once, when the run is told for the first time; and how many bytes they leave for a step.
    facts: str = ""
    extra: str = ""
    room: int = 0
    # Two of its times as they are written, from when they were written first.
    received: str = ""
    started: str = ""

    @property
    def arguments(self) -> dict[str, str]:
        """What is shown only on request of a run that is open, as far as the worker shows it."""
        arguments = {} if self.args is None else {"args": self.args}
        if self.kwargs is not None:
            arguments["kwargs"] = self.kwargs
        return arguments

    @property
    def texts(self) -> dict[str, str]:
        """What is shown only on request of a run that has ended, as far as the worker shows it."""
        texts = self.arguments
        if self.result is not None:
            texts["result"] = self.result
        if self.traceback is not None:
            texts["traceback"] = self.traceback
        return texts

    @property
    def rank(self) -> int:
        """How far the run has come; it only grows."""
        return RANKS[self.status]


def read_run(run_id: str, headers: Mapping[str, Any], queue: str | None, max_retries: int | None) -> Run:
    """Make the run of a message that is received now; what is told of its values is still to be decided.

    Celery's task-received lacks queue, priority and group, and a task may send no events at all.
    """
    now, eta = time.time(), _timestamp(headers.get("eta"))
    args, kwargs = headers.get("argsrepr") or "", headers.get("kwargsrepr") or ""
    priority = (headers.get("delivery_info") or {}).get("priority")
    task_id, root_id = headers["id"], headers.get("root_id")
    run = Run(
        run_id,
        task_id,
        headers.get("shadow") or headers["task"],
        queue,
        (headers.get("retries") or 0) + 1,
        max_retries if type(max_retries) is int else None,
        priority if type(priority) is int else None,
        task_id if root_id == task_id else root_id,  # kept once
        headers.get("parent_id"),
        headers.get("group"),
        now,
        eta,
        "scheduled" if eta is not None and eta > now else "reserved",
        now,
    )
    # The producer's own words: usually cut, but nothing makes it cut them.
    run.unread = cut(args, RECORD_MAX_BYTES), cut(kwargs, RECORD_MAX_BYTES)
    return run


def _timestamp(eta: str | None) -> float | None:
    if not eta:
        return None
    try:
        return datetime.fromisoformat(eta.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None


class RunTable:
    """Run id → run, of those that are open, oldest first. Belongs to the writer's thread."""

    def __init__(self) -> None:
        self._open: dict[str, Run] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._open.values())

    def open(self, run: Run) -> None:
        """Add a run, if it is not there."""
        self._open[run.id] = run

    def remove(self, run: Run) -> None:
        """Take a run out, if it is there."""
        self._open.pop(run.id, None)

    def close_all(self) -> list[Run]:
        """Remove and return every run."""
        runs = list(self)
        self._open.clear()
        return runs
