"""How much of Redis's memory the plugin takes: what it keeps of the past, and each task on top of that."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable

from redis import Redis

from celery_plugin.operations import Operation
from deploy.demo.redis_server import RedisServer
from tests.support.batches import Sender, step
from tests.support.writing import worker, writing

BATCH = 500
FACTS = {"task_name": "app.tasks.generate", "queue": "celery", "attempt": 1, "position": None}
EXTRA = {"args": "('a text of some length', 5)", "kwargs": "{'size': 3}"}
LIFE = ("reserved", "active", "completed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--tasks", type=int, default=50_000, help="tasks that end, in two halves")
    parser.add_argument("--held", type=int, default=10_000, help="tasks that run, and as many that wait")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    with RedisServer() as redis, Redis.from_url(redis.url) as client, writing(redis.url) as sender:
        sender.send(worker(), lease=3600)
        start = _used(client)
        for half in (1, 2):
            numbers = range((half - 1) * arguments.tasks // 2, half * arguments.tasks // 2)
            _send(sender, (_step(f"ended-{number}", status) for number in numbers for status in LIFE))
            print(f"{(_used(client) - start) / 1e6:.1f} MB after {len(numbers) * half} tasks have ended")
        sizes = {key.decode(): _size(client, key) for key in client.scan_iter()}
        for key in sorted(sizes, key=lambda key: -sizes[key]):
            if sizes[key] > 100_000:
                print(f"    {key} {sizes[key] / 1e6:.1f} MB")
        for status, steps in (("wait in a worker", LIFE[:1]), ("run", LIFE[:2])):
            before = _used(client)
            names = [f"{status}-{number}" for number in range(arguments.held)]
            _send(sender, (_step(name, each) for name in names for each in steps))
            each = (_used(client) - before) / arguments.held
            print(f"{each / 1000:.2f} kB each of {arguments.held} tasks that {status}")


def _send(sender: Sender, steps: Iterable[Operation]) -> None:
    batch: list[Operation] = []
    for each in steps:
        batch.append(each)
        if len(batch) == BATCH:
            sender.send(*batch, lease=3600)
            batch.clear()
    sender.send(*batch, lease=3600)


def _step(name: str, status: str) -> Operation:
    task_id = f"{name:0>20}-4316-90a6-7ab189"
    extra = EXTRA if status == "reserved" else {}
    return step(task_id, status, f"one/{task_id}", extra=extra, received_at=time.time(), **FACTS)


def _used(client: Redis) -> int:
    return int(client.info("memory")["used_memory"])


def _size(client: Redis, key: bytes) -> int:
    return client.memory_usage(key, samples=0) or 0
