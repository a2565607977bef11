"""What a page should show of what stands in Redis, and where it shows something else."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from celery_plugin.contract import JSON, Keys
from tests.support.asked import ENDS, HELD
from tests.support.told import Told

# What a lease changes in what is shown of a worker, or of a task that it has lost.
BY_LEASE = ("previous", "message", "reason", "lost_at")


@dataclass
class Shown:
    """The tasks that workers have, those that have ended, and the workers."""

    tasks: dict[str, JSON] = field(default_factory=dict)
    finished: dict[str, JSON] = field(default_factory=dict)
    workers: dict[str, JSON] = field(default_factory=dict)

    @classmethod
    def read(cls, client: Redis, keys: Keys) -> Shown:
        """Read all of one moment."""
        pipeline: Any = client.pipeline(transaction=True)
        for key in (keys.active_tasks, keys.waiting_tasks, keys.finished_tasks, keys.workers):
            pipeline.hgetall(key)
        pipeline.zrange(keys.leases, 0, -1, withscores=True)
        pipeline.time()
        *hashes, leases, (seconds, _) = pipeline.execute()
        active, waiting, finished, workers = map(_records, hashes)
        for record in workers.values():
            del record["batch"]
        shown = cls(active | waiting, finished, workers)
        shown.judge({worker.decode() for worker, end in leases if end > seconds})
        return shown

    def judge(self, alive: set[str]) -> None:
        """Make it what the leases of these workers, and of no others, say."""
        for worker_id, record in self.workers.items():
            if worker_id not in alive:
                record["status"] = "offline"
        for task in self.tasks.values():
            worker_id = task["run"].rpartition("/")[0]
            if worker_id not in alive or self.workers.get(worker_id, {}).get("status") == "offline":
                task["status"] = "lost"

    @property
    def figures(self) -> JSON:
        """What the figures should say."""
        counts = Counter(task["status"] for task in self.tasks.values())
        held = {f"{status}_tasks": counts[status] for status in (*HELD, "lost")}
        online = sum(worker["status"] != "offline" for worker in self.workers.values())
        return held | {"workers_online": online}

    def differences(self, told: Told, *, figures: bool = True) -> list[str]:
        """Where a client shows something else."""
        asked, faults = told.asked, []
        if asked.task_id:
            faults += self._of_one_task(told)
        elif asked.sees("task_status"):
            faults += self._of_tasks(told)
        if asked.sees("worker_status"):
            expected = {name: each for name, each in self.workers.items() if asked.admits_worker(each)}
            faults += _differences(_comparable(expected), _comparable(told.workers))
        if asked.sees("queue_status") and figures:
            faults += _differences(self.figures, {name: told.figures.get(name) for name in self.figures})
        return [f"{asked.name}: {fault}" for fault in faults]

    def _of_tasks(self, told: Told) -> list[str]:
        asked = told.asked
        expected = {name: each for name, each in self.tasks.items() if asked.admits(each)}
        lean = {name: asked.without_extra(each) for name, each in expected.items()}
        shown = {name: asked.without_extra(each) for name, each in told.tasks.items()}
        faults = _differences(_comparable(lean), _comparable(shown))
        for name in asked.values("include"):
            extra = {task_id: each.get(name) for task_id, each in expected.items()}
            faults += _differences(extra, {task_id: each.get(name) for task_id, each in told.tasks.items()})
        return faults

    def _of_one_task(self, told: Told) -> list[str]:
        task_id = told.asked.task_id
        shown = told.tasks.get(task_id, {}).get("status")
        if told.ended:
            # Afterwards the id may have been used again.
            return [] if shown in ENDS else [f"the stream of {task_id} ended, and it is {shown}"]
        there = self.tasks.get(task_id) or self.finished.get(task_id)
        if there is None:
            return []  # it was forgotten, or given back
        wrong = _differences({task_id: there["status"]}, {task_id: shown})
        return wrong + [f"{task_id} is {shown}, and its stream goes on"] * (there["status"] in ENDS)


def _records(found: dict[bytes, bytes]) -> dict[str, JSON]:
    return {name.decode(): json.loads(record) for name, record in found.items()}


def _comparable(things: dict[str, JSON]) -> dict[str, JSON]:
    return {name: _without_lease(each) for name, each in things.items()}


def _without_lease(thing: JSON) -> JSON:
    changed = BY_LEASE if thing["status"] in ("lost", "offline") else ("previous",)
    return {name: value for name, value in thing.items() if name not in changed}


def _differences(expected: dict[str, Any], shown: dict[str, Any]) -> list[str]:
    names = sorted({*expected, *shown})
    return [
        f"{name} is {_short(shown.get(name))} instead of {_short(expected.get(name))}"
        for name in names
        if shown.get(name) != expected.get(name)
    ]


def _short(value: object) -> str:
    return repr(value)[:300]
