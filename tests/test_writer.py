"""The promises of the writer: nothing twice, nothing endless, and afterwards the state is right again."""

from __future__ import annotations

import itertools
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from celery_plugin.connections import make_client
from celery_plugin.contract import RECORD_MAX_BYTES, Keys
from celery_plugin.events import RECEIVED
from celery_plugin.outbox import OUTBOX_MAX
from celery_plugin.runs import Run, read_run
from celery_plugin.script import Script
from celery_plugin.settings import Settings
from celery_plugin.worker import WorkerRecord
from celery_plugin.writer import ABSORB_MAX, BUFFER_MAX, LAST_WORDS_SECONDS, Writer
from deploy.demo.redis_server import RedisServer
from tests.support.batches import Sender, Stored, step
from tests.support.deadline import eventually
from tests.support.proxy import Proxy
from tests.support.starters import StartRedis
from tests.support.unstarted import unstarted_worker

WORKER_ID = "celery@one:0123456789ab"
StartWriter = Callable[..., Writer]


@pytest.fixture
def make_writer() -> Iterator[StartWriter]:
    """Make writers of one worker; they end with the test."""
    writers: list[Writer] = []

    def make(url: str, renew: float = 0.1, lease: float = 5.0) -> Writer:
        settings = Settings(lease_seconds=lease, lease_renew_seconds=renew)
        record = WorkerRecord(worker, WORKER_ID)
        writers.append(Writer(Script(Keys()), make_client(url), settings, record))
        return writers[-1]

    with unstarted_worker("celery@one") as worker:
        yield make
        for writer in writers:
            writer.stop()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """A proxy before Redis."""
    with Proxy(redis_server.port) as opened:
        yield opened


def _start(writer: Writer, stored: Stored) -> None:
    writer.start()
    eventually(lambda: WORKER_ID in stored.workers, what="the worker is announced")


def _receive(writer: Writer, task_id: str, **headers: Any) -> Run:
    facts = {"id": task_id, "task": "tests.add", "argsrepr": "(1, 2)", "kwargsrepr": "{}", "root_id": task_id}
    run = read_run(f"{WORKER_ID}/{task_id}", facts | headers, "celery", 3)
    writer.observe(RECEIVED, {}, run)
    return run


def _run(writer: Writer, task_id: str) -> Run:
    run = _receive(writer, task_id)
    writer.observe("task-started", {}, run)
    return run


def _end(writer: Writer, run: Run) -> None:
    writer.observe("task-succeeded", {"runtime": 0.1}, run)


# -- answers that are lost -----------------------------------------------------------------------------


def test_a_batch_whose_answer_is_lost_counts_once(
    make_writer: StartWriter, stored: Stored, proxy: Proxy
) -> None:
    """Redis has applied it and the writer cannot know: it is sent again under its number."""
    writer = make_writer(proxy.url)
    _start(writer, stored)
    for task_id in ("a", "b", "c"):
        proxy.lose_answer()
        run = _run(writer, task_id)
        proxy.wait_until_lost()
        _end(writer, run)
        eventually(lambda task_id=task_id: task_id in stored.finished, what="the writer goes on")
    for task_id in ("a", "b", "c"):
        assert ["reserved", "active", "completed"] == stored.statuses(task_id)
    assert list(range(1, stored.offset + 1)) == [offset for offset, _, _ in stored.entries]


def test_what_redis_said_in_a_lost_answer_is_not_missed(
    make_writer: StartWriter, stored: Stored, proxy: Proxy, client: Redis
) -> None:
    """A worker that was cut off, and whose tasks others took for lost, says again what it has, even if the
    answer that told it so never came."""
    writer = make_writer(proxy.url)
    _start(writer, stored)
    _run(writer, "a")
    run = eventually(lambda: stored.active.get("a"))["run"]
    proxy.lose_answer()
    pipeline = client.pipeline()
    pipeline.zrem(stored.keys.leases, WORKER_ID)
    pipeline.execute()
    peer = Sender(client, "peer")
    peer.begin()
    peer.send(step("a", "lost", run, kind="end"))
    proxy.wait_until_lost()
    _receive(writer, "b")
    eventually(lambda: "a" in stored.active, what="the task is active again")
    assert [] == stored.history


def test_a_redis_that_forgot_everything_is_told_everything(
    make_writer: StartWriter, stored: Stored, client: Redis
) -> None:
    """FLUSHALL without a restart: a new epoch, the worker, its lease and its tasks, each once."""
    writer = make_writer(client_url(client))
    _start(writer, stored)
    run = _run(writer, "a")
    eventually(lambda: "a" in stored.active)
    epoch = stored.log["epoch"]
    client.flushall()
    _end(writer, run)
    _run(writer, "b")
    eventually(lambda: "b" in stored.active and "a" in stored.finished)
    assert {WORKER_ID} == set(stored.workers) == set(stored.leases)
    assert epoch != stored.log["epoch"]
    assert (["completed"], ["reserved", "active"]) == (stored.statuses("a")[-1:], stored.statuses("b"))
    assert list(range(1, stored.offset + 1)) == [offset for offset, _, _ in stored.entries]


def client_url(client: Redis) -> str:
    """The URL of the server to which a client talks."""
    options = client.connection_pool.connection_kwargs
    return f"redis://{options['host']}:{options['port']}/0"


def test_a_task_whose_receipt_was_given_up(make_writer: StartWriter, stored: Stored, client: Redis) -> None:
    """It is shown from its start on, and announced like the others; its arguments are redacted as always."""
    writer = make_writer(client_url(client))
    _start(writer, stored)
    headers = {"id": "a", "task": "tests.add", "argsrepr": "('x',)", "kwargsrepr": "{'password': 'hunter2'}"}
    run = read_run(f"{WORKER_ID}/a", headers, "celery", 3)
    writer.observe("task-started", {}, run)
    eventually(lambda: "a" in stored.active)
    client.flushall()
    eventually(lambda: "a" in stored.active, what="it is announced")
    assert "{'password': '[redacted]'}" == stored.active["a"]["kwargs"]


# -- a Redis that is away ------------------------------------------------------------------------------


def test_what_happens_while_redis_is_away_is_told_afterwards(
    make_writer: StartWriter, stored: Stored, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says that Redis is away, one that it is back."""
    caplog.set_level(logging.INFO, "celery_plugin")
    writer = make_writer(redis_server.url)
    _start(writer, stored)
    run = _run(writer, "a")
    eventually(lambda: "a" in stored.active)
    redis_server.kill()
    _end(writer, run)
    _run(writer, "b")
    eventually(lambda: "cannot write" in caplog.text)
    redis_server.start()
    eventually(lambda: "b" in stored.active and "a" in stored.finished)
    eventually(lambda: "Redis is back" in caplog.text)
    assert 2 == len(caplog.records)
    assert ({"b"}, {}, ["a"]) == (set(stored.active), stored.waiting, stored.history)
    assert 0 == stored.workers[WORKER_ID]["gave_up"]


def test_the_outbox_is_bounded_and_counts_what_it_gave_up(
    make_writer: StartWriter, start_redis: StartRedis, free_port: Callable[[], int]
) -> None:
    """The newest states are kept; whatever was given up, what is open is all there when Redis comes."""
    port = free_port()
    writer = make_writer(f"redis://127.0.0.1:{port}/0")
    writer.start()
    _run(writer, "long")
    tasks = OUTBOX_MAX + 2000
    for n in range(tasks):
        _end(writer, _run(writer, f"{n}"))
    _run(writer, "last")
    highest = 0
    while writer.backlog[0]:
        highest = max(highest, writer.backlog[1])
    assert OUTBOX_MAX // 2 < highest <= OUTBOX_MAX + ABSORB_MAX
    with Redis.from_url(start_redis(port=port).url) as client:
        stored = Stored(client)
        eventually(lambda: {"long", "last"} <= set(stored.active), what="what is open is there")
        gave_up = eventually(lambda: stored.workers[WORKER_ID]["gave_up"], what="the loss is counted")
        # What had reached Redis as waiting, and was then given up, is found by a search that comes after.
        eventually(lambda: ({"long", "last"}, {}) == (set(stored.active), stored.waiting))
        eventually(lambda: f"{tasks - 1}" in stored.finished)
        assert gave_up >= tasks - OUTBOX_MAX
        assert len(stored.entries) <= 3 * OUTBOX_MAX


def test_the_buffer_is_bounded_and_counts_what_it_gave_up(make_writer: StartWriter, stored: Stored) -> None:
    """Also where the writer cannot keep up, or has not yet begun."""
    writer = make_writer(client_url(stored.client))
    for _ in range(BUFFER_MAX + 7):
        writer.observe("task-sent", {"uuid": "a"})
    _start(writer, stored)
    assert 7 == stored.workers[WORKER_ID]["gave_up"]


def test_an_event_that_is_not_understood_holds_up_no_other(
    make_writer: StartWriter, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and counted."""
    writer = make_writer(client_url(stored.client))
    _start(writer, stored)
    writer.observe("task-cancelled", {}, _receive(writer, "bad"))
    _run(writer, "good")
    eventually(lambda: "good" in stored.active)
    eventually(lambda: 1 == stored.workers[WORKER_ID]["gave_up"])
    assert "an event is given up: task-cancelled" in caplog.text


def test_a_task_that_cannot_be_told_holds_up_no_other(
    make_writer: StartWriter, stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and counted, whenever it is announced."""
    writer = make_writer(client_url(stored.client))
    _receive(writer, "bad", parent_id=object())
    _run(writer, "good")
    _start(writer, stored)
    eventually(lambda: "good" in stored.active)
    eventually(lambda: stored.workers[WORKER_ID]["gave_up"])
    assert "what a task did is given up: bad" in caplog.text
    assert {} == stored.waiting


def test_an_end_that_was_a_guess_is_told_before_the_end(
    make_writer: StartWriter, stored: Stored, client: Redis
) -> None:
    """Also where both fall into one batch: each event has its own reason, and the record the last one."""
    writer = make_writer(client_url(client))
    run = _run(writer, "a")
    writer.observe("task-cancelled", {"returns": False, "reason": "end_not_seen"}, run)
    _end(writer, run)
    _start(writer, stored)
    eventually(lambda: "a" in stored.history)
    told = [(event["status"], event.get("reason")) for event in stored.events if event.get("task_id") == "a"]
    assert [("reserved", None), ("active", None), ("lost", "end_not_seen"), ("completed", None)] == told
    assert "completed" == stored.finished["a"]["status"]


# -- a Redis that refuses --------------------------------------------------------------------------------


def test_a_key_that_is_somebody_elses(
    make_writer: StartWriter, stored: Stored, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """One line names it and what to do, another tells that it is over; nothing is given up meanwhile."""
    writer = make_writer(client_url(client))
    _start(writer, stored)
    client.set(stored.keys.active_tasks, "mine")
    _run(writer, "a")
    _end(writer, _run(writer, "b"))
    eventually(lambda: "queue:active_tasks is a string, not a hash" in caplog.text)
    client.delete(stored.keys.active_tasks)
    eventually(lambda: "Redis is back" in caplog.text)
    # It may have been the renewal of the lease that was refused, and is the first to be taken.
    eventually(lambda: ({"a"}, {}, ["b"]) == (set(stored.active), stored.waiting, stored.history))
    assert 2 == len(caplog.records)
    assert "SIDECAR_PREFIX" in caplog.records[0].getMessage()
    assert 0 == stored.workers[WORKER_ID]["gave_up"]


def test_a_step_that_redis_refuses_is_given_up_alone(
    make_writer: StartWriter, stored: Stored, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a batch that fails although Redis is well, everything else is told; one line names what is not."""
    writer = make_writer(client_url(client))
    _start(writer, stored)
    # A line that the script cannot read, as another version might leave it.
    client.hset(stored.keys.runs, "bad", "x\t2\tactive")
    tasks = [f"{n}" for n in range(40)]
    runs = {task_id: _run(writer, task_id) for task_id in (*tasks[:20], "bad", *tasks[20:])}
    eventually(lambda: set(tasks) == set(stored.active))
    eventually(lambda: stored.workers[WORKER_ID]["gave_up"])
    [record] = caplog.records
    assert re.search("given up, .*: task bad: .*no line of a run", record.getMessage())
    assert all(["reserved", "active"] == stored.statuses(task_id) for task_id in tasks)
    client.hdel(stored.keys.runs, "bad")
    _end(writer, runs["bad"])
    eventually(lambda: "bad" in stored.finished)
    started = [
        number for (name, *_), number in stored.counters.items() if name == "celery_task_started_total"
    ]
    assert [41] == started


def test_a_redis_that_refuses_any_batch(
    make_writer: StartWriter, start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its words, if it does not take an empty one either, nothing is given up."""
    odd = start_redis("--rename-command", "EVALSHA", "", "--rename-command", "EVAL", "")
    writer = make_writer(odd.url)
    writer.start()
    _run(writer, "a")
    eventually(lambda: "cannot write to Redis" in caplog.text)
    _run(writer, "b")
    odd.stop()
    with Redis.from_url(start_redis(port=odd.port).url) as client:
        stored = Stored(client)
        eventually(lambda: {"a", "b"} == set(stored.active))
        assert 0 == stored.workers[WORKER_ID]["gave_up"]
    assert "unknown command" in caplog.records[0].getMessage()
    assert "given up" not in caplog.text


def test_a_redis_that_forgets_the_script(
    make_writer: StartWriter, stored: Stored, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """SCRIPT FLUSH is no outage, and no line tells of it."""
    writer = make_writer(client_url(client))
    _start(writer, stored)
    for task_id in ("a", "b", "c"):
        client.script_flush()
        _run(writer, task_id)
        eventually(lambda task_id=task_id: task_id in stored.active)
    assert [] == caplog.records


def test_a_record_that_somebody_has_overwritten(
    make_writer: StartWriter, stored: Stored, client: Redis
) -> None:
    """The worker's own is written anew."""
    writer = make_writer(client_url(client))
    _start(writer, stored)
    client.hset(stored.keys.workers, WORKER_ID, "[]")
    _run(writer, "a")
    eventually(lambda: "a" in stored.active)
    assert WORKER_ID == stored.workers[WORKER_ID]["worker_id"]


def test_viewers_that_cannot_be_told_at_once(
    make_writer: StartWriter, stored: Stored, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A channel that the user may not use leaves the state right; a line says so, and one that it is over."""
    lease = 1.0
    writer = make_writer(client_url(client), lease=lease)
    _start(writer, stored)
    client.execute_command("ACL", "SETUSER", "default", "resetchannels")
    for task_id in ("a", "b", "c"):
        _run(writer, task_id)
        eventually(lambda task_id=task_id: task_id in stored.active)
    eventually(lambda: "does not take everything" in caplog.text)
    client.execute_command("ACL", "SETUSER", "default", "allchannels")
    numbers = itertools.count()

    def is_over() -> bool:
        _run(writer, f"{next(numbers)}")
        return "takes everything again" in caplog.text

    eventually(is_over)
    assert 2 == len(caplog.records)
    assert "PUBLISH queue:events: " in caplog.records[0].getMessage()


# -- strays --------------------------------------------------------------------------------------------


def _leave_stray(client: Redis, task_id: str, **members: Any) -> None:
    """Leave a run of the worker in Redis that the worker does not have."""
    ghost = Sender(client, "ghost")
    ghost.number = 100 + len(Stored(client).runs)
    ghost.begin()
    ghost.send(step(task_id, "active", f"{WORKER_ID}/99{task_id}", worker="celery@one", **members))


def test_a_run_that_the_worker_does_not_have_is_ended(
    make_writer: StartWriter, stored: Stored, client: Redis
) -> None:
    """Once Redis says that it has lost track: `lost`, with the reason `end_not_seen`."""
    writer = make_writer(client_url(client))
    _start(writer, stored)
    _run(writer, "mine")
    eventually(lambda: "mine" in stored.active)
    _leave_stray(client, "gone", task_name="tests.add", extra={"args": "(1,)", "kwargs": "{}"})
    client.zrem(stored.keys.leases, WORKER_ID)
    record = eventually(lambda: stored.finished.get("gone"))
    assert ("lost", "end_not_seen", "tests.add") == (record["status"], record["reason"], record["task_name"])
    assert ("(1,)", "celery@one") == (record["args"], record["worker"])
    assert {"mine"} == set(stored.active)


def test_the_end_of_a_full_record_takes_no_more_than_1_kb(
    make_writer: StartWriter, stored: Stored, client: Redis
) -> None:
    """What is added at the end takes its room from the arguments."""
    writer = make_writer(client_url(client))
    _start(writer, stored)
    full = {"args": "a" * 300, "kwargs": "k" * 300}
    _leave_stray(client, "gone", extra=full, task_name="n" * 150, message="Running")
    client.zrem(stored.keys.leases, WORKER_ID)
    record: Any = eventually(lambda: client.hget(stored.keys.finished_tasks, "gone"))
    assert len(record) <= RECORD_MAX_BYTES
    assert json.loads(record)["args"].endswith("a…")


def test_the_end_of_a_deleted_record_is_whole(
    make_writer: StartWriter, stored: Stored, client: Redis
) -> None:
    """Somebody's DEL of a hash leaves an event without facts, but with the fields that all have."""
    writer = make_writer(client_url(client))
    _start(writer, stored)
    _leave_stray(client, "gone")
    client.delete(stored.keys.active_tasks)
    client.zrem(stored.keys.leases, WORKER_ID)
    record = eventually(lambda: stored.finished.get("gone"))
    assert ("gone", "", None) == (record["task_id"], record["task_name"], record["position"])


def test_a_search_that_broke_off_is_made_again(
    make_writer: StartWriter, stored: Stored, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """What Redis would not tell at first is ended when it does."""
    writer = make_writer(client_url(client))
    _start(writer, stored)
    _leave_stray(client, "gone")
    client.execute_command("ACL", "SETUSER", "default", "-hscan")
    client.zrem(stored.keys.leases, WORKER_ID)
    eventually(lambda: "cannot look for" in caplog.text, what="the search is refused")
    _run(writer, "meanwhile")
    eventually(lambda: "meanwhile" in stored.active, what="nothing else is held up")
    client.execute_command("ACL", "SETUSER", "default", "+hscan")
    eventually(lambda: "gone" in stored.finished)
    eventually(lambda: "goes on" in caplog.text)
    assert 2 == len(caplog.records)


# -- the end -------------------------------------------------------------------------------------------


def test_last_words(make_writer: StartWriter, stored: Stored) -> None:
    """What was only held goes back, what ran is over, the worker is offline and its lease given up."""
    writer = make_writer(client_url(stored.client))
    _start(writer, stored)
    _run(writer, "ran")
    _receive(writer, "held")
    writer.stop()
    assert ({}, {}, {}) == (stored.active, stored.waiting, stored.leases)
    assert "offline" == stored.workers[WORKER_ID]["status"]
    assert ["reserved", "pending"] == stored.statuses("held")
    assert ("lost", "worker_exited") == (stored.finished["ran"]["status"], stored.finished["ran"]["reason"])
    assert [1] == [
        number for (name, *_), number in stored.counters.items() if name == "celery_task_lost_total"
    ]


def test_stopping_waits_once(make_writer: StartWriter, stored: Stored) -> None:
    """A worker that is told twice to end, or that never began, is not held up."""
    begun = make_writer(client_url(stored.client))
    _start(begun, stored)
    begun.stop()
    never_begun = make_writer(client_url(stored.client))
    before = time.monotonic()
    begun.stop()
    never_begun.stop()
    assert time.monotonic() - before < LAST_WORDS_SECONDS / 2


def test_a_frozen_redis_does_not_hold_the_end_up(
    make_writer: StartWriter, stored: Stored, redis_server: RedisServer
) -> None:
    """The last words are given a moment and no more."""
    writer = make_writer(redis_server.url)
    _start(writer, stored)
    redis_server.pause()
    _run(writer, "a")
    before = time.monotonic()
    writer.stop()
    assert time.monotonic() - before < LAST_WORDS_SECONDS + 2
    redis_server.resume()


@pytest.mark.parametrize("heard", [0, 1])
def test_last_words_that_are_not_heard_are_one_line(
    make_writer: StartWriter, stored: Stored, proxy: Proxy, caplog: pytest.LogCaptureFixture, heard: int
) -> None:
    """A Redis that vanishes in the worker's last moment leaves no traceback."""
    writer = make_writer(proxy.url, renew=4.0)
    _start(writer, stored)
    proxy.lose_answer(after=heard)
    writer.stop()
    proxy.wait_until_lost()
    assert [False] == [bool(record.exc_info) for record in caplog.records]
