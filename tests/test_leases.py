"""The promise that a worker that is gone is seen to be gone, and one that lives never is."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from celery_plugin.contract import encode
from celery_plugin.ends import FORGET_SECONDS
from tests.support.celery_worker import Worker
from tests.support.deadline import eventually
from tests.support.site import LEASE_SECONDS, RENEW_SECONDS, Site, open_site, unique_hostname

# A busy machine; the promise is lease + renewal.
SLACK_SECONDS = 2.0


@pytest.fixture
def site() -> Iterator[Site]:
    """A site of this test alone."""
    with open_site() as opened:
        yield opened


def _active_on(site: Site, worker: Worker, queue: str = "") -> str:
    """Start a task that runs until its gate opens, on this worker alone."""
    queue = queue or worker.hostname
    task_id = site.call("wait_for_file", str(site.directory.name) + "/gate", queue=queue)
    eventually(lambda: task_id in site.shown.active)
    return task_id


def _start(site: Site, **options: Any) -> Worker:
    """Start a worker that has a queue of its own, too."""
    hostname = options.pop("hostname", None) or unique_hostname("w")
    queue = options.pop("queue", hostname)
    return site.start(hostname=hostname, arguments=("-Q", f"celery,{queue}"), **options)


def _open_gate(site: Site) -> None:
    with open(site.directory.name + "/gate", "w"):
        pass


def test_a_worker_that_is_killed(site: Site) -> None:
    """Another one says within lease and renewal that its tasks are lost, since it was last heard of; it is
    offline, its lease gone."""
    killed, other = _start(site), _start(site)
    ran, went_on = _active_on(site, killed), _active_on(site, other)
    waited = site.call("add", 1, 2, queue=killed.hostname)
    later = site.call("add", 1, 2, queue=killed.hostname, countdown=3600)
    eventually(lambda: {waited, later} == set(site.shown.waiting))
    died = time.time()
    killed.kill()
    eventually(lambda: {ran, waited, later} <= set(site.shown.finished))
    took = time.time() - died
    assert took < LEASE_SECONDS + RENEW_SECONDS + SLACK_SECONDS
    for task_id in (ran, waited, later):
        record = site.shown.finished[task_id]
        assert ("lost", "worker_lost", killed.hostname) == tuple(
            record[name] for name in ("status", "reason", "worker")
        )
        assert died - RENEW_SECONDS - SLACK_SECONDS < record["finished_at"] <= died + 0.1
    assert 0 < site.shown.finished[ran]["runtime"]
    lost = {name: n for name, n in site.shown.counters.items() if name[0] == "celery_task_lost_total"}
    host = killed.hostname.partition("@")[2]
    assert {(host, killed.hostname)} == {name[2:] for name in lost}
    assert {"tests.add": 2, "tests.wait_for_file": 1} == {name[1]: n for name, n in lost.items()}
    eventually(lambda: "offline" == site.shown.workers[site.worker_id(killed)]["status"])
    assert {site.worker_id(other)} == set(site.shown.leases)
    assert {went_on} == set(site.shown.active)
    _open_gate(site)
    assert "completed" == site.ended(went_on)["status"]
    (told,) = (e for e in site.shown.events if e.get("status") == "offline")
    assert (killed.hostname, "worker_lost") == (told["worker"], told["reason"])


def test_a_busy_worker_tells_of_a_dead_one_as_well(site: Site) -> None:
    """Each batch renews the lease; what is due beside that must not wait until the worker is quiet."""
    killed, busy = _start(site), _start(site)
    ran = _active_on(site, killed)
    killed.kill()

    def lost_while_busy() -> bool:
        site.call("add", 1, 2, queue=busy.hostname)
        return "lost" == site.shown.finished.get(ran, {}).get("status")

    eventually(lost_while_busy, 5 * (LEASE_SECONDS + RENEW_SECONDS))


def test_a_worker_that_was_only_stopped(site: Site) -> None:
    """Its tasks are lost, then active again, and they end once."""
    stopped, _ = _start(site), _start(site)
    task_id = _active_on(site, stopped)
    run = site.shown.active[task_id]["run"]
    stopped.pause()
    eventually(lambda: "lost" == site.shown.finished.get(task_id, {}).get("status"))
    eventually(lambda: "offline" == site.shown.workers[site.worker_id(stopped)]["status"])
    stopped.resume()
    eventually(lambda: task_id in site.shown.active, what="it is active again")
    assert (run, stopped.hostname) == tuple(site.shown.active[task_id][name] for name in ("run", "worker"))
    eventually(lambda: "online" == site.shown.workers[site.worker_id(stopped)]["status"])
    assert 2 == len(site.shown.leases)
    _open_gate(site)
    assert "completed" == site.ended(task_id)["status"]
    assert ["reserved", "active", "lost", "active", "completed"] == site.shown.statuses(task_id)
    assert [task_id] == site.shown.history


@pytest.mark.parametrize("how", ["by a signal", "by remote control"])
def test_a_warm_shutdown_that_takes_long(site: Site, how: str) -> None:
    """`stopping` as long as its last task runs, which nobody takes for lost; then offline."""
    stops, _ = _start(site), _start(site)
    task_id = _active_on(site, stops)
    worker_id = site.worker_id(stops)
    if how == "by a signal":
        stops.send_signal(signal.SIGTERM)
    else:
        site.app.control.shutdown(destination=[stops.hostname])
    eventually(lambda: "stopping" == site.shown.workers[worker_id]["status"])
    since = time.monotonic()
    eventually(lambda: time.monotonic() - since > 2 * LEASE_SECONDS)
    assert {task_id} == set(site.shown.active)
    assert 0 < site.shown.leases[worker_id]
    assert "stopping" == site.shown.workers[worker_id]["status"]
    _open_gate(site)
    assert 0 == stops.wait()
    assert "completed" == site.ended(task_id)["status"]
    assert "offline" == site.shown.workers[worker_id]["status"]
    assert worker_id not in site.shown.leases
    assert ["reserved", "active", "completed"] == site.shown.statuses(task_id)


def test_two_workers_of_one_hostname(site: Site) -> None:
    """Two records, two leases; when one dies, the tasks of the other stay as they are."""
    hostname = unique_hostname()
    first, second = (_start(site, hostname=hostname, queue=queue) for queue in ("first", "second"))
    first_id, second_id = site.worker_id(first), site.worker_id(second)
    assert first_id != second_id
    assert {first_id, second_id} == set(site.shown.leases)
    of_first, of_second = {_active_on(site, first, "first")}, {_active_on(site, second, "second")}
    runs = [site.shown.active[task_id]["run"].rpartition("/")[0] for task_id in (*of_first, *of_second)]
    assert [first_id, second_id] == runs
    first.kill()
    eventually(lambda: of_first == set(site.shown.finished))
    assert of_second == set(site.shown.active)
    assert "online" == site.shown.workers[second_id]["status"]
    _open_gate(site)
    for task_id in of_second:
        assert "completed" == site.ended(task_id)["status"]


def test_a_worker_that_is_restarted_under_its_name(site: Site) -> None:
    """It is another one: what the first left behind is lost, what the second has is not."""
    hostname = unique_hostname()
    first = _start(site, hostname=hostname)
    left = _active_on(site, first)
    first_id = site.worker_id(first)
    first.kill()
    second = _start(site, hostname=hostname)
    task_id = _active_on(site, second)
    eventually(lambda: "lost" == site.shown.finished.get(left, {}).get("status"))
    eventually(lambda: "offline" == site.shown.workers[first_id]["status"])
    assert ({task_id}, {site.worker_id(second)}) == (set(site.shown.active), set(site.shown.leases))
    assert "online" == site.shown.workers[site.worker_id(second)]["status"]


def test_the_one_that_looks_after_the_dead_dies_too(site: Site) -> None:
    """Whoever is left does it: of three workers the last one tells of both."""
    workers = {site.worker_id(worker): worker for worker in (_start(site), _start(site), _start(site))}
    looks, also, last = sorted(workers)
    lost = {_active_on(site, workers[looks]), _active_on(site, workers[also])}
    went_on = _active_on(site, workers[last])
    workers[looks].kill()
    workers[also].kill()
    eventually(lambda: lost == set(site.shown.finished))
    assert {"lost"} == {record["status"] for record in site.shown.finished.values()}
    eventually(lambda: {last} == set(site.shown.leases))
    assert {went_on} == set(site.shown.active)
    for task_id in lost:
        assert ["reserved", "active", "lost"] == site.shown.statuses(task_id)


def test_a_worker_that_ended_long_ago_is_forgotten(site: Site) -> None:
    """An hour after its end; one that ended lately is still shown."""
    now = time.time()
    for name, ended in (("long ago", now - FORGET_SECONDS - 60), ("lately", now - FORGET_SECONDS + 600)):
        facts = {"worker_id": name, "worker": name, "status": "offline", "timestamp": ended}
        record = encode({"type": "worker_status", "batch": 1, "offset": 1} | facts)
        site.shown.client.hset(site.shown.keys.workers, name, record)
    worker = _start(site)
    eventually(lambda: "long ago" not in site.shown.workers)
    assert {"lately", site.worker_id(worker)} == set(site.shown.workers)


def test_the_depth_of_a_queue_that_nobody_measures_any_more_is_forgotten(site: Site) -> None:
    """After an hour; queues for broadcasts would fill Redis with their names."""
    now = time.time()
    for queue, measured_at in (
        ("long ago", now - FORGET_SECONDS - 60),
        ("lately", now - FORGET_SECONDS + 600),
    ):
        depth = encode({"pending": 3, "measured_at": measured_at})
        site.shown.client.hset(site.shown.keys.depths, queue, depth)
    _start(site)
    eventually(lambda: [b"lately"] == site.shown.client.hkeys(site.shown.keys.depths))
