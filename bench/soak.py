"""Tasks of all kinds over three workers and two pools, while workers are killed, frozen and restarted."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from redis import Redis

from bench.soak_app import ENDS, app
from celery_plugin.contract import Keys
from deploy.demo.redis_server import RedisServer
from tests.support.celery_worker import Worker, launch_worker, wait_until_ready

POOLS = ("prefork", "prefork", "threads")
LEASE = {"SIDECAR_LEASE_SECONDS": "3", "SIDECAR_LEASE_RENEW_SECONDS": "0.5", "SIDECAR_HISTORY_MAX": "1000000"}
TROUBLES = ("kill", "freeze", "restart")
# Longer than a message takes to come back, and than a lease: how long no task may end while some are held.
QUIET_SECONDS = 90.0
SETTLED_SECONDS = 10.0
STOP_SECONDS = 8.0
# How long before a worker is killed an end may be that it has not told yet: above all while Redis is away.
UNTOLD_SECONDS = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks in all")
    parser.add_argument("--rate", type=float, default=150, help="tasks a second")
    parser.add_argument("--seed", type=int, default=1, help="of the order of kinds and troubles")


def run(arguments: argparse.Namespace) -> None:
    """Run the soak and print the sums; raise AssertionError where the truth is another."""
    chance = random.Random(arguments.seed)
    troubles = [chance.choice(TROUBLES) for _ in range(11)]
    troubles[5] = "empty"
    print(soak(arguments.tasks, arguments.rate, chance, troubles))


def soak(tasks: int, rate: float, chance: random.Random, troubles: Sequence[str]) -> str:
    """Run so many tasks through the troubles, and hold what is shown against their own tally."""
    with TemporaryDirectory() as directory, RedisServer() as broker, RedisServer() as state:
        site = _Site(broker, state, Path(directory) / "tally")
        try:
            sent = site.send(tasks, rate, chance, troubles)
            site.wait_for_end(sent)
            return site.check(sent)
        finally:
            site.close()


class _Site:
    """Three workers, their broker, and the Redis that is told of them."""

    def __init__(self, broker: RedisServer, state: RedisServer, tally: Path) -> None:
        self._broker, self._state, self._tally = broker, state, tally
        # redis-py types one signature for sync and async
        self._redis: Any = Redis.from_url(state.url, decode_responses=True)
        self._queue: Any = Redis.from_url(broker.url, decode_responses=True)
        self._emptied_at = 0.0
        # Hostname → when, in seconds since the epoch.
        self._killed: dict[str, float] = {}
        self._gone: list[Worker] = []
        self._not_ended = 0
        self._never_run: set[str] = set()
        self._workers = [self._launch(pool) for pool in POOLS]
        for _, worker in self._workers:
            wait_until_ready(worker)
        app.conf.broker_url = broker.url

    def _launch(self, pool: str) -> tuple[str, Worker]:
        env = {**LEASE, "SIDECAR_REDIS_URL": self._state.url, "SOAK_TALLY": str(self._tally)}
        return pool, launch_worker(self._broker.url, app="bench.soak_app", pool=pool, env=env)

    def send(self, tasks: int, rate: float, chance: random.Random, troubles: Sequence[str]) -> dict[str, str]:
        """Send the tasks at a rate, with the troubles between them; return task id → kind."""
        sent: dict[str, str] = {}
        every = tasks // (len(troubles) + 1)
        due = {every * (place + 1): trouble for place, trouble in enumerate(troubles)}
        began = time.monotonic()
        with app.producer_pool.acquire(block=True) as producer:
            for number in range(tasks):
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
                kind = chance.choice(list(ENDS))
                options: dict[str, Any] = {"expires": 0.001} if kind == "expired" else {}
                if kind == "ok" and chance.random() < 0.1:
                    options["countdown"] = 1
                result = app.send_task("soak.work", (kind,), producer=producer, **options)
                sent[str(result.id)] = kind
                if trouble := due.get(number):
                    getattr(self, f"_{trouble}")()
        return sent

    # -- troubles ------------------------------------------------------------------------------------------

    def _kill(self) -> None:
        pool, worker = self._workers.pop(0)
        worker.kill()
        self._killed[worker.hostname] = time.time()
        self._gone.append(worker)
        self._workers.append(self._launch(pool))

    def _restart(self) -> None:
        """Restart a worker in good order; one that does not end is counted, and killed."""
        pool, worker = self._workers[0]
        try:
            worker.stop(STOP_SECONDS)
        except AssertionError:
            self._not_ended += 1
            self._kill()
            return
        self._gone.append(worker)
        self._workers = [*self._workers[1:], self._launch(pool)]

    def _freeze(self) -> None:
        _, frozen = self._workers[1]
        frozen.pause()
        time.sleep(4)  # longer than its lease
        frozen.resume()

    def _empty(self) -> None:
        """Restart the Redis that is told, without its data."""
        self._emptied_at = time.time()
        self._state.kill()
        self._state.start()

    # -- the end -------------------------------------------------------------------------------------------

    def _tallied(self) -> Iterator[tuple[str, str, float]]:
        """What the tasks themselves say: id, end, when."""
        for line in self._tally.read_text().splitlines():
            task_id, end, at = line.split(" ")
            yield task_id, end, float(at)

    def wait_for_end(self, sent: dict[str, str]) -> None:
        """Wait until every task has ended, and nothing is held or waits any more.

        What has not ended, is not shown and is not in the broker either, Celery has lost: Redis had just
        handed the message out when the worker was killed. That is one a worker at most, since it asks for
        one at a time.
        """
        expected = {task_id for task_id, kind in sent.items() if kind != "expired"}
        ended_at = busy_until = time.monotonic()
        while time.monotonic() < busy_until + SETTLED_SECONDS:
            held = self._held()
            before = self._never_run
            self._never_run = expected - {task_id for task_id, _, _ in self._tallied()}
            if self._never_run != before:
                ended_at = time.monotonic()
            if not self._never_run and not held:
                return
            if held:
                busy_until = time.monotonic()
            if time.monotonic() > ended_at + QUIET_SECONDS:
                told = [self._story(task_id) for task_id in sorted(self._never_run)[:5]]
                raise AssertionError(f"{len(self._never_run)} have not ended, {held} are held: {told}")
            time.sleep(0.2)
        told = [self._story(task_id) for task_id in sorted(self._never_run)]
        assert len(self._never_run) <= len(self._killed), f"{len(told)} have vanished: {told[:5]}"

    def _held(self) -> int:
        keys = Keys()
        shown = int(self._redis.hlen(keys.active_tasks) + self._redis.hlen(keys.waiting_tasks))
        return shown + int(self._queue.hlen("unacked") + self._queue.llen("celery"))

    def check(self, sent: dict[str, str]) -> str:
        """Hold what is shown against the tally."""
        keys = Keys()
        finished = self._redis.hgetall(keys.finished_tasks).items()
        shown = {task_id: json.loads(record) for task_id, record in finished}
        untold = {task_id for task_id, record in shown.items() if self._took_its_end_along(task_id, record)}
        # Its next attempt was lost on its way to a worker.
        untold |= {
            task_id for task_id in self._never_run if shown.get(task_id, {}).get("status") == "retrying"
        }
        tallied = list(self._tallied())
        in_time = {task_id for task_id, _, _ in tallied if sent[task_id] == "expired"}
        wrong = {
            task_id: record["status"]
            for task_id, record in shown.items()
            if task_id not in untold
            and record["status"] != ENDS[sent[task_id]]
            and not (task_id in in_time and record["status"] == "completed")
        }
        told = [(end, self._story(task_id)) for task_id, end in wrong.items()]
        assert not wrong, f"{len(wrong)} ends are not what the tasks say: {told[:5]}"
        missing = {task_id for task_id, _, at in tallied if at > self._emptied_at + 1} - shown.keys()
        told = [self._story(task_id) for task_id in sorted(missing)]
        assert not missing, f"{len(missing)} tasks ended and are not shown: {told[:5]}"
        never = {task_id for task_id in shown if sent[task_id] != "expired"} - {line[0] for line in tallied}
        assert never <= untold, f"{len(never)} are shown as ended and never were"
        assert not self._redis.hlen(keys.runs), "a run is open that nobody has"
        sums = ", ".join(f"{end} {number}" for end, number in sorted(_sums(shown).items()))
        return (
            f"{len(sent)} tasks sent, {len(shown)} ends kept since Redis was emptied, as tallied: {sums};"
            f" workers killed: {len(self._killed)}, of them for not ending within {STOP_SECONDS:g} s of"
            f" SIGTERM: {self._not_ended}; lost, since such a worker took its end along: {len(untold)};"
            f" handed out to such a worker, and lost to Celery itself: {len(self._never_run)},"
            f" in no worker's log: {sum(not self._lines(task_id) for task_id in self._never_run)}"
        )

    def _took_its_end_along(self, task_id: str, record: dict[str, Any]) -> bool:
        """Whether a killed worker had a task last, and ended it just before, if at all."""
        killed_at = self._killed.get(record["worker"])
        if record["status"] != "lost" or killed_at is None:
            return False
        ends = [at for named, _, at in self._tallied() if named == task_id]
        return all(killed_at - UNTOLD_SECONDS < at <= killed_at for at in ends)

    def _story(self, task_id: str) -> str:
        """For a failure: what Redis, the task itself, the broker and the workers tell of it."""
        timeline = self._redis.hget(Keys().timelines, task_id)
        said = [(end, at) for named, end, at in self._tallied() if named == task_id]
        waits = [task_id in message for message in self._queue.lrange("celery", 0, -1)]
        unacknowledged = [task_id in message for message in self._queue.hvals("unacked")]
        lines = self._lines(task_id)
        return (
            f"{task_id}: timeline {timeline}, tallied {said}, in the queue {sum(waits)},"
            f" unacknowledged {sum(unacknowledged)}, emptied {self._emptied_at}, killed {self._killed},"
            f" workers {lines}"
        )

    def _lines(self, task_id: str) -> list[str]:
        """What the workers' own logs say of a task."""
        lines = [line for worker in self._all_workers() for line in worker.output.splitlines()]
        return [line for line in lines if task_id in line]

    def _all_workers(self) -> list[Worker]:
        return [*self._gone, *(worker for _, worker in self._workers)]

    def close(self) -> None:
        """End the workers."""
        for worker in self._all_workers():
            worker.close()


def _sums(shown: dict[str, dict[str, Any]]) -> Counter[str]:
    return Counter(record["status"] for record in shown.values())
