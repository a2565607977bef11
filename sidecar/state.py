"""What the queue is like right now: every task that a worker has, and the workers.

It is Redis's state at one offset of the log, and moves on by applying each event.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from sys import intern
from typing import Any

from celery_plugin.contract import JSON, WAITING_STATUSES, EventType, LogEntry, encode, split_record


@dataclass(slots=True)
class Task:
    """A task that a worker has; its JSON stays in bytes, 110,000 parsed ones would not fit."""

    task_id: str
    status: str
    offset: int
    received_at: float
    event: bytes
    extra: bytes

    @property
    def record(self) -> bytes:
        """The event and the extra as one JSON object."""
        if self.extra == b"{}":
            return self.event
        return self.event[:-1] + b"," + self.extra[1:]


class State:
    """Task id → task, worker id → record; knows nothing of Redis."""

    def __init__(self) -> None:
        self.active: dict[str, Task] = {}
        self.waiting: dict[str, Task] = {}
        self.workers: dict[str, JSON] = {}
        self._waiting_by_status: Counter[str] = Counter()

    def count(self, status: str) -> int:
        """How many tasks are in a status that a worker's task can have."""
        return len(self.active) if status == "active" else self._waiting_by_status[status]

    def task(self, task_id: str) -> Task | None:
        """Find a task that a worker has."""
        return self.active.get(task_id) or self.waiting.get(task_id)

    def load_task(self, record: JSON) -> None:
        """Take a task from its record; an older one than is known is passed over."""
        event, extra = split_record(record)
        entry = LogEntry(int(record["offset"]), encode(event).encode(), encode(extra).encode())
        self._apply_task(entry, event)

    def load_worker(self, record: JSON) -> None:
        """Take a worker from its record."""
        self.workers[record["worker_id"]] = {name: value for name, value in record.items() if name != "batch"}

    def apply(self, entry: LogEntry, event: JSON) -> None:
        """Apply an event of the log."""
        if event["type"] == EventType.TASK_STATUS:
            self._apply_task(entry, event)
        elif event["type"] == EventType.WORKER_STATUS:
            self.workers[event["worker_id"]] = event

    def _apply_task(self, entry: LogEntry, event: JSON) -> None:
        task_id, status = event["task_id"], event["status"]
        known = self.task(task_id)
        if known is not None:
            if entry.offset <= known.offset:
                return
            self._remove(known)
        if status == "active" or status in WAITING_STATUSES:
            received_at = float(event.get("received_at") or 0.0)
            self._add(Task(task_id, intern(status), entry.offset, received_at, entry.event, entry.extra))

    def _add(self, task: Task) -> None:
        if task.status == "active":
            self.active[task.task_id] = task
        else:
            self.waiting[task.task_id] = task
            self._waiting_by_status[task.status] += 1

    def _remove(self, task: Task) -> None:
        if task.status == "active":
            del self.active[task.task_id]
        else:
            del self.waiting[task.task_id]
            self._waiting_by_status[task.status] -= 1


def read_records(records: Iterable[bytes]) -> tuple[list[JSON], int]:
    """Parse records; what another program wrote wrongly is counted and passed over."""
    good: list[JSON] = []
    bad = 0
    for record in records:
        parsed = read_object(record)
        if parsed is None:
            bad += 1
        else:
            good.append(parsed)
    return good, bad


def read_object(text: bytes) -> JSON | None:
    """Parse a JSON object; None where it is something else."""
    try:
        parsed: Any = json.loads(text)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
