"""Tasks of all kinds over three workers and two pools, while workers are killed, frozen and restarted."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
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
# Longer than a message takes to come back, and than a lease.
QUIET_SECONDS = 90.0
SETTLED_SECONDS = 10.0
STOP_SECONDS = 8.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--tasks", type=int, default=10_000, help="tasks in all")
    parser.add_argument("--rate", type=float, default=150, help="tasks a second")
    parser.add_argument("--seed", type=int, default=1, help="of the order of kinds and troubles")


def run(arguments: argparse.Namespace) -> None:
    """Run the soak and print the sums; raise AssertionError where the truth is another."""
    print(soak(arguments.tasks, arguments.rate, arguments.seed))


def soak(tasks: int, rate: float, seed: int) -> str:
    """Run so many tasks through the troubles, and hold what is shown against their own tally."""
    chance = random.Random(seed)
    with TemporaryDirectory() as directory, RedisServer() as broker, RedisServer() as state:
        site = _Site(broker, state, Path(directory) / "tally")
        try:
            sent = site.send(tasks, rate, chance)
            site.wait_for_end(sent)
            return site.check(sent)
        finally:
            site.close()


class _Site:
    """Three workers, their broker, and the Redis that is told of them."""

    def __init__(self, broker: RedisServer, state: RedisServer, tally: Path) -> None:
        self._broker, self._state, self._tally = broker, state, tally
        self._redis: Any = Redis.from_url(state.url)  # redis-py types one signature for sync and async
        self._emptied_at = 0.0
        self.never_run: set[str] = set()
        self.not_ended = 0
        self._workers = [self._launch(pool) for pool in POOLS]
        for worker in self._workers:
            wait_until_ready(worker)
        app.conf.broker_url = broker.url

    def _launch(self, pool: str) -> Worker:
        env = {**LEASE, "SIDECAR_REDIS_URL": self._state.url, "SOAK_TALLY": str(self._tally)}
        return launch_worker(self._broker.url, app="bench.soak_app", pool=pool, env=env)

    def send(self, tasks: int, rate: float, chance: random.Random) -> dict[str, str]:
        """Send the tasks at a rate, with a trouble now and then; return task id → kind."""
        sent: dict[str, str] = {}
        kinds, troubles = list(ENDS), self._troubles(tasks, chance)
        began = time.monotonic()
        with app.producer_pool.acquire(block=True) as producer:
            for number in range(tasks):
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
                kind = chance.choice(kinds)
                options: dict[str, Any] = {"expires": 0.001} if kind == "expired" else {}
                if kind == "ok" and chance.random() < 0.1:
                    options["countdown"] = 1
                result = app.send_task("soak.work", (kind,), producer=producer, **options)
                sent[str(result.id)] = kind
                if number in troubles:
                    troubles[number]()
        return sent

    def _troubles(self, tasks: int, chance: random.Random) -> dict[int, Any]:
        every = max(1, tasks // 12)
        choices = [self._kill, self._freeze, self._restart]
        troubles: dict[int, Any] = {n: chance.choice(choices) for n in range(every, tasks, every)}
        troubles[tasks // 2] = self._empty
        return troubles

    def _kill(self) -> None:
        self._workers[0].kill()
        self._replace()

    def _restart(self) -> None:
        """Restart a worker in good order; one that does not end is counted, and killed."""
        try:
            self._workers[0].stop(STOP_SECONDS)
        except AssertionError:
            self.not_ended += 1
        self._replace()

    def _replace(self) -> None:
        pool = POOLS[1] if len(self._workers) % 2 else POOLS[2]
        self._workers[0].close()
        self._workers = [*self._workers[1:], self._launch(pool)]

    def _freeze(self) -> None:
        frozen = self._workers[1]
        frozen.pause()
        time.sleep(4)  # longer than its lease
        frozen.resume()

    def _empty(self) -> None:
        """Restart the Redis that is told, without its data."""
        self._emptied_at = time.time()
        self._state.kill()
        self._state.start()

    def tallied(self) -> Iterator[tuple[str, str, float]]:
        """What the tasks themselves say: id, end, when."""
        for line in self._tally.read_text().splitlines():
            task_id, end, at = line.split(" ")
            yield task_id, end, float(at)

    def wait_for_end(self, sent: dict[str, str]) -> None:
        """Wait until every task has ended, and nothing is held or waits any more.

        Of each worker that is killed Redis may just have handed a message out: that one is lost to Celery
        itself, and nobody can ever have seen it.
        """
        expected = {task_id for task_id, kind in sent.items() if kind != "expired"}
        deadline = time.monotonic() + QUIET_SECONDS
        busy_until = time.monotonic()
        while time.monotonic() < busy_until + SETTLED_SECONDS:
            held = self._held()
            self.never_run = expected - {task_id for task_id, _, _ in self.tallied()}
            if not self.never_run and not held:
                return
            if held:
                busy_until = time.monotonic()
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(self.never_run)} tasks have not ended, {held} are held")
            time.sleep(0.2)
        assert len(self.never_run) <= len(POOLS) * 12, f"{len(self.never_run)} tasks have vanished"

    def _held(self) -> int:
        keys = Keys()
        shown = int(self._redis.hlen(keys.active_tasks) + self._redis.hlen(keys.waiting_tasks))
        return shown + self._unacknowledged()

    def _unacknowledged(self) -> int:
        broker: Any = Redis.from_url(self._broker.url)
        return int(broker.hlen("unacked") + broker.llen("celery"))

    def check(self, sent: dict[str, str]) -> str:
        """Hold what is shown against the tally."""
        keys = Keys()
        shown = {
            task_id.decode(): json.loads(record)["status"]
            for task_id, record in self._redis.hgetall(keys.finished_tasks).items()
        }
        wrong = {task_id: end for task_id, end in shown.items() if end != ENDS[sent[task_id]]}
        told = [(task_id, end, self._story(task_id)) for task_id, end in wrong.items()]
        assert not wrong, f"{len(wrong)} ends are not what the tasks say: {told[:5]}"
        late = {task_id for task_id, _, at in self.tallied() if at > self._emptied_at + 1}
        missing = late - shown.keys()
        assert not missing, f"{len(missing)} tasks ended and are not shown: {sorted(missing)[:10]}"
        assert not self._redis.hlen(keys.runs), "a run is open that nobody has"
        sums = ", ".join(f"{end} {number}" for end, number in sorted(Counter(shown.values()).items()))
        return (
            f"{len(sent)} tasks sent, {len(shown)} ends kept since Redis was emptied, all as tallied: {sums};"
            f" handed out to a worker that was killed, and lost to Celery itself: {len(self.never_run)};"
            f" workers that did not end within {STOP_SECONDS:g} s of SIGTERM: {self.not_ended}"
        )

    def _story(self, task_id: str) -> str:
        """For a failure: what Redis tells of a task, and what the task says."""
        timeline = self._redis.hget(Keys().timelines, task_id)
        said = [(end, at) for named, end, at in self.tallied() if named == task_id]
        return f"timeline {(timeline or b'').decode()}, tallied {said}, emptied {self._emptied_at}"

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()
