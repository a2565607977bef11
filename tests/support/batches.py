"""A worker's side of the script, step by step, and a look at what it left in Redis."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from celery_plugin import record
from celery_plugin.contract import JSON, RANK_ENDED, Keys, encode
from celery_plugin.operations import Operation, Other
from celery_plugin.script import Answer, Script
from celery_plugin.settings import Settings
from celery_plugin.texts import encode_text

WORKER = "celery@one"


def step(
    task_id: str,
    status: str,
    run: str = "one/1",
    *,
    kind: str = "task",
    worker: str = WORKER,
    at: float | None = None,
    extra: JSON | None = None,
    message: str = "Waiting or running",
    **members: Any,
) -> Operation:
    """Make a step of a run; the members stand in its event behind the head."""
    moving = encode({"task_id": task_id, **members, "run": run})[1:-1]
    made = record.step(status, f"{time.time() if at is None else at:.6f}", encode_text(message), moving)
    shown = encode({"args": "()"} if extra is None else extra)
    return Operation(run, encode_text(worker), task_id, "", shown, made, kind)


def worker_step(worker_id: str, **members: Any) -> Other:
    """Make the step that writes the worker's record."""
    rest = encode({"worker_id": worker_id, "status": "online", **members})[1:-1]
    return Other("worker", ("worker", rest))


@dataclass
class Sender:
    """A worker that numbers its batches; its client is to answer bytes."""

    client: Redis
    worker_id: str = "one"
    keys: Keys = field(default_factory=Keys)
    settings: Settings = field(default_factory=Settings)
    number: int = 0

    def begin(self) -> Answer:
        """Send the worker's record, as each worker does first."""
        return self.send(worker_step(self.worker_id))

    def send(
        self,
        *operations: Operation | Other,
        number: int | None = None,
        lease: float = 15.0,
        epoch: str | None = None,
    ) -> Answer:
        """Send a batch under the next number, or under a given one."""
        if number is None:
            self.number += 1
        return Script(self.keys).call(
            self.client,
            worker_id=self.worker_id,
            number=self.number if number is None else number,
            lease_seconds=lease,
            settings=self.settings,
            epoch_if_needed=epoch or secrets.token_hex(8),
            operations=operations,
        )


@dataclass
class Stored:
    """What stands in Redis under a prefix."""

    client: Redis
    keys: Keys = field(default_factory=Keys)

    @property
    def active(self) -> dict[str, JSON]:
        """Task id → record of a task that runs."""
        return self._records(self.keys.active_tasks)

    @property
    def waiting(self) -> dict[str, JSON]:
        """Task id → record of a task that waits in a worker."""
        return self._records(self.keys.waiting_tasks)

    @property
    def finished(self) -> dict[str, JSON]:
        """Task id → record of a finished task."""
        return self._records(self.keys.finished_tasks)

    @property
    def progress(self) -> dict[str, JSON]:
        """Task id → what it said of its progress."""
        return self._records(self.keys.progress)

    @property
    def workers(self) -> dict[str, JSON]:
        """Worker id → its record."""
        return self._records(self.keys.workers)

    @property
    def leases(self) -> dict[str, float]:
        """Worker id → seconds that its lease still has, by Redis's clock."""
        seconds, micros = self._ask.time()
        now = seconds + micros / 1e6
        return {
            _text(worker): end - now
            for worker, end in self._ask.zrange(self.keys.leases, 0, -1, withscores=True)
        }

    @property
    def runs(self) -> dict[str, list[str]]:
        """Task id → its open runs, the shown one last."""
        return {
            _text(task_id): [run for run, rank in _runs(_text(lines)) if int(rank) < RANK_ENDED]
            for task_id, lines in self._ask.hgetall(self.keys.runs).items()
        }

    @property
    def history(self) -> list[str]:
        """The ids of the finished tasks, the one that ended first first."""
        return [_text(task_id) for task_id in self._ask.zrange(self.keys.finished, 0, -1)]

    @property
    def log(self) -> dict[str, str]:
        """The epoch, the offset and the server's run id."""
        return {_text(name): _text(value) for name, value in self._ask.hgetall(self.keys.log).items()}

    @property
    def offset(self) -> int:
        """The offset of the last event."""
        return int(self.log.get("offset", 0))

    @property
    def entries(self) -> list[tuple[int, bytes, bytes]]:
        """Offset, event and extra of each entry of the stream."""
        return [
            (int(key.split(b"-")[0]), fields[b"event"], fields[b"extra"])
            for key, fields in self._ask.xrange(self.keys.events)
        ]

    @property
    def events(self) -> list[JSON]:
        """Each event of the stream."""
        return [json.loads(event) for _, event, _ in self.entries]

    def statuses(self, task_id: str) -> list[str]:
        """The statuses that the stream tells of a task."""
        return [event["status"] for event in self.events if event.get("task_id") == task_id]

    def timeline(self, task_id: str) -> list[str]:
        """The statuses of every step of every run of a task."""
        text = self._ask.hget(self.keys.timelines, task_id)
        return [step["status"] for step in json.loads(text)] if text else []

    @property
    def counters(self) -> dict[tuple[Any, ...], float]:
        """Name and labels of a counter → total."""
        counters = self._ask.hgetall(self.keys.counters)
        return {tuple(json.loads(name)): float(number) for name, number in counters.items()}

    def raw(self) -> Iterator[tuple[str, Any]]:
        """Everything under the prefix but the leases, as it stands there."""
        for key in sorted(self._ask.scan_iter(f"{self.keys.prefix}:*")):
            if _text(key) != self.keys.leases:
                yield _text(key), self._ask.dump(key)

    @property
    def _ask(self) -> Any:
        return self.client  # redis-py types one signature for sync and async

    def _records(self, key: str) -> dict[str, JSON]:
        return {_text(name): json.loads(value) for name, value in self._ask.hgetall(key).items()}


def _runs(lines: str) -> Iterator[list[str]]:
    for line in lines.split("\n"):
        yield line.split("\t")[:2]


def _text(value: bytes) -> str:
    return value.decode()
