"""A worker of the plugin's own writer, with tasks that begin and end by chance."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import Any

from redis import Redis

from celery_plugin.connections import make_client
from celery_plugin.contract import Keys
from celery_plugin.runs import Run, read_run
from celery_plugin.script import Script
from celery_plugin.settings import Settings
from celery_plugin.writer import Writer
from tests.support.deadline import eventually

QUEUES = ("celery", "high")
NAMES = ("tests.add", "tests.mail", "shop.pay")
# So many tasks are open at a time, about.
OPEN_TASKS = 40


@dataclass
class _Record:
    """What a worker says of itself."""

    worker_id: str
    hostname: str
    status: str = "online"
    gave_up: int = 0

    def members(self) -> dict[str, Any]:
        return {"worker_id": self.worker_id, "worker": self.hostname, "status": self.status}


class Load:
    """Tells of so many steps a second, from a thread, until it is closed. Use it in a `with`."""

    def __init__(self, url: str, name: str, *, rate: float, seed: int) -> None:
        self.name, self._rate, self._chance = name, rate, random.Random(seed)
        self._record: Any = _Record(f"celery@{name}:{seed:012x}", f"celery@{name}")
        # Nobody is to be thought dead while Redis is away.
        settings = Settings(lease_seconds=120, lease_renew_seconds=2, log_max=1_000_000)
        self._client: Redis = make_client(url, {})
        self._writer = Writer(Script(Keys()), self._client, settings, self._record)
        self._runs: list[Run] = []
        self._started: set[str] = set()
        self._may_run, self._resting, self._closing = threading.Event(), threading.Event(), False
        self._may_run.set()
        self._thread = threading.Thread(target=self._run, name=f"load {name}")
        self.count = self.steps = 0

    def __enter__(self) -> Load:
        self._writer.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._may_run.set()
        self._thread.join()
        self._writer.stop()

    def rest(self) -> None:
        """Stop for a while; returns when all of it stands in Redis."""
        self._resting.clear()
        self._may_run.clear()
        assert self._resting.wait(30)
        eventually(lambda: self._writer.backlog == (0, 0) and not self._writer._pending(), what="all is told")

    def go_on(self) -> None:
        """Go on."""
        self._may_run.set()

    def task_id(self, number: int) -> str:
        """The id of a task, also of one that is still to come."""
        return f"{self.name}-{number}"

    def _run(self) -> None:
        while not self._closing:
            if not self._may_run.is_set():
                self._resting.set()
                self._may_run.wait()
            self._step()
            self.steps += 1
            time.sleep(self._chance.uniform(0, 2 / self._rate))

    def _step(self) -> None:
        if not self._runs or self._chance.random() < 1 / 3 + (OPEN_TASKS - len(self._runs)) / 100:
            self._runs.append(self._receive())
            return
        run = self._chance.choice(self._runs)
        if run.id not in self._started:
            self._started.add(run.id)
            self._writer.observe("task-started", {"pid": 1}, run)
            return
        self._runs.remove(run)
        self._started.remove(run.id)
        ending = self._chance.choice(("task-succeeded", "task-failed", "task-revoked"))
        fields = {"exception": "ValueError('no')"} if ending == "task-failed" else {"runtime": 0.1}
        self._writer.observe(ending, fields, run)

    def _receive(self) -> Run:
        task_id, self.count = self.task_id(self.count), self.count + 1
        headers = {
            "id": task_id,
            "task": self._chance.choice(NAMES),
            "argsrepr": f"({self.count},)",
            "kwargsrepr": "{}",
        }
        run_id = f"{self._record.worker_id}/{self.count}"
        run = read_run(run_id, headers, self._chance.choice(QUEUES), None)
        self._writer.observe("received", {}, run)
        return run
