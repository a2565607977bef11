"""Celery's events → steps of runs.

Only what was received carries the facts of a task; what comes after it carries the id alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from celery_plugin.contract import RECORD_MAX_BYTES
from celery_plugin.record import cut
from celery_plugin.runs import Run, RunTable

Fields = Mapping[str, Any]

# Our own: Celery's task-received lacks queue, priority and group, and a task may send no events at all.
RECEIVED = "received"


def received_fields(request: Any, queue: str | None) -> dict[str, Any]:
    """Copy what is told of a request; the request itself holds the whole message and is let go."""
    headers = request.request_dict
    return {
        "uuid": request.id,
        "name": request.name,
        # The producer's own words: usually cut, but nothing makes it cut them.
        "args": cut(request.argsrepr or "", RECORD_MAX_BYTES),
        "kwargs": cut(request.kwargsrepr or "", RECORD_MAX_BYTES),
        "queue": queue,
        "retries": headers.get("retries") or 0,
        "max_retries": getattr(request.task, "max_retries", None),
        "priority": request.delivery_info.get("priority"),
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "group_id": headers.get("group"),
        "eta": request.eta.timestamp() if request.eta else None,
    }


class Tracker:
    """Applies the events of one worker to its run table. Belongs to the writer's thread."""

    def __init__(self, worker_id: str, table: RunTable) -> None:
        self._worker_id = worker_id
        self._table = table
        self._received = 0

    def apply(self, at: float, event: str, fields: Fields) -> Run | None:
        """Apply an event seen at a time; return the run that it changed, if it changed one."""
        if event == RECEIVED:
            return self._open(at, fields)
        if event == "task-started":
            return self._start(at, fields)
        ending = _ENDINGS.get(event)
        return self._end(at, ending, fields) if ending else None

    def _open(self, at: float, fields: Fields) -> Run:
        self._received += 1
        eta = fields["eta"]
        run = Run(
            id=f"{self._worker_id}/{self._received}",
            task_id=fields["uuid"],
            task_name=fields["name"],
            args=fields["args"],
            kwargs=fields["kwargs"],
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
        )
        self._table.open(run)
        return run

    def _start(self, at: float, fields: Fields) -> Run | None:
        run = self._table.waiting(fields["uuid"])
        if run is not None:
            run.status, run.started_at, run.updated_at = "active", at, at
        return run

    def _end(self, at: float, status: str, fields: Fields) -> Run | None:
        run = self._table.close(fields["uuid"])
        if run is None:
            return None
        run.exception = fields.get("exception")
        run.runtime = fields.get("runtime")
        if run.runtime is None and run.started_at is not None:
            run.runtime = at - run.started_at
        run.reason = _reason(fields)
        return end(run, status, at)


def end(run: Run, status: str, at: float) -> Run:
    """Mark a run as ended."""
    run.status, run.finished_at, run.updated_at = status, at, at
    return run


_ENDINGS = {
    "task-succeeded": "completed",
    "task-failed": "failed",
    "task-retried": "retrying",
    "task-revoked": "revoked",
    "task-rejected": "rejected",
}


def _reason(fields: Fields) -> str | None:
    return next((reason for name, reason in _REASONS if fields.get(name)), None)


_REASONS = (("expired", "expired"), ("terminated", "terminated"), ("requeue", "requeued"))

_EXCEPTION_CLASS = re.compile(r"[A-Za-z_][\w.]*(?=\()")


def exception_class(exception: str) -> str | None:
    """The class in the repr of an exception, ``ValueError`` of ``ValueError('no')``."""
    match = _EXCEPTION_CLASS.match(exception)
    return match[0] if match else None
