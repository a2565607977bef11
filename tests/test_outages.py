"""The promise that the plugin cannot hurt: whatever is wrong with its Redis, tasks run and the worker ends,
two lines tell of it, and afterwards the state is exactly right again within one lease."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task
from redis import Redis

from celery_plugin.connections import SOCKET_TIMEOUT_SECONDS
from celery_plugin.outbox import OUTBOX_MAX
from celery_plugin.writer import LAST_WORDS_SECONDS
from tests.support.batches import Stored
from tests.support.celery_worker import Worker
from tests.support.deadline import eventually
from tests.support.faults import FAULTS, Patient
from tests.support.proxy import DeafPort, Proxy
from tests.support.starters import StartRedis, StartWorker
from tests.support.tasks_app import Gate

LEASE_SECONDS = 3.0
LEASE = {"SIDECAR_LEASE_SECONDS": f"{LEASE_SECONDS}", "SIDECAR_LEASE_RENEW_SECONDS": "0.5"}
# The promise is one lease; the machine is busy with other tests.
WITHIN_SECONDS = 3 * LEASE_SECONDS
# What a worker takes without the plugin is a good second.
SHUTDOWN_SECONDS = LAST_WORDS_SECONDS + 5.0
TASKS = 30
# 12 MB measured with 30,000 tasks.
GROWN_MAX = 30.0


@pytest.fixture
def patient(start_redis: StartRedis) -> Iterator[Patient]:
    """The Redis for the state, behind a proxy."""
    server = start_redis()
    with Proxy(server.port) as proxy:
        patient = Patient(server, proxy, start_redis())
        yield patient
        patient.close()


@pytest.fixture
def shown(patient: Patient) -> Iterator[Stored]:
    """What stands in it."""
    with Redis.from_url(patient.server.url) as client:
        yield Stored(client)


class Site:
    """A worker, and all that was sent to it."""

    def __init__(self, app: Celery, worker: Worker, shown: Stored, directory: Path) -> None:
        self.app = app
        self.worker = worker
        self.shown = shown
        self.gates = {name: Gate(directory / name) for name in ("first", "second")}
        self.active: set[str] = set()
        self.waiting: set[str] = set()
        self.finished: set[str] = set()

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Enqueue a task."""
        return self.app.tasks[f"tests.{name}"].apply_async(arguments, **options)

    def run_until(self, gate: str) -> str:
        """Start a task that runs until a gate opens."""
        task_id = str(self.call("wait_for_file", str(self.gates[gate])).id)
        self.active.add(task_id)
        return task_id

    def open(self, gate: str, *task_ids: str) -> None:
        """Let these tasks end."""
        self.gates[gate].open()
        self.active -= {*task_ids}
        self.finished |= {*task_ids}

    def run_quick_ones(self) -> float:
        """Run quick tasks to their ends; return how long that took."""
        before = time.monotonic()
        results = [self.call("add", n, n) for n in range(TASKS)]
        assert [2 * n for n in range(TASKS)] == [result.get(timeout=30) for result in results]
        self.finished |= {result.id for result in results}
        return time.monotonic() - before

    def is_shown(self) -> bool:
        """Whether Redis says of each task what is true, and nothing else."""
        shown = self.shown
        said = (set(shown.active), set(shown.waiting), set(shown.finished), set(shown.runs))
        return said == (self.active, self.waiting, self.finished, self.active | self.waiting)

    def assert_each_told_once(self) -> None:
        """No event of the log twice, no hole in it, and every end a good one."""
        events = [event for event in self.shown.events if event["type"] == "task_status"]
        told = [(event["task_id"], event["status"]) for event in events]
        assert len(set(told)) == len(told)
        offsets = [offset for offset, _, _ in self.shown.entries]
        assert list(range(offsets[0], self.shown.offset + 1)) == offsets
        assert {"completed"} == {record["status"] for record in self.shown.finished.values()}

    def lines(self) -> list[str]:
        """The warnings and errors of the plugin, and whatever looks like a fault."""
        lines = self.worker.output.splitlines()
        return [line for line in lines if re.search("(WARNING|ERROR).*celery_plugin|Traceback", line)]


@pytest.fixture
def site(
    start_worker: StartWorker, celery_app: Celery, patient: Patient, shown: Stored, tmp_path: Path
) -> Site:
    """A worker of four processes, its state behind the proxy."""
    env = LEASE | {"SIDECAR_REDIS_URL": patient.proxy.url}
    return Site(celery_app, start_worker(concurrency=4, env=env), shown, tmp_path)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage(fault: str, site: Site, patient: Patient) -> None:
    """Tasks run at full speed, two lines tell of it, and the state is right within a lease."""
    begin, words = FAULTS[fault]
    ends_meanwhile, runs_on = site.run_until("first"), site.run_until("second")
    site.waiting.add(site.call("add", 1, 2, countdown=3600).id)
    before = site.run_quick_ones()
    eventually(site.is_shown, what="all is shown")

    end = begin(patient)
    assert site.run_quick_ones() < 3 * before + 1.0
    site.open("first", ends_meanwhile)
    starts_meanwhile = site.run_until("second")
    site.worker.wait_for_line(f"cannot write to Redis.*({words})")
    site.run_quick_ones()

    end()
    site.worker.wait_for_line("Redis is back", WITHIN_SECONDS)
    eventually(site.is_shown, WITHIN_SECONDS, what="the state is right again")
    site.assert_each_told_once()
    site.open("second", runs_on, starts_meanwhile)
    eventually(site.is_shown, what="it goes on")
    site.assert_each_told_once()
    assert 2 == len(site.lines()), site.lines()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_end_in_an_outage(fault: str, site: Site, patient: Patient) -> None:
    """A worker that is told to end ends in time, also where the fault began a moment before and its children
    have just reported progress."""
    begin, _ = FAULTS[fault]
    site.finished.add(site.call("progress", "half").id)
    site.run_quick_ones()
    eventually(site.is_shown)
    begin(patient)
    assert "half" == site.call("progress", "half").get(timeout=30)
    before = time.monotonic()
    assert 0 == site.worker.stop()
    assert time.monotonic() - before < SHUTDOWN_SECONDS
    assert "Traceback" not in site.worker.output


def test_a_redis_that_cannot_be_reached_from_the_start(
    start_worker: StartWorker, celery_app: Celery, shown: Stored, patient: Patient, tmp_path: Path
) -> None:
    """Nobody answers the SYN: the worker starts, works and ends; all is told once somebody does."""
    deaf = DeafPort()
    url = f"redis://127.0.0.1:{deaf.port}/0"
    workers = [start_worker(concurrency=2, env=LEASE | {"SIDECAR_REDIS_URL": url}) for _ in range(2)]
    site = Site(celery_app, workers[0], shown, tmp_path)
    site.run_quick_ones()
    site.worker.wait_for_line("cannot write to Redis.*(?i:timeout|timed out)")
    before = time.monotonic()
    assert 0 == workers[1].stop()
    assert time.monotonic() - before < SHUTDOWN_SECONDS
    deaf.close()
    with Proxy(patient.server.port, deaf.port):
        site.worker.wait_for_line("Redis is back", WITHIN_SECONDS)
        runs = site.run_until("first")
        eventually(lambda: runs in shown.active)
        assert 0 < len(shown.finished) <= TASKS
        site.open("first", runs)
        eventually(lambda: ({}, {}) == (shown.active, shown.waiting))
    assert 2 == len(site.lines()), site.lines()


def test_more_than_the_outbox_keeps(
    start_worker: StartWorker, celery_app: Celery, shown: Stored, patient: Patient
) -> None:
    """Memory is bounded; the worker's record counts what was given up, and what is open is shown exactly."""
    worker = start_worker(pool="solo", env=LEASE | {"SIDECAR_REDIS_URL": patient.server.url})
    add = celery_app.tasks["tests.add"]
    later = add.apply_async((1, 2), countdown=3600).id
    last = _send(add, 1000)
    eventually(lambda: last in shown.finished)
    assert {later} == set(shown.waiting)
    before, meanwhile = _megabytes(worker), OUTBOX_MAX * 14 // 10
    patient.server.pause()
    last = _send(add, meanwhile)
    assert 3 == celery_app.AsyncResult(last).get(timeout=60)
    # What came during an attempt that hangs is looked at after it.
    since = time.monotonic()
    eventually(lambda: time.monotonic() - since > 1.5 * SOCKET_TIMEOUT_SECONDS)
    grown = _megabytes(worker) - before
    patient.server.resume()
    worker.wait_for_line("Redis is back", WITHIN_SECONDS)
    eventually(lambda: last in shown.finished, what="the newest is kept")
    eventually(lambda: ({}, {later}, {later}) == (shown.active, set(shown.waiting), set(shown.runs)))
    [record] = shown.workers.values()
    assert 0 < record["gave_up"]
    assert meanwhile <= len(shown.finished) + record["gave_up"]
    assert grown < GROWN_MAX, grown


def _send(task: Task, count: int) -> str:
    """Enqueue so many, and return the id of one that comes after them and has a result."""
    with task.app.producer_pool.acquire() as producer:
        for _ in range(count):
            task.apply_async((1, 2), ignore_result=True, producer=producer)
    return str(task.delay(1, 2).id)


def _megabytes(worker: Worker) -> float:
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024
