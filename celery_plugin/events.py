"""Celery's events → steps of runs.

An event comes with its run, which the request of the task keeps: several runs of one id can be open at a
time, and Celery's own events name the id alone and come in no order that could be relied on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from celery_plugin.capture import Capture
from celery_plugin.contract import RANK_ACTIVE, RANK_WAITING
from celery_plugin.runs import Run, RunTable

Fields = Mapping[str, Any]

# Our own: a run that was just received.
RECEIVED = "received"
# A task that ends without having been received: how it ends, under ``event`` and ``ending``.
UNRECEIVED = "unreceived"
# A task raised Ignore, or replaced itself.
IGNORED = "ignored"
# A task raised Reject; task-rejected says the same of a message that the worker rejects for a failure.
REJECTS = "rejects"


class Tracker:
    """Applies the events of one worker to its runs. Belongs to the writer's thread."""

    def __init__(self, table: RunTable, capture: Capture) -> None:
        self._capture = capture
        self._table = table

    def apply(self, at: float, event: str, run: Run, fields: Fields) -> Run | None:
        """Apply an event seen at a time; return the run if that has changed it."""
        if run.unread is not None:
            self._show(run, *run.unread)
        if event == RECEIVED:
            return self._open(run)
        if event == "task-started":
            return self._start(at, run)
        if event == UNRECEIVED:
            return self._unreceived(at, run, fields)
        # A second word about an end is an echo, unless the first one was a guess.
        if run.finished_at is not None and run.reason != "end_not_seen":
            return None
        status = _end_status(run, event, fields)
        return self._end(at, run, status, fields) if status is not None else None

    # -- begin -------------------------------------------------------------------------------------

    def _open(self, run: Run) -> Run:
        self._table.open(run)
        return run

    def _show(self, run: Run, args: str, kwargs: str) -> None:
        run.args, run.kwargs = self._capture.text("args", args), self._capture.text("kwargs", kwargs)
        run.unread = None

    def _start(self, at: float, run: Run) -> Run | None:
        if run.status == "pending" and run.started_at is None:
            # It was thought to be back in the queue; its worker starts it all the same.
            run.finished_at = run.reason = None
        elif run.rank != RANK_WAITING:
            return None
        self._table.open(run)  # also one whose receipt was given up
        run.status, run.started_at, run.updated_at = "active", at, at
        return run

    # -- end ---------------------------------------------------------------------------------------

    def _end(self, at: float, run: Run, status: str, fields: Fields) -> Run:
        self._table.remove(run)
        return self._close(at, run, status, fields)

    def _unreceived(self, at: float, run: Run, fields: Fields) -> Run | None:
        """Tell of a task that was revoked on receipt, or that the worker does not know."""
        status = _end_status(run, fields["event"], fields["ending"])
        return self._close(at, run, status, fields["ending"]) if status else None

    def _close(self, at: float, run: Run, status: str, fields: Fields) -> Run:
        run.exception = self._capture.exception(fields.get("exception"))
        run.result = self._capture.text("result", fields.get("result"))
        run.traceback = self._capture.text("traceback", fields.get("traceback"))
        run.runtime = fields.get("runtime")
        if run.runtime is None and run.started_at is not None:
            run.runtime = at - run.started_at
        run.reason = fields.get("reason") or _reason(status, fields)
        return end(run, status, at)

    # -- silence -----------------------------------------------------------------------------------

    def give_back(self, at: float) -> list[Run]:
        """End what only waits here: the worker stops, and its broker gets it back."""
        return [self._give_up(at, run, "pending") for run in list(self._table) if run.rank == RANK_WAITING]

    def _give_up(self, at: float, run: Run, status: str, reason: str | None = None) -> Run:
        return self._end(at, run, status, {"reason": reason})

    def compare(self, active: set[int], reserved: set[int]) -> list[Run]:
        """Compare with what Celery holds, by the identity of its requests; return the runs that changed.

        A broker reconnect gives what was prefetched back without a word. What is missing once may be on
        its way; a request that nobody refers to any more is gone for certain.
        """
        at = time.time()
        changed = []
        for run in list(self._table):
            request = run.request() if run.request is not None else None
            if run.request is not None and request is None and run.rank == RANK_WAITING:
                changed.append(self._give_up(at, run, "pending"))
            elif run.rank == RANK_ACTIVE and run.request is not None and id(request) not in active:
                run.missed += 1
                if run.missed > _MISSES:
                    changed.append(self._give_up(at, run, "lost", "end_not_seen"))
            elif (
                run.status == "scheduled"
                and run.eta is not None
                and run.eta <= at
                and id(request) in reserved
            ):
                run.status, run.updated_at, run.missed = "reserved", at, 0
                changed.append(run)
        return changed


# Celery lets a task go, may store that in its result backend, and only then tells of it.
_MISSES = 5


def end(run: Run, status: str, at: float) -> Run:
    """Mark a run as ended."""
    run.status, run.finished_at, run.updated_at = status, at, at
    run.request = None
    return run


def _end_status(run: Run, event: str, fields: Fields) -> str | None:
    if event == IGNORED:
        return "pending" if fields["replaced"] else "completed"
    if event == REJECTS:
        return "pending" if fields["requeue"] else "rejected"
    if event == "task-cancelled":
        # The worker stops, or has lost its broker; what it has acknowledged comes back to nobody.
        return "pending" if fields["returns"] else "lost"
    if event == "task-rejected":
        if fields.get("requeue"):
            return "pending"
        # The worker rejects the message of a task that has failed, and then tells that it has.
        return "rejected" if run.rank == RANK_WAITING else None
    return _ENDINGS.get(event)


_ENDINGS = {
    "task-succeeded": "completed",
    "task-failed": "failed",
    "task-retried": "retrying",
    "task-revoked": "revoked",
}


def _reason(status: str, fields: Fields) -> str | None:
    if status == "completed":
        return "ignored" if "replaced" in fields else None
    for name, reason in _REASONS:
        if fields.get(name):
            return reason
    return "worker_exited" if status == "lost" else None


_REASONS = (
    ("expired", "expired"),
    ("terminated", "terminated"),
    ("requeue", "requeued"),
    ("replaced", "replaced"),
)

_EXCEPTION_CLASS = re.compile(r"[A-Za-z_][\w.]*(?=\()")


def exception_class(exception: str) -> str | None:
    """The class in the repr of an exception, ``ValueError`` of ``ValueError('no')``."""
    match = _EXCEPTION_CLASS.match(exception)
    return match[0] if match else None
