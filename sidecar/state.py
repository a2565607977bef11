"""What the queue is like right now: every task that a worker has, and the workers.

It is Redis's state at one offset of the log, and moves on by applying each event.
"""

from __future__ import annotations

import json
import math
from collections import Counter
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
        """Take a task from its record; an older one than is known is passed over; raises Unreadable."""
        if record["type"] != EventType.TASK_STATUS or not isinstance(record.get("offset"), int):
            raise Unreadable("it is no task with an offset")
        event, extra = split_record(record)
        entry = LogEntry(record["offset"], encode(event).encode(), encode(extra).encode())
        self._apply_task(entry, event)

    def load_worker(self, record: JSON) -> None:
        """Take a worker from its record; raises Unreadable."""
        if record["type"] != EventType.WORKER_STATUS:
            raise Unreadable("it is no worker")
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


class Unreadable(ValueError):
    """Raised when a record or an event is not what the contract says."""


def read_event(text: bytes) -> JSON:
    """Parse an event, or a record, which is one too; raises Unreadable.

    What passes here can be applied and shown: whoever may write to Redis must not be able to end the sidecar.
    """
    event = read_object(text)
    if _text(event, "type") == EventType.TASK_STATUS:
        _check_task(event)
    elif event["type"] == EventType.WORKER_STATUS:
        _check_worker(event)
    return event


def read_object(text: bytes) -> JSON:
    """Parse a JSON object; raises Unreadable."""
    try:
        parsed: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is no JSON") from error
    if not isinstance(parsed, dict):
        raise Unreadable("it is no JSON object")
    return parsed


def _check_task(event: JSON) -> None:
    _text(event, "task_id")
    _text(event, "status")
    received_at = event.get("received_at") or 0.0
    # Integers of any length are JSON, but only these are times.
    if not isinstance(received_at, int | float) or not abs(received_at) < 1e12 or math.isnan(received_at):
        raise Unreadable("received_at is no time")


def _check_worker(event: JSON) -> None:
    for name in ("worker_id", "worker", "status"):
        _text(event, name)
    if not _is_list_of(str, event.get("queues") or []):
        raise Unreadable("queues is no list of names")
    broker = event.get("broker") or {}
    if not isinstance(broker, dict) or not _is_list_of(int, broker.get("priority_steps", [])):
        raise Unreadable("broker does not say how lists are named")


def _text(event: JSON, name: str) -> str:
    value = event.get(name)
    if not isinstance(value, str):
        raise Unreadable(f"{name} is no text")
    return value


def _is_list_of(kind: type, value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)
