"""The promises of a real worker: Redis shows what it does, and what Redis does stops no task."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from redis import Redis

from celery_plugin.contract import RECORD_MAX_BYTES, TASK_STATUS_FIELDS
from deploy.demo.redis_server import RedisServer
from tests.support.batches import Stored
from tests.support.celery_worker import Worker
from tests.support.deadline import eventually
from tests.support.starters import StartRedis, StartWorker
from tests.support.tasks_app import Gate

MEGABYTE = 1_000_000
SHORT_LEASE = {"SIDECAR_LEASE_SECONDS": "3", "SIDECAR_LEASE_RENEW_SECONDS": "0.3"}


@pytest.fixture
def state(start_redis: StartRedis) -> RedisServer:
    """A Redis for the state alone, so that it may go while broker and tasks go on."""
    return start_redis()


@pytest.fixture
def shown(state: RedisServer) -> Iterator[Stored]:
    """What stands in that Redis."""
    with Redis.from_url(state.url) as client:
        yield Stored(client)


@pytest.fixture
def call(celery_app: Celery) -> Callable[..., AsyncResult]:
    """Enqueue a task by its name."""

    def enqueue(name: str, *arguments: Any, **options: Any) -> AsyncResult:
        return celery_app.tasks[f"tests.{name}"].apply_async(arguments, **options)

    return enqueue


Call = Callable[..., AsyncResult]


def _start(start_worker: StartWorker, state_url: str, **options: Any) -> Worker:
    return start_worker(env=SHORT_LEASE | {"SIDECAR_REDIS_URL": state_url}, **options)


# -- states ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_what_a_worker_holds_is_shown(
    pool: str, start_worker: StartWorker, call: Call, stored: Stored, gate: Gate
) -> None:
    """Active, reserved, scheduled: as they are, and gone when they have ended."""
    start_worker(pool=pool, concurrency=1)
    later = call("add", 1, 2, countdown=3600).id
    eventually(lambda: later in stored.waiting)
    running = call("wait_for_file", str(gate)).id
    eventually(lambda: running in stored.active)
    # Solo's main thread is in the task: it receives nothing meanwhile.
    waits = [call("add", 2, 3).id for _ in range(3)]
    if pool == "prefork":
        eventually(lambda: set(waits) <= set(stored.waiting), what="what was fetched is shown")
        assert "reserved" == stored.waiting[waits[0]]["status"]
    assert {running} == set(stored.active)
    scheduled = stored.waiting[later]
    assert "scheduled" == scheduled["status"]
    assert 3500 < scheduled["eta"] - time.time() < 3601
    gate.open()
    eventually(lambda: {running, *waits} <= set(stored.finished))
    assert ({}, {later}) == (stored.active, set(stored.waiting))
    for task_id in (running, *waits):
        assert ["reserved", "active", "completed"] == stored.statuses(task_id)


def test_active_tasks_are_readable_json(
    start_worker: StartWorker, call: Call, stored: Stored, gate: Gate
) -> None:
    """HGETALL queue:active_tasks: who, what, since when, at most 1 KB each, also with 1 MB of arguments and
    with arguments that are no UTF-8."""
    worker = start_worker(concurrency=4)
    plain = call("wait_for_file", str(gate), priority=3)
    huge = call("wait_for_file", str(gate), kwargs={}, argsrepr="x" * MEGABYTE, kwargsrepr="'\n" * MEGABYTE)
    broken = call("wait_for_file", str(gate), argsrepr="\ud83d broken \x00\udcff", kwargsrepr="{'🎉': 1}")
    eventually(lambda: len(stored.active) == 3)
    client: Any = stored.client
    for task_id, record in client.hgetall("queue:active_tasks").items():
        assert len(record) <= RECORD_MAX_BYTES
        told = json.loads(record)
        assert set(TASK_STATUS_FIELDS) <= set(told)
        assert (task_id.decode(), "tests.wait_for_file", "active") == (
            told["task_id"],
            told["task_name"],
            told["status"],
        )
        assert worker.hostname == told["worker"]
        assert told["received_at"] <= told["started_at"] <= time.time()
        assert {"args", "kwargs"} <= set(told)
    active = stored.active
    assert (f"({str(gate)!r},)", "{}", "celery", 1) == tuple(
        active[plain.id][name] for name in ("args", "kwargs", "queue", "attempt")
    )
    assert active[huge.id]["args"].endswith("x…")
    assert ("? broken \x00?", "{'🎉': 1}") == (active[broken.id]["args"], active[broken.id]["kwargs"])
    gate.open()


def test_a_megabyte_of_real_arguments(start_worker: StartWorker, call: Call, stored: Stored) -> None:
    """The message is as large as it is, the record is not."""
    start_worker(pool="solo")
    result = call("big_args", "a" * MEGABYTE, "ü" * MEGABYTE)
    assert 2 * MEGABYTE < result.get(timeout=30)
    eventually(lambda: result.id in stored.finished)
    client: Any = stored.client
    assert client.hstrlen("queue:finished_tasks", result.id) <= RECORD_MAX_BYTES


def test_how_tasks_end(start_worker: StartWorker, call: Call, stored: Stored) -> None:
    """Completed, failed, and retried until it is one of them."""
    start_worker(concurrency=1)
    completed, failed, retried = call("add", 1, 2).id, call("fail", "no luck").id, call("retry_once", 1).id
    eventually(lambda: {completed, failed} <= set(stored.finished))
    eventually(lambda: "completed" in stored.statuses(retried))
    assert "completed" == stored.finished[completed]["status"]
    assert 0 <= stored.finished[completed]["runtime"] < 30
    told = stored.finished[failed]
    assert ("failed", "ValueError('no luck')") == (told["status"], told["exception"])
    assert "Failed: ValueError('no luck')" == told["message"]
    statuses = stored.statuses(retried)
    assert ["reserved", "active"] == statuses[:2]
    assert ["active", "completed"] == statuses[-2:]
    assert "scheduled" in statuses
    assert (2, 1) == (stored.finished[retried]["attempt"], stored.finished[retried]["max_retries"])
    assert ({}, {}, {}) == (stored.active, stored.waiting, stored.runs)


def test_an_id_that_is_odd(start_worker: StartWorker, call: Call, stored: Stored, gate: Gate) -> None:
    """An application may choose its ids: line ends, tabs, quotes and emoji stay what they are."""
    start_worker(concurrency=1)
    odd = 'a\tb\n"c"\x00</script>🎉'
    call("wait_for_file", str(gate), task_id=odd)
    eventually(lambda: odd in stored.active)
    gate.open()
    eventually(lambda: odd in stored.finished)
    assert ["reserved", "active", "completed"] == stored.statuses(odd)


# -- the worker itself -----------------------------------------------------------------------------------


def test_the_worker_is_shown_and_its_lease_renewed(
    start_worker: StartWorker, redis_server: RedisServer, stored: Stored
) -> None:
    """With what the sidecar needs to count its queues; an idle worker renews its lease all the same."""
    worker = _start(start_worker, redis_server.url, concurrency=3, arguments=("-Q", "b,a"))
    (worker_id,) = eventually(lambda: stored.workers)
    record = stored.workers[worker_id]
    expected = {"worker": worker.hostname, "status": "online", "pid": worker.pid, "pool": "prefork"}
    expected |= {"concurrency": 3, "queues": ["a", "b"], "gave_up": 0, "type": "worker_status"}
    assert expected == {name: record[name] for name in expected}
    assert ("redis", [0, 3, 6, 9]) == (record["broker"]["transport"], record["broker"]["priority_steps"])
    assert worker_id.startswith(worker.hostname)
    client: Any = stored.client
    first = client.zscore(stored.keys.leases, worker_id)
    eventually(lambda: client.zscore(stored.keys.leases, worker_id) > first + 0.5, what="it is renewed")
    assert 0 < stored.leases[worker_id] <= 3
    assert ["worker_status"] == [event["type"] for event in stored.events]


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_long_task_does_not_end_the_lease(
    pool: str, start_worker: StartWorker, redis_server: RedisServer, call: Call, stored: Stored, gate: Gate
) -> None:
    """Solo's main thread is in the task; the lease is renewed by another."""
    _start(start_worker, redis_server.url, pool=pool, concurrency=1)
    call("wait_for_file", str(gate))
    eventually(lambda: stored.active)
    (worker_id,) = stored.workers
    client: Any = stored.client
    first = client.zscore(stored.keys.leases, worker_id)
    eventually(lambda: client.zscore(stored.keys.leases, worker_id) > first + 0.5, what="it is renewed")
    gate.open()


def test_a_warm_shutdown_gives_back_what_waits(
    start_worker: StartWorker, redis_server: RedisServer, call: Call, stored: Stored, gate: Gate
) -> None:
    """The last task ends as it ends, the waiting ones go back to the broker, the worker is offline and its
    lease gone; nobody waits for the plugin."""
    worker = start_worker(concurrency=1)
    running = call("wait_for_file", str(gate)).id
    waits = {call("add", 1, 2).id for _ in range(3)}
    later = call("add", 1, 2, countdown=3600).id
    eventually(lambda: running in stored.active and waits | {later} == set(stored.waiting))
    worker.send_signal(15)
    worker.wait_for_line("Warm shutdown")
    assert {running} == set(stored.active)
    gate.open()
    assert 0 == worker.wait()
    assert ({}, {}, {}) == (stored.active, stored.waiting, stored.leases)
    assert [running] == stored.history
    assert "completed" == stored.finished[running]["status"]
    for task_id in waits:
        assert ["reserved", "pending"] == stored.statuses(task_id)
    assert ["scheduled", "pending"] == stored.statuses(later)
    (record,) = stored.workers.values()
    assert "offline" == record["status"]
    client: Any = stored.client
    assert 4 == client.llen("celery")


# -- a state Redis that goes -----------------------------------------------------------------------------


def test_a_state_that_was_lost_is_told_again(
    start_worker: StartWorker, state: RedisServer, shown: Stored, call: Call, gate: Gate
) -> None:
    """Redis restarted empty while tasks run and wait: their records are there again, told under a new epoch,
    and their ends are seen."""
    _start(start_worker, state.url, concurrency=1)
    running, later = call("wait_for_file", str(gate)).id, call("add", 1, 2, countdown=3600).id
    waits = call("add", 1, 2).id
    eventually(lambda: running in shown.active and {waits, later} == set(shown.waiting))
    before, epoch = shown.active[running], shown.log["epoch"]
    state.kill()
    state.start()
    eventually(lambda: running in shown.active and {waits, later} == set(shown.waiting))
    assert epoch != shown.log["epoch"]
    again = shown.active[running]
    own = ("started_at", "received_at", "run", "args", "kwargs", "worker")
    assert [before[name] for name in own] == [again[name] for name in own]
    told = [event for event in shown.events if event["type"] == "task_status"]
    assert sorted([running, waits, later]) == sorted(event["task_id"] for event in told)
    assert 1 == len(shown.workers) == len(shown.leases)
    gate.open()
    eventually(lambda: {running, waits} == set(shown.finished))
    assert ({}, {later}) == (shown.active, set(shown.waiting))


def _freeze(server: RedisServer) -> Callable[[], object]:
    server.pause()
    return server.resume


def _kill(server: RedisServer) -> Callable[[], object]:
    server.kill()
    return server.start


@pytest.mark.parametrize("take_away", [_freeze, _kill])
def test_tasks_go_on_while_redis_is_away(
    take_away: Callable[[RedisServer], Callable[[], object]],
    start_worker: StartWorker,
    state: RedisServer,
    shown: Stored,
    call: Call,
    tmp_path: Path,
) -> None:
    """At full speed; one line when Redis goes, one when it is back, and then the state is exactly right: what
    ended has ended, each event told once."""
    worker = _start(start_worker, state.url, concurrency=4)
    before, after = Gate(tmp_path / "before"), Gate(tmp_path / "after")
    ends_meanwhile, runs_on = call("wait_for_file", str(before)).id, call("wait_for_file", str(after)).id
    eventually(lambda: {ends_meanwhile, runs_on} == set(shown.active))
    bring_back = take_away(state)
    quick = [call("add", n, n) for n in range(20)]
    assert [2 * n for n in range(20)] == [result.get(timeout=30) for result in quick]
    before.open()
    starts_meanwhile = call("wait_for_file", str(after)).id
    worker.wait_for_line("cannot write to Redis")
    bring_back()
    worker.wait_for_line("Redis is back")
    ended = {ends_meanwhile, *(result.id for result in quick)}
    eventually(lambda: ended == set(shown.finished) and {runs_on, starts_meanwhile} == set(shown.active))
    assert {} == shown.waiting
    assert all("completed" == record["status"] for record in shown.finished.values())
    told = [(event["task_id"], event["status"]) for event in shown.events if event["type"] == "task_status"]
    assert len(set(told)) == len(told)
    assert list(range(1, shown.offset + 1)) == [offset for offset, _, _ in shown.entries]
    after.open()
    eventually(lambda: {} == shown.active)
    assert (1, 1) == (worker.output.count("cannot write to Redis"), worker.output.count("Redis is back"))
    assert "Traceback" not in worker.output


def test_a_worker_whose_state_redis_never_was_there_works(
    start_worker: StartWorker, call: Call, free_port: Callable[[], int]
) -> None:
    """One line says so; tasks run, and the worker ends as it should."""
    worker = _start(start_worker, f"redis://127.0.0.1:{free_port()}/0", pool="solo")
    assert 5 == call("add", 2, 3).get(timeout=30)
    worker.wait_for_line("cannot write to Redis")
    assert 5 == call("add", 2, 3).get(timeout=30)
    assert 0 == worker.stop()
    assert 1 == worker.output.count("celery_plugin: cannot write")
    assert "Traceback" not in worker.output


def test_a_wrong_password_stops_no_worker(
    start_worker: StartWorker, start_redis: StartRedis, call: Call
) -> None:
    """Redis's own words say what is wrong; the password is in none of them. Put right, all is told."""
    locked = start_redis("--requirepass", "richtig")
    worker = _start(start_worker, locked.url_db(0, password="geheim"), pool="solo")
    assert 5 == call("add", 2, 3).get(timeout=30)
    worker.wait_for_line("cannot write to Redis.*(WRONGPASS|invalid|password)")
    assert "geheim" not in worker.output
    assert "Traceback" not in worker.output
    with Redis.from_url(locked.url_db(0, password="richtig")) as client:
        client.config_set("requirepass", "geheim")
        eventually(lambda: Stored(client).history, what="the worker tries again")
        assert ["completed"] == [record["status"] for record in Stored(client).finished.values()]


def test_what_an_older_state_still_shows_is_ended(
    start_worker: StartWorker, state: RedisServer, shown: Stored, call: Call, tmp_path: Path
) -> None:
    """Redis restored from an RDB: what ended since is ended again, with the reason `end_not_seen`; what runs
    is shown, also what began since; all under a new epoch."""
    _start(start_worker, state.url, concurrency=3)
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    ended, runs_on = call("wait_for_file", str(first)).id, call("wait_for_file", str(second)).id
    eventually(lambda: {ended, runs_on} == set(shown.active))
    epoch = shown.log["epoch"]
    shown.client.save()
    first.open()
    eventually(lambda: ended in shown.finished)
    began_since = call("wait_for_file", str(second)).id
    eventually(lambda: began_since in shown.active)
    state.kill()
    state.start()
    record = eventually(lambda: shown.finished.get(ended), what="the stray is ended")
    assert ("lost", "end_not_seen", "tests.wait_for_file") == (
        record["status"],
        record["reason"],
        record["task_name"],
    )
    assert {runs_on, began_since} == set(shown.active)
    assert epoch != shown.log["epoch"]
    second.open()
    eventually(lambda: {runs_on, began_since, ended} == set(shown.finished))
    # What Redis still knew rightly became no event.
    assert ["completed"] == shown.statuses(runs_on)
