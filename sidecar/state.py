"""What the queue is like right now: every task that a worker has, and the workers.

It is Redis's state at one offset of the log, and moves on by applying each event.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from sys import intern

from celery_plugin.contract import JSON, WAITING_STATUSES, EventType, LogEntry, encode, split_record
from sidecar.census import Census
from sidecar.tasks import Task, TaskGroup


class State:
    """Task id → task, worker id → record; knows nothing of Redis.

    Each task is in one of three groups: ``active``, ``waiting``, or ``lost``, where the lease of its worker
    has ended; the log has told nothing of such an end, and what it tells next of the task replaces it.
    """

    def __init__(self) -> None:
        self.active = TaskGroup()
        self.waiting = TaskGroup()
        self.lost = TaskGroup()
        self.workers: dict[str, JSON] = {}
        # Worker id → the record as it is shown, of a worker whose lease has ended without a word from it.
        self.ended_workers: dict[str, JSON] = {}
        # Worker id → how many tasks it has that are not shown as lost.
        self.held: Counter[str] = Counter()
        self._waiting_by_status: Counter[str] = Counter()
        self.census = Census()

    def count(self, status: str) -> int:
        """How many tasks are in a status that a worker's task can have."""
        if status in WAITING_STATUSES:
            return self._waiting_by_status[status]
        return len(self._group(status))

    def task(self, task_id: str) -> Task | None:
        """Find a task that a worker has, or is thought to have lost."""
        return self.active.get(task_id) or self.waiting.get(task_id) or self.lost.get(task_id)

    def worker(self, worker_id: str) -> JSON | None:
        """The record of a worker as it is shown."""
        return self.ended_workers.get(worker_id) or self.workers.get(worker_id)

    def shown_workers(self) -> list[JSON]:
        """The record of each worker as it is shown."""
        return [self.ended_workers.get(worker_id, record) for worker_id, record in self.workers.items()]

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
        self._set_worker({name: value for name, value in record.items() if name != "batch"})

    def apply(self, entry: LogEntry, event: JSON) -> None:
        """Apply an event of the log."""
        if event["type"] == EventType.TASK_STATUS:
            self._apply_task(entry, event)
        elif event["type"] == EventType.WORKER_STATUS:
            self._set_worker(event)

    def lose(self, task: Task, event: bytes) -> Task:
        """Show a task as lost, with this event; return it as it is shown."""
        self._remove(task)
        lost = replace(task, status="lost", event=event, was=task)
        self._add(lost)
        return lost

    def find(self, lost: Task) -> Task:
        """Show a lost task as its worker told of it last; return it so."""
        if lost.was is None:
            raise AssertionError(f"{lost.task_id} is not lost")
        self._remove(lost)
        self._add(lost.was)
        return lost.was

    def _set_worker(self, record: JSON) -> None:
        self.workers[record["worker_id"]] = record
        self.ended_workers.pop(record["worker_id"], None)

    def _apply_task(self, entry: LogEntry, event: JSON) -> None:
        task_id, status = event["task_id"], event["status"]
        known = self.task(task_id)
        if known is not None:
            if entry.offset <= known.offset:
                return
            self._remove(known)
        if status == "active" or status in WAITING_STATUSES:
            self._add(_task(entry, event))

    def _add(self, task: Task) -> None:
        self._group(task.status).add(task)
        self.census.add(task)
        if task.status in WAITING_STATUSES:
            self._waiting_by_status[task.status] += 1
        if task.status != "lost":
            self.held[task.worker_id] += 1

    def _remove(self, task: Task) -> None:
        self._group(task.status).discard(task)
        self.census.discard(task)
        if task.status in WAITING_STATUSES:
            self._waiting_by_status[task.status] -= 1
        if task.status != "lost":
            self.held[task.worker_id] -= 1
            if not self.held[task.worker_id]:
                del self.held[task.worker_id]

    def _group(self, status: str) -> TaskGroup:
        if status == "active":
            return self.active
        return self.lost if status == "lost" else self.waiting


def _task(entry: LogEntry, event: JSON) -> Task:
    return Task(
        task_id=event["task_id"],
        status=intern(event["status"]),
        offset=entry.offset,
        received_at=float(event.get("received_at") or 0.0),
        task_name=_shared(event.get("task_name")),
        queue=_shared(event.get("queue")),
        worker=_shared(event.get("worker")),
        worker_id=intern(worker_id_of(event)),
        event=entry.event,
        extra=entry.extra,
    )


def _shared(name: object) -> str:
    """A name that many tasks have in common; empty where there is none."""
    return intern(name) if isinstance(name, str) else ""


def worker_id_of(event: JSON) -> str:
    """The id of the worker that has, or had, the task of an event; empty where the event does not say."""
    run = event.get("run")
    return run.rpartition("/")[0] if isinstance(run, str) else ""


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


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")  # a browser could not read what has it


_DECODER = json.JSONDecoder(parse_constant=_refuse)
_JSON_SPACE = " \t\n\r"


def read_object(text: bytes) -> JSON:
    """Parse a JSON object; raises Unreadable."""
    try:
        line = text.decode().strip(_JSON_SPACE)
        parsed, end = _DECODER.raw_decode(line)
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is no JSON") from error
    if end != len(line):
        raise Unreadable("there is something behind its JSON")
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
