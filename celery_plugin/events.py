"""Celery's events → steps of runs.

Only what was received carries the facts of a task. What comes after it carries the number of the run, which
the request of the task keeps: several runs of one id can be open at a time, and Celery's own events name the
id alone and come in no order that could be relied on.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from celery_plugin.capture import Capture
from celery_plugin.contract import RANK_ACTIVE, RANK_WAITING, RECORD_MAX_BYTES
from celery_plugin.record import cut
from celery_plugin.runs import Run, RunTable

Fields = Mapping[str, Any]

# Our own: Celery's task-received lacks queue, priority and group, and a task may send no events at all.
RECEIVED = "received"
# A task that ends without having been received: its facts, and how it ends under ``event`` and ``ending``.
UNRECEIVED = "unreceived"
# A task raised Ignore, or replaced itself.
IGNORED = "ignored"
# A task raised Reject; task-rejected says the same of a message that the worker rejects for a failure.
REJECTS = "rejects"

# How many runs are remembered for events that come late or twice.
_REMEMBERED = 1000


def received_fields(headers: Fields, queue: str | None, max_retries: int | None) -> dict[str, Any]:
    """Copy what is told of a message; the request itself holds the whole of it and is let go."""
    return {
        "uuid": headers["id"],
        "name": headers.get("shadow") or headers["task"],
        # The producer's own words: usually cut, but nothing makes it cut them.
        "args": cut(headers.get("argsrepr") or "", RECORD_MAX_BYTES),
        "kwargs": cut(headers.get("kwargsrepr") or "", RECORD_MAX_BYTES),
        "queue": queue,
        "retries": headers.get("retries") or 0,
        "max_retries": max_retries,
        "priority": (headers.get("delivery_info") or {}).get("priority"),
        "root_id": headers.get("root_id"),
        "parent_id": headers.get("parent_id"),
        "group_id": headers.get("group"),
        "eta": _timestamp(headers.get("eta")),
    }


def _timestamp(eta: str | None) -> float | None:
    if not eta:
        return None
    try:
        return datetime.fromisoformat(eta.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None


class Tracker:
    """Applies the events of one worker to its run table. Belongs to the writer's thread."""

    def __init__(self, worker_id: str, table: RunTable, capture: Capture) -> None:
        self._worker_id = worker_id
        self._capture = capture
        self._table = table
        # Run id → the run, of those that ended last: a second word about an end is an echo, and what was
        # thought to be back in the queue may start all the same.
        self._ended: OrderedDict[str, Run] = OrderedDict()

    def apply(self, at: float, event: str, fields: Fields) -> Run | None:
        """Apply an event seen at a time; return the run that it changed, if it changed one."""
        if event == RECEIVED:
            return self._open(at, fields)
        if event == UNRECEIVED:
            return self._unreceived(at, fields)
        if event == "task-started":
            return self._start(at, fields)
        run = self._table.get(self._run_id(fields)) or self._given_up(fields)
        status = _end_status(run, event, fields) if run is not None else None
        return self._end(at, run, status, fields) if run is not None and status is not None else None

    def _run_id(self, fields: Fields) -> str:
        return f"{self._worker_id}/{fields.get('run')}"

    # -- begin -------------------------------------------------------------------------------------

    def _open(self, at: float, fields: Fields) -> Run:
        run = self._make(at, fields)
        self._table.open(run)
        return run

    def _make(self, at: float, fields: Fields) -> Run:
        eta = fields["eta"]
        return Run(
            id=self._run_id(fields),
            task_id=fields["uuid"],
            task_name=fields["name"],
            args=self._capture.text("args", fields["args"]),
            kwargs=self._capture.text("kwargs", fields["kwargs"]),
            queue=fields["queue"],
            attempt=fields["retries"] + 1,
            max_retries=fields["max_retries"],
            priority=fields["priority"],
            root_id=fields["root_id"],
            parent_id=fields["parent_id"],
            group_id=fields["group_id"],
            received_at=at,
            eta=eta,
            status="scheduled" if eta is not None and eta > at else "reserved",
            updated_at=at,
            request=fields.get("request"),
        )

    def _start(self, at: float, fields: Fields) -> Run | None:
        run = self._table.get(self._run_id(fields)) or self._reopen(fields)
        if run is not None and run.rank == RANK_WAITING:
            run.status, run.started_at, run.updated_at = "active", at, at
            return run
        return None

    def _reopen(self, fields: Fields) -> Run | None:
        """Take back that a run was given to the queue: its worker starts it all the same."""
        ended = self._ended.get(self._run_id(fields))
        if ended is None or ended.status != "pending" or ended.started_at is not None:
            return None
        del self._ended[ended.id]
        run = replace(ended, status="reserved", finished_at=None, reason=None, facts="")
        self._table.open(run)
        return run

    # -- end ---------------------------------------------------------------------------------------

    def _given_up(self, fields: Fields) -> Run | None:
        """Find a run that was ended too early: how it ended is seen after all."""
        ended = self._ended.get(self._run_id(fields))
        return ended if ended is not None and ended.reason == "end_not_seen" else None

    def _end(self, at: float, run: Run, status: str, fields: Fields) -> Run:
        if run.finished_at is None:
            self._table.remove(run)
        return self._close(at, run, status, fields)

    def _unreceived(self, at: float, fields: Fields) -> Run | None:
        """Tell of a task that was revoked on receipt, or that the worker does not know."""
        run = self._make(at, fields)
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
        self._ended[run.id] = end(run, status, at)
        self._ended.move_to_end(run.id)
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        return run

    # -- silence -----------------------------------------------------------------------------------

    def give_back(self, at: float) -> list[Run]:
        """End what only waits here: the worker stops, and its broker gets it back."""
        return [self._give_up(at, run, "pending") for run in list(self._table) if run.rank == RANK_WAITING]

    def _give_up(self, at: float, run: Run, status: str, reason: str | None = None) -> Run:
        self._table.remove(run)
        return self._close(at, run, status, {"reason": reason})

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
    return next((reason for name, reason in _REASONS if fields.get(name)), None) or _BY_STATUS.get(
        (status, "replaced" in fields)
    )


_REASONS = (
    ("expired", "expired"),
    ("terminated", "terminated"),
    ("requeue", "requeued"),
    ("replaced", "replaced"),
)
_BY_STATUS = {("completed", True): "ignored", ("lost", False): "worker_exited"}

_EXCEPTION_CLASS = re.compile(r"[A-Za-z_][\w.]*(?=\()")


def exception_class(exception: str) -> str | None:
    """The class in the repr of an exception, ``ValueError`` of ``ValueError('no')``."""
    match = _EXCEPTION_CLASS.match(exception)
    return match[0] if match else None
