"""The promise that every pool is watched alike; what a pool itself cannot do stands in docs/pools.md."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from typing import Any

import pytest
from celery import VERSION as CELERY

from celery_plugin.contract import JSON
from tests.support.celery_worker import Worker
from tests.support.deadline import eventually
from tests.support.site import LEASE_SECONDS, Site, open_site

POOLS = [
    "prefork",
    "solo",
    "threads",
    pytest.param("gevent", marks=pytest.mark.skipif(not find_spec("gevent"), reason="gevent is not here")),
]
# How many messages a worker takes while its pool is full, of three: a solo worker receives nothing as long as
# it runs a task, a gevent worker stops at the first that finds no free slot.
FETCHED_WHILE_BUSY = {"prefork": 3, "solo": 0, "threads": 3, "gevent": 1}
CANNOT_TERMINATE = ("solo", "threads") if CELERY >= (5, 5) else ("solo", "threads", "gevent")


@pytest.fixture(scope="module", params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    """Each pool in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def site(pool: str) -> Iterator[Site]:
    """A worker with this pool, two tasks at a time."""
    with open_site() as opened:
        opened.start(pool=pool, concurrency=2)
        yield opened


@pytest.fixture
def own() -> Iterator[Site]:
    """A site of this test alone."""
    with open_site() as opened:
        yield opened


# -- the core suite --------------------------------------------------------------------------------------


def test_the_whole_life_of_a_task(site: Site, pool: str) -> None:
    """Received, started, succeeded; the record says who, when, how long, from which queue."""
    gate = site.gate()
    task_id = site.call("wait_for_file", str(gate), priority=3)
    active = eventually(lambda: site.shown.active.get(task_id))
    assert {task_id} == set(site.shown.runs)
    gate.open()
    record = site.ended(task_id)
    facts = {"task_name": "tests.wait_for_file", "queue": "celery", "attempt": 1, "max_retries": 3}
    facts |= {"worker": site.workers[0].hostname, "args": f"({str(gate)!r},)", "kwargs": "{}", "priority": 3}
    assert facts == {name: active[name] for name in facts} == {name: record[name] for name in facts}
    assert ("active", "completed") == (active["status"], record["status"])
    assert record["received_at"] <= record["started_at"] <= record["finished_at"]
    assert record["started_at"] + record["runtime"] == pytest.approx(record["finished_at"], abs=0.5)
    assert ["reserved", "active", "completed"] == site.shown.statuses(task_id) == site.timeline(task_id)


def test_failures(site: Site, pool: str) -> None:
    """With the class and the words of the exception."""
    task_id = site.call("fail", "no luck")
    record = site.ended(task_id)
    assert ("failed", "ValueError('no luck')") == (record["status"], record["exception"])
    assert ["reserved", "active", "failed"] == site.shown.statuses(task_id)


def test_retries(site: Site, pool: str) -> None:
    """Retrying, scheduled for its time, then the second attempt."""
    task_id = site.call("retry_once", 0.5)
    record = site.ended(task_id)
    assert ("completed", 2) == (record["status"], record["attempt"])
    steps = site.timeline(task_id)
    assert ["reserved", "active", "completed"] == [steps[0], steps[1], steps[-1]]
    assert {"retrying", "scheduled"} < set(steps)
    assert (1, 2) == (steps.count("retrying"), steps.count("active"))


def test_scheduled_tasks(site: Site, pool: str) -> None:
    """They run when their time has come."""
    task_id = site.call("add", 1, 2, countdown=0.7)
    waiting = eventually(lambda: site.shown.waiting.get(task_id))
    assert "scheduled" == waiting["status"]
    record = site.ended(task_id)
    assert "completed" == record["status"]
    assert record["eta"] - 0.01 <= record["started_at"]


def test_revoked_tasks(site: Site, pool: str) -> None:
    """On receipt, when they have expired, and when their time comes."""
    later = site.call("add", 1, 2, countdown=1.5)
    eventually(lambda: later in site.shown.waiting)
    received = f"revoked on receipt in {pool}"
    site.command("revoke", task_id=[later, received])
    site.call("add", 1, 2, task_id=received)
    expired = site.call("add", 1, 2, expires=datetime.now(timezone.utc) - timedelta(seconds=1))
    told = {task_id: site.ended(task_id) for task_id in (later, received, expired)}
    assert ["revoked", "revoked", "revoked"] == [record["status"] for record in told.values()]
    assert [None, None, "expired"] == [record.get("reason") for record in told.values()]
    assert ["revoked"] == site.shown.statuses(received)


def test_odd_ends(site: Site, pool: str) -> None:
    """Ignored, replaced, rejected, put back, failed with its message rejected, without events, unknown."""
    gate = site.gate()
    gate.open()
    ends = {
        site.call("ignore"): ("completed", "ignored"),
        site.call("replace", 2, 3): ("completed", None),
        site.call("reject"): ("rejected", None),
        site.call("reject_too_late", True): ("rejected", None),
        site.call("requeue", str(site.gate())): ("completed", None),
        site.call("fail_unacknowledged"): ("failed", None),
        site.call("silent", str(gate)): ("completed", None),
        site.app.send_task("tests.nobody_knows_it").id: ("failed", None),
    }
    for task_id, end in ends.items():
        eventually(lambda task_id=task_id, end=end: end == _end(site.shown.finished.get(task_id, {})))
    eventually(lambda: {} == site.shown.runs)
    for task_id, end in ends.items():
        assert end == _end(site.shown.finished[task_id])


def _end(record: JSON) -> tuple[str | None, str | None]:
    return record.get("status"), record.get("reason")


def test_what_waits_for_a_free_slot(site: Site, pool: str) -> None:
    """Reserved until it runs. A solo worker receives nothing while it runs a task."""
    gate = site.gate()
    slots = 2 if FETCHED_WHILE_BUSY[pool] else 1
    running = [site.call("wait_for_file", str(gate)) for _ in range(slots)]
    eventually(lambda: set(running) == set(site.shown.active))
    waits = site.call("add", 1, 2)
    if FETCHED_WHILE_BUSY[pool]:
        assert "reserved" == eventually(lambda: site.shown.waiting.get(waits))["status"]
    gate.open()
    for task_id in (*running, waits):
        assert "completed" == site.ended(task_id)["status"]
        assert ["reserved", "active", "completed"] == site.shown.statuses(task_id)


def test_terminate(site: Site, pool: str) -> None:
    """Revoked, where the pool can; elsewhere Celery refuses, and the task goes on and completes."""
    gate = site.gate()
    site.listening()
    task_id = site.call("wait_for_file", str(gate))
    eventually(lambda: task_id in site.shown.active)
    site.app.control.revoke(task_id, terminate=True)  # a solo worker answers when the task has ended
    if pool in CANNOT_TERMINATE:
        gate.open()
    record = site.ended(task_id)
    expected = ("completed", None) if pool in CANNOT_TERMINATE else ("revoked", "terminated")
    assert expected == _end(record)
    assert 3 == len(site.shown.statuses(task_id))


# -- the ends of workers ---------------------------------------------------------------------------------


def _loaded(own: Site, pool: str) -> tuple[Worker, list[str], str, Any]:
    """Start a worker that runs one task, has fetched more and holds one for later."""
    worker = own.start(pool=pool, concurrency=1)
    gate = own.gate()
    later = own.call("add", 1, 2, countdown=3600)
    eventually(lambda: later in own.shown.waiting)
    running = own.call("wait_for_file", str(gate))
    eventually(lambda: running in own.shown.active)
    waits = [own.call("add", 1, n) for n in range(3)]
    fetched = waits[: FETCHED_WHILE_BUSY[pool]]
    eventually(lambda: {*fetched, later} == set(own.shown.waiting))
    return worker, [*waits, later], running, gate


def test_a_warm_shutdown(own: Site, pool: str) -> None:
    """What runs ends; what waits has gone back to the queue, or still runs where the pool wants it to."""
    worker, waits, running, gate = _loaded(own, pool)
    worker.send_signal(signal.SIGTERM)
    worker.wait_for_line("Warm shutdown")
    gate.open()
    assert 0 == worker.wait()
    assert "completed" == own.shown.finished[running]["status"]
    _nothing_left(own, worker)
    ran = [task_id for task_id in waits if task_id in own.shown.finished]
    assert {"completed"} >= {own.shown.finished[task_id]["status"] for task_id in ran}
    # Before 5.5 a gevent worker with a full pool acknowledges nothing more: what it has run comes back, too.
    comes_back = [running, *waits] if pool == "gevent" and CELERY < (5, 5) else set(waits).difference(ran)
    assert len(comes_back) == own.client.llen("celery")


def test_a_cold_shutdown(own: Site, pool: str) -> None:
    """What ran is lost, unless its end came first; what waited is back in the queue; nothing stays active."""
    if pool == "solo" and (5, 5) <= CELERY < (5, 7):
        pytest.skip("Celery itself raises NotImplementedError in the running task, and the worker goes on")
    worker, waits, running, gate = _loaded(own, pool)
    worker.send_signal(signal.SIGQUIT)
    worker.wait_for_line("Cold shutdown|Ctrl\\+C again")
    gate.open()
    worker.wait()
    _nothing_left(own, worker)
    # Before Celery 5.5 a task that ends at once is still heard.
    may_end = pool in CANNOT_TERMINATE or CELERY < (5, 5)
    ends = [("lost", "worker_exited")] + [("completed", None)] * may_end
    assert _end(own.shown.finished[running]) in ends
    for task_id in waits:
        assert own.shown.finished.get(task_id, {}).get("status") in (None, "completed")


def test_a_cold_shutdown_before_the_message_is_acknowledged(own: Site) -> None:
    """The broker delivers it again: the task is pending, and another worker completes it."""
    worker = own.start()
    gate = own.gate()
    task_id = own.call("wait_late", str(gate))
    eventually(lambda: task_id in own.shown.active)
    worker.send_signal(signal.SIGQUIT)
    worker.wait()
    _nothing_left(own, worker)
    if CELERY < (5, 5):  # it acknowledges the message and says that the task has failed
        assert ["reserved", "active", "failed"] == own.shown.statuses(task_id)
        assert 0 == own.client.llen("celery")
        return
    assert ["reserved", "active", "pending"] == own.shown.statuses(task_id)
    gate.open()
    own.start(env={"VISIBILITY_SECONDS": "1"})
    eventually(lambda: "completed" == own.shown.finished.get(task_id, {}).get("status"))


def _nothing_left(own: Site, worker: Worker) -> None:
    assert ({}, {}, {}, {}) == (own.shown.active, own.shown.waiting, own.shown.runs, own.shown.leases)
    assert "offline" == own.shown.workers[own.worker_id(worker)]["status"]


# -- the size of the pool --------------------------------------------------------------------------------


def _concurrency(own: Site) -> int | None:
    return next((record["concurrency"] for record in own.shown.workers.values()), None)


@pytest.mark.parametrize("grows", ["prefork", *POOLS[3:]])
def test_a_pool_that_grows_and_shrinks(own: Site, grows: str) -> None:
    """The worker's record follows within a renewal of its lease."""
    own.start(pool=grows, concurrency=2)
    eventually(lambda: 2 == _concurrency(own))
    own.command("pool_grow", n=2)
    eventually(lambda: 4 == _concurrency(own))
    own.command("pool_shrink", n=1)
    eventually(lambda: 3 == _concurrency(own))


def test_a_pool_that_grows_by_itself(own: Site) -> None:
    """With --autoscale, as many as there are."""
    own.start(arguments=("--autoscale=3,1",))
    eventually(lambda: 1 == _concurrency(own))
    gate = own.gate()
    ids = [own.call("wait_for_file", str(gate)) for _ in range(3)]
    eventually(lambda: set(ids) == set(own.shown.active))
    eventually(lambda: 3 == _concurrency(own))
    gate.open()
    for task_id in ids:
        assert "completed" == own.ended(task_id)["status"]


def test_a_process_for_each_task(own: Site) -> None:
    """worker_max_tasks_per_child=1: each ends once, none of them with its process."""
    own.start(concurrency=2, env={"TASKS_PER_CHILD": "1"})
    ids = [own.call("add", 1, n) for n in range(6)]
    for task_id in ids:
        assert "completed" == own.ended(task_id)["status"]
        assert ["reserved", "active", "completed"] == own.shown.statuses(task_id)
    (record,) = own.shown.workers.values()
    assert ("online", 2) == (record["status"], record["concurrency"])


# -- the lease -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", ["solo", *POOLS[3:]])
def test_a_task_that_never_lets_go(own: Site, busy: str) -> None:
    """It computes for three leases, and another worker does not take its worker for dead."""
    own.start(concurrency=1)
    busy_worker = own.start(pool=busy, concurrency=1, arguments=("-Q", "busy"))
    task_id = own.call("compute", 3 * LEASE_SECONDS, queue="busy")
    assert "completed" == own.ended(task_id)["status"]
    assert ["reserved", "active", "completed"] == own.shown.statuses(task_id)
    assert "online" == own.shown.workers[own.worker_id(busy_worker)]["status"]
    assert {"online"} == {event["status"] for event in own.shown.events if event["type"] == "worker_status"}


# -- eventlet --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not find_spec("eventlet"), reason="eventlet is not supported, and not here")
def test_eventlet_smoke(own: Site) -> None:
    """Nothing is promised; the usual ends are told, and the lease is kept."""
    own.start(concurrency=1)
    own.start(pool="eventlet", concurrency=2, arguments=("-Q", "green"))
    ends = {"add": "completed", "fail": "failed", "retry_once": "completed", "ignore": "completed"}
    arguments = {"add": (1, 2)}
    for name, end in ends.items():
        task_id = own.call(name, *arguments.get(name, ()), queue="green")
        assert end == own.ended(task_id)["status"]
    task_id = own.call("compute", 3 * LEASE_SECONDS, queue="green")
    assert "completed" == own.ended(task_id)["status"]
    assert ["reserved", "active", "completed"] == own.shown.statuses(task_id)
