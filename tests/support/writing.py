"""What a worker's plugin tells, told by a test: through the plugin's own script, without a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from celery_plugin.operations import Operation
from celery_plugin.settings import Settings
from tests.support.batches import WORKER, Sender, step, worker_step


@contextmanager
def writing(url: str, worker_id: str = "one", log_max: int = 100_000) -> Iterator[Sender]:
    """Open a sender of batches."""
    with Redis.from_url(url) as client:
        yield Sender(client, worker_id, settings=Settings(log_max=log_max))


def worker(worker_id: str = "one", **members: Any) -> Operation:
    """The worker's record."""
    facts = {"worker": WORKER, "queues": ["celery"], "concurrency": 2}
    return worker_step(worker_id, **(facts | members))


def task(task_id: str, status: str, **members: Any) -> Operation:
    """A step of the only run of a task."""
    facts = {"task_name": "tests.add", "position": None, "message": "…", "received_at": 1_000_000_000.0}
    return step(task_id, status, f"one/{task_id}", **(facts | members))


def life(task_id: str, **members: Any) -> list[Operation]:
    """Received, started, ended."""
    return [task(task_id, status, **members) for status in ("reserved", "active", "completed")]


def many(count: int, prefix: str = "t") -> Iterator[list[Operation]]:
    """Batches that make three events for each of so many tasks."""
    names = [f"{prefix}{number}" for number in range(count)]
    for start in range(0, count, 150):
        yield [operation for name in names[start : start + 150] for operation in life(name)]
