"""The promises of the script: one batch is one step, for state, log and channel alike."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from threading import Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from celery_plugin.contract import RANKS, Keys, LogEntry, decode_batch
from celery_plugin.operations import Operation
from celery_plugin.settings import Settings
from deploy.demo.redis_server import RedisServer
from sidecar.state import State
from tests.support.batches import Sender, Stored, step, worker_step
from tests.support.deadline import eventually


@pytest.fixture
def one(client: Redis) -> Sender:
    """A worker that has begun."""
    sender = Sender(client)
    sender.begin()
    return sender


@pytest.fixture
def two(client: Redis) -> Sender:
    """Another one."""
    sender = Sender(client, "two")
    sender.begin()
    return sender


# -- offsets, log and channel --------------------------------------------------------------------------


def test_offsets_have_no_hole(client: Redis, stored: Stored) -> None:
    """Every event has the next offset, over several batches, and the answer names the last one."""
    one = Sender(client)
    assert 1 == one.begin().position.offset
    assert 3 == one.send(step("a", "reserved"), step("b", "reserved", "one/2")).position.offset
    assert 3 == one.send().position.offset
    assert 4 == one.send(step("a", "active")).position.offset
    assert [1, 2, 3, 4] == [offset for offset, _, _ in stored.entries]
    assert [1, 2, 3, 4] == [event["offset"] for event in stored.events]


def test_eight_writers_make_one_story(client: Redis, redis_server: RedisServer, stored: Stored) -> None:
    """Channel order is offset order is stream order, also when eight workers write at once."""
    with client.pubsub() as pubsub:
        pubsub.subscribe(stored.keys.events_channel)
        eventually(lambda: pubsub.get_message(timeout=1), what="the subscription is acknowledged")
        writers = [Thread(target=_write, args=(redis_server.url, f"w{n}")) for n in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        published = _published(pubsub, until=8 * 91)
    assert list(range(1, 8 * 91 + 1)) == [entry.offset for entry in published]
    assert [(entry.offset, entry.event, entry.extra) for entry in published] == stored.entries


def _write(url: str, name: str) -> None:
    with Redis.from_url(url) as client:
        sender = Sender(client, name)
        sender.begin()
        for n in range(30):
            run = f"{name}/{n}"
            sender.send(step(run, "reserved", run), step(run, "active", run))
            sender.send(step(run, "completed", run))


def _published(pubsub: object, until: int) -> list[LogEntry]:
    entries: list[LogEntry] = []
    while not entries or entries[-1].offset < until:
        message = pubsub.get_message(timeout=10)  # type: ignore[attr-defined]  # redis-py does not type it
        assert message is not None, f"only {len(entries)} of {until} events came"
        entries += decode_batch(message["data"])[1]
    return entries


def test_a_batch_that_changes_nothing_publishes_nothing(one: Sender, client: Redis, stored: Stored) -> None:
    """A renewed lease wakes no viewer."""
    with client.pubsub() as pubsub:
        pubsub.subscribe(stored.keys.events_channel)
        eventually(lambda: pubsub.get_message(timeout=1))
        one.send(step("a", "reserved"))
        one.send(step("a", "reserved"))
        one.send()
        one.send(step("a", "active"))
        first, _ = decode_batch(pubsub.get_message(timeout=10)["data"])
        second, entries = decode_batch(pubsub.get_message(timeout=10)["data"])
    assert (first.offset + 1, 1) == (second.offset, len(entries))


@pytest.mark.parametrize("count", [1, 88, 89, 90, 91, 500])
def test_the_channel_tells_what_the_log_tells(one: Sender, client: Redis, stored: Stored, count: int) -> None:
    """However many events a batch makes: with more than 89 their message is joined in parts."""
    with client.pubsub() as pubsub:
        pubsub.subscribe(stored.keys.events_channel)
        eventually(lambda: pubsub.get_message(timeout=1), what="the subscription is acknowledged")
        extras = ({}, {"args": "()"}, {"args": "(1,)"})
        one.send(*[step(f"{n}", "reserved", f"one/{n}", extra=extras[n // 2 % 3]) for n in range(count)])
        published = _published(pubsub, until=1 + count)
    assert [(entry.offset, entry.event, entry.extra) for entry in published] == stored.entries[1:]


def test_databases_do_not_hear_each_other(redis_server: RedisServer) -> None:
    """Under a number other than 0 keys stay as they are and the channel carries the number."""
    keys = Keys("queue", 3)
    with Redis.from_url(redis_server.url_db(3)) as client, client.pubsub() as pubsub:
        pubsub.psubscribe("*")
        eventually(lambda: pubsub.get_message(timeout=1))
        Sender(client, keys=keys).begin()
        assert b"3.queue:events" == pubsub.get_message(timeout=10)["channel"]
        assert 1 == client.hlen("queue:workers")


def test_the_stream_is_trimmed(client: Redis, stored: Stored) -> None:
    """The log keeps about as many events as it was told, the newest."""
    one = Sender(client, settings=Settings(log_max=100))
    one.begin()
    for n in range(10):
        one.send(*[step(f"{n}.{m}", "reserved", f"one/{n}.{m}") for m in range(100)])
    offsets = [offset for offset, _, _ in stored.entries]
    assert 100 <= len(offsets) <= 300
    assert 1001 == offsets[-1]


def test_previous_says_what_viewers_saw_before(one: Sender, two: Sender, stored: Stored) -> None:
    """Status and worker of the record before this event, null where there was none."""
    one.send(step("a", "reserved"), step("a", "active"))
    one.send(step("a", "retrying"))
    two.send(step("a", "reserved", "two/1", worker="celery@two"))
    told = [event["previous"] for event in stored.events if event.get("task_id") == "a"]
    assert told == [
        None,
        {"status": "reserved", "worker": "celery@one"},
        {"status": "active", "worker": "celery@one"},
        {"status": "retrying", "worker": "celery@one"},
    ]


def test_steps_within_one_batch_leave_the_last_state_and_all_events(one: Sender, stored: Stored) -> None:
    """A task that is received, runs and ends in one batch is only in the history."""
    one.send(step("a", "reserved"), step("a", "active"), step("a", "completed"))
    assert ["reserved", "active", "completed"] == stored.statuses("a")
    assert ({}, {}, {}, ["a"]) == (stored.waiting, stored.active, stored.runs, stored.history)
    assert "completed" == stored.finished["a"]["status"]


def test_a_record_is_its_event_with_the_extra(one: Sender, stored: Stored) -> None:
    """The hash holds the event of the log and, behind it, what is shown only on request."""
    one.send(step("a", "active", extra={"args": "(1,)", "kwargs": "{}"}, task_name="t"))
    _, event, extra = stored.entries[-1]
    assert {**json.loads(event), **json.loads(extra)} == stored.active["a"]
    assert "args" not in json.loads(event)


# -- batch numbers and the lease ---------------------------------------------------------------------


def test_a_number_seen_before_changes_nothing(one: Sender, stored: Stored) -> None:
    """A batch whose answer was lost is answered `duplicate` with the position it had reached."""
    applied = one.send(step("a", "reserved"), step("a", "active"))
    before = list(stored.raw())
    again = one.send(step("a", "reserved"), step("a", "active"), number=one.number)
    assert ("duplicate", applied.position) == (again.verdict, again.position)
    assert "duplicate" == one.send(step("b", "active"), number=one.number - 1).verdict
    assert before == list(stored.raw())


def test_numbers_are_each_workers_own(one: Sender, two: Sender, stored: Stored) -> None:
    """The same number of another worker is another batch."""
    assert one.number == two.number
    assert "applied" == one.send(step("a", "active")).verdict
    assert "applied" == two.send(step("b", "active", "two/1")).verdict
    assert {"a", "b"} == set(stored.active)


def test_a_worker_without_a_lease_is_told_so(one: Sender, client: Redis, stored: Stored) -> None:
    """`unknown`: the batch counts, the lease is there again, and the worker is to say all it has."""
    client.zrem(stored.keys.leases, "one")
    assert "unknown" == one.send(step("a", "active")).verdict
    assert "applied" == one.send().verdict
    assert {"a"} == set(stored.active)


def test_a_worker_that_redis_never_saw_is_told_so(client: Redis) -> None:
    """The first batch begins with the worker's record and is answered `unknown`."""
    assert "unknown" == Sender(client).begin().verdict


def test_a_batch_without_a_record_to_number_it_is_refused(client: Redis, stored: Stored) -> None:
    """Nothing is applied whose repetition could not be recognised: after a FLUSHALL a call made twice counts
    once, because the worker first says who it is."""
    one = Sender(client)
    one.begin()
    client.flushall()
    operations = (step("a", "reserved"), step("a", "completed"))
    assert "refused" == one.send(*operations).verdict
    assert "refused" == one.send(*operations, number=one.number).verdict
    assert ([], [], {}) == (stored.entries, stored.history, stored.leases)
    assert "unknown" == one.send(worker_step("one"), *operations).verdict
    assert "duplicate" == one.send(worker_step("one"), *operations, number=one.number).verdict
    assert ["reserved", "completed"] == stored.statuses("a")


def test_the_lease_lasts_as_long_as_was_asked(one: Sender, stored: Stored) -> None:
    """It ends by Redis's clock, is renewed with each call, and 0 gives it up."""
    one.send(lease=100.0)
    assert 90 < stored.leases["one"] <= 100
    one.send(lease=20.0)
    assert 10 < stored.leases["one"] <= 20
    one.send(lease=0)
    assert {} == stored.leases


def test_the_worker_record_tells_the_last_batch(one: Sender, stored: Stored) -> None:
    """The number stands in the record and is no event of its own."""
    one.send()
    assert {"type": "worker_status", "batch": 2, "offset": 1, "worker_id": "one", "status": "online"} == (
        stored.workers["one"]
    )
    assert ["worker_status"] == [event["type"] for event in stored.events]
    assert "batch" not in stored.events[0]


# -- runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("later", "earlier"),
    [("active", "reserved"), ("active", "scheduled"), ("active", "active"), ("reserved", "reserved")],
)
def test_a_run_only_moves_forward(one: Sender, stored: Stored, later: str, earlier: str) -> None:
    """What is told late, or twice, is not told."""
    one.send(step("a", later, n=1))
    one.send(step("a", earlier, n=2))
    assert [later] == stored.statuses("a")
    assert 1 == (stored.active | stored.waiting)["a"]["n"]


def test_a_second_run_is_shown_and_the_hidden_one_ends_silently(
    one: Sender, two: Sender, stored: Stored
) -> None:
    """The run that opened last is shown; nobody is told that another one ended."""
    one.send(step("a", "active", "one/1", n=1))
    two.send(step("a", "reserved", "two/1", n=2))
    assert (["one/1", "two/1"], 2) == (stored.runs["a"], stored.waiting["a"]["n"])
    assert {} == stored.active
    one.send(step("a", "completed", "one/1", n=1))
    assert (["two/1"], 2, []) == (stored.runs["a"], stored.waiting["a"]["n"], stored.history)
    two.send(step("a", "active", "two/1", n=2), step("a", "completed", "two/1", n=2))
    assert ["active", "reserved", "active", "completed"] == stored.statuses("a")
    assert 2 == stored.finished["a"]["n"]


@pytest.mark.parametrize("extra", [{}, {"args": "(1,)", "kwargs": "{'k': '}'}"}])
def test_an_older_run_is_shown_again_with_its_own_facts(
    one: Sender, two: Sender, stored: Stored, extra: dict[str, str]
) -> None:
    """When the shown run ends while another is open, that one is shown as it was left."""
    one.send(step("a", "active", "one/1", extra=extra, n=1))
    before = stored.active["a"]
    two.send(step("a", "reserved", "two/1", worker="celery@two", extra={"args": "(2,)"}, n=2))
    two.send(step("a", "completed", "two/1", worker="celery@two", extra={"args": "(2,)"}, n=2))
    after = stored.active["a"]
    assert {"status": "reserved", "worker": "celery@two"} == after["previous"]
    volatile = ("offset", "previous")
    assert _without(before, *volatile) == _without(after, *volatile)
    assert ["one/1"] == stored.runs["a"]
    one.send(step("a", "completed", "one/1"))
    assert ["a"] == stored.history


def _without(record: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in record.items() if name not in names}


def test_a_hidden_run_moves_on_unseen(one: Sender, two: Sender, stored: Stored) -> None:
    """What a run does behind another is known when it comes to the front again."""
    one.send(step("a", "reserved", "one/1"))
    two.send(step("a", "reserved", "two/1"))
    one.send(step("a", "active", "one/1", n=7))
    assert {"a"} == set(stored.waiting)
    two.send(step("a", "rejected", "two/1"))
    assert 7 == stored.active["a"]["n"]
    assert {} == stored.waiting


def test_three_runs_of_one_id(one: Sender, two: Sender, stored: Stored) -> None:
    """They stand behind each other in the order in which they opened, whatever ends first."""
    one.send(step("a", "active", "one/1", n=1))
    two.send(step("a", "active", "two/1", n=2), step("a", "reserved", "two/2", n=3))
    assert (["one/1", "two/1", "two/2"], 3) == (stored.runs["a"], stored.waiting["a"]["n"])
    two.send(step("a", "completed", "two/1", n=2), step("a", "revoked", "two/2", n=3))
    assert (["one/1"], 1) == (stored.runs["a"], stored.active["a"]["n"])


def test_how_a_run_ended_while_another_was_open(one: Sender, two: Sender, stored: Stored) -> None:
    """A task that one worker completed is completed, though another one then loses it or tries it again."""
    ended = round(time.time(), 2) - 100
    for last in ("lost", "retrying", "pending"):
        one.send(step(last, "active", "one/1", n=1))
        two.send(step(last, "active", "two/1", worker="celery@two", n=2))
        two.send(step(last, "completed", "two/1", worker="celery@two", n=2, at=ended))
        assert (["one/1"], []) == (stored.runs[last], [i for i in stored.history if i == last])
        one.send(step(last, last, "one/1", n=1))
        record = stored.finished[last]
        assert ("completed", "celery@two", 2, "()") == tuple(
            record[name] for name in ("status", "worker", "n", "args")
        )
        assert ended == stored.client.zscore(stored.keys.finished, last)
        assert ["active", "active", "active", "completed"] == stored.statuses(last)
    assert {} == stored.runs


def test_a_worker_that_comes_back_late_does_not_undo_an_end(one: Sender, two: Sender, stored: Stored) -> None:
    """It was thought dead, another one completed its task, and only then it tells what its own run became."""
    for late in ("retrying", "pending"):
        one.send(step(late, "active", "one/1", n=1))
        one.send(step(late, "lost", "one/1", kind="end", n=1))
        two.send(step(late, "active", "two/1", worker="celery@two", n=2))
        two.send(step(late, "completed", "two/1", worker="celery@two", n=2))
        one.send(step(late, late, "one/1", n=1))
        assert ("completed", 2) == (stored.finished[late]["status"], stored.finished[late]["n"])
        assert ["active", "lost", "active", "completed"] == stored.statuses(late)


@pytest.mark.parametrize("extra", [{}, {"args": '(",\\"args\\":",)', "kwargs": "{'k': '}'}"}])
def test_a_worker_that_comes_back_to_its_run_does_not_undo_an_end_either(
    one: Sender, two: Sender, stored: Stored, extra: dict[str, str]
) -> None:
    """It was thought dead and still has the task that another one completed: the task is active again, and
    completed as it was when that run brings no end of its own."""
    began, ended = round(time.time(), 2) - 100, round(time.time(), 2) - 50
    ends = {"retrying": "completed", "pending": "completed", "lost": "completed", "failed": "failed"}
    for last, end in ends.items():
        announced = step(last, "active", "one/1", at=began, n=1)
        one.send(announced, step(last, "lost", "one/1", kind="end", n=1))
        two.send(step(last, "active", "two/1", worker="celery@two", n=2))
        two.send(
            step(last, "completed", "two/1", worker="celery@two", at=ended, extra=extra, message='"\\', n=2)
        )
        record = stored.finished[last]
        one.send(announced)
        assert ("active", None) == (stored.active[last]["status"], stored.finished.get(last))
        one.send(step(last, last, "one/1", n=1))
        assert end == stored.finished[last]["status"]
        if end == "completed":
            volatile = ("offset", "previous")
            assert _without(record, *volatile) == _without(stored.finished[last], *volatile)
            assert ended == stored.client.zscore(stored.keys.finished, last)
            assert not {"args", "kwargs"} & set(stored.events[-1])
    assert ({}, {}) == (stored.runs, stored.active)


def test_an_id_that_is_used_again_ends_anew(one: Sender, stored: Stored) -> None:
    """A run that began after an end is another execution: it may be lost though that one completed."""
    now = round(time.time(), 2)
    one.send(step("a", "active", at=now - 20), step("a", "completed", at=now - 10))
    one.send(step("a", "active", "one/2", at=now - 5))
    one.send(step("a", "lost", "one/2"))
    assert "lost" == stored.finished["a"]["status"]


def test_a_run_from_before_an_end_of_the_same_batch(one: Sender, stored: Stored) -> None:
    """The steps of one run go to Redis together, so that what began before an end may stand behind it."""
    now = round(time.time(), 2)
    one.send(
        step("a", "active", "one/1", at=now - 20, n=1),
        step("a", "completed", "one/1", at=now - 5, n=1),
        step("a", "active", "one/2", at=now - 10, n=2),
    )
    assert (["one/2"], []) == (stored.runs["a"], stored.history)
    one.send(step("a", "lost", "one/2", n=2))
    assert ("completed", 1) == (stored.finished["a"]["status"], stored.finished["a"]["n"])
    assert ["active", "completed", "active", "completed"] == stored.statuses("a")


def test_a_second_run_survives_a_record_that_somebody_deleted(
    one: Sender, two: Sender, client: Redis, stored: Stored
) -> None:
    """An operator's DEL of a hash stops no writer; what cannot be shown again is let go."""
    one.send(step("a", "active", "one/1"))
    client.delete(stored.keys.active_tasks)
    two.send(step("a", "active", "two/1", n=2))
    assert (["two/1"], 2) == (stored.runs["a"], stored.active["a"]["n"])
    two.send(step("a", "completed", "two/1"))
    one.send(step("a", "completed", "one/1", kind="end"))
    assert ({}, ["a"]) == (stored.runs, stored.history)


def test_pending_takes_a_task_away_without_history(one: Sender, stored: Stored) -> None:
    """A run given back to the broker is over, the task is not."""
    one.send(step("a", "reserved"))
    one.send(step("a", "pending"))
    assert ["reserved", "pending"] == stored.statuses("a")
    assert ({}, {}, {}, {}, []) == (
        stored.waiting,
        stored.active,
        stored.runs,
        stored.finished,
        stored.history,
    )


def test_a_new_run_takes_a_finished_id_out_of_the_history(one: Sender, stored: Stored) -> None:
    """A retry is no finished task, and `previous` says what it was."""
    one.send(step("a", "active"), step("a", "retrying"))
    assert ["a"] == stored.history
    one.send(step("a", "scheduled", "one/2"))
    assert ([], {}) == (stored.history, stored.finished)
    assert {"status": "retrying", "worker": "celery@one"} == stored.waiting["a"]["previous"]


def test_the_end_of_an_unknown_run_counts(one: Sender, stored: Stored) -> None:
    """What began before Redis forgot everything still has its end in the history."""
    one.send(step("a", "completed"))
    assert ["a"] == stored.history
    assert (None, "completed") == (stored.finished["a"]["previous"], stored.finished["a"]["status"])


def test_the_end_of_an_unknown_run_hides_no_open_one(one: Sender, two: Sender, stored: Stored) -> None:
    """A run that nobody knows and that is over has nothing to show."""
    two.send(step("a", "active", "two/1"))
    one.send(step("a", "completed", "one/1"))
    assert (["active"], []) == (stored.statuses("a"), stored.history)


def test_an_end_operation_counts_only_for_an_open_run(one: Sender, stored: Stored) -> None:
    """What is ended on suspicion must not end what nobody has."""
    one.send(step("a", "lost", kind="end"))
    assert (1, []) == (stored.offset, stored.history)
    one.send(step("a", "active"))
    one.send(step("a", "lost", kind="end"), step("a", "lost", kind="end"))
    assert (["active", "lost"], ["a"]) == (stored.statuses("a"), stored.history)


# -- history -------------------------------------------------------------------------------------------


def test_the_history_is_bounded_by_count(client: Redis, stored: Stored) -> None:
    """The oldest go, record and place together."""
    one = Sender(client, settings=Settings(history_max=3, history_ttl=1e12))
    one.begin()
    for n in range(6):
        one.send(step(f"{n}", "completed", f"one/{n}", at=1000.0 + n))
    assert ["3", "4", "5"] == stored.history
    assert {"3", "4", "5"} == set(stored.finished)


def test_the_history_is_bounded_by_age(one: Sender, client: Redis, stored: Stored) -> None:
    """By Redis's clock, with the next batch of any worker."""
    now = float(client.time()[0])  # type: ignore[index]  # redis-py types one signature for sync and async
    one.send(
        step("old", "completed", "one/1", at=now - 86_500), step("new", "completed", "one/2", at=now - 86_300)
    )
    assert ["new"] == stored.history
    assert {"new"} == set(stored.finished)


def test_a_lowered_bound_is_reached_in_steps(client: Redis, stored: Stored) -> None:
    """At most 1,000 records go with one batch, so that Redis is not blocked."""
    one = Sender(client)
    one.begin()
    for n in range(5):
        one.send(*[step(f"{n}.{m}", "completed", f"one/{n}.{m}", at=4e9) for m in range(500)])
    one.settings = Settings(history_max=100)
    left = []
    for _ in range(3):
        one.send()
        left.append(len(stored.history))
    assert [1500, 500, 100] == left
    assert 100 == len(stored.finished)


# -- epoch ---------------------------------------------------------------------------------------------


def test_the_epoch_lasts(one: Sender, two: Sender) -> None:
    """Whoever writes, and whatever epoch it would have made."""
    assert one.send(epoch="0" * 16).position.epoch == two.send(epoch="1" * 16).position.epoch


def test_a_deleted_log_begins_a_new_epoch(one: Sender, client: Redis, stored: Stored) -> None:
    """Offsets go on from the stream's end, so no record stands ahead of the log; the old stream is gone."""
    before = one.send(step("a", "active"), step("b", "active", "one/2")).position
    client.delete(stored.keys.log)
    after = one.send(step("c", "active", "one/3"), epoch="a" * 16).position
    assert ("a" * 16, before.offset + 1) == after
    assert [after.offset] == [offset for offset, _, _ in stored.entries]


def test_a_log_that_is_damaged_begins_a_new_epoch(one: Sender, client: Redis, stored: Stored) -> None:
    """A field that is missing is as bad as all of them."""
    before = one.send(step("a", "active")).position
    client.hdel(stored.keys.log, "offset")
    after = one.send(step("b", "active", "one/2")).position
    assert before.offset + 1 == after.offset
    assert before.epoch != after.epoch


def test_an_empty_redis_begins_a_new_epoch(one: Sender, redis_server: RedisServer, stored: Stored) -> None:
    """Offsets begin again at 1, under another epoch."""
    before = one.send(step("a", "active")).position
    redis_server.kill()
    redis_server.start()
    after = one.send(worker_step("one"), step("b", "active", "one/2"))
    assert before.epoch != after.position.epoch
    assert ("unknown", 2) == (after.verdict, after.position.offset)
    assert {"b"} == set(stored.active)


def test_a_redis_restored_from_an_older_rdb_begins_a_new_epoch(
    one: Sender, client: Redis, redis_server: RedisServer, stored: Stored
) -> None:
    """Offsets that were given out since the snapshot are given out again, but under another epoch; none is
    lower than a record's, and the old stream is gone."""
    saved = one.send(step("a", "active"), step("b", "active", "one/2")).position
    client.save()
    lost = one.send(step("a", "completed"), step("c", "active", "one/3")).position
    redis_server.kill()
    redis_server.start()
    assert saved.offset == stored.offset
    after = one.send(step("d", "active", "one/4")).position
    assert saved.epoch == lost.epoch != after.epoch
    assert saved.offset + 1 == after.offset <= lost.offset
    assert after.offset > max(record["offset"] for name, record in stored.active.items() if name != "d")
    assert [after.offset] == [offset for offset, _, _ in stored.entries]
    assert {"a", "b", "d"} == set(stored.active)


def test_a_restart_that_loses_nothing_begins_a_new_epoch_once(
    one: Sender, client: Redis, redis_server: RedisServer
) -> None:
    """Nobody can tell it from one that lost something; afterwards the epoch stays."""
    before = one.send(step("a", "active")).position
    client.save()
    redis_server.kill()
    redis_server.start()
    after = one.send()
    assert before.epoch != after.position.epoch
    assert (before.offset, "applied") == (after.position.offset, after.verdict)
    assert after.position == one.send().position


def test_a_script_that_redis_forgot_is_sent_again(one: Sender, client: Redis, stored: Stored) -> None:
    """SCRIPT FLUSH costs a round trip and nothing else."""
    client.script_flush()
    assert "applied" == one.send(step("a", "active")).verdict
    assert ["active"] == stored.statuses("a")


# -- odd texts -----------------------------------------------------------------------------------------

ODD = [
    "line\nend\r\n",
    "tab\tand\ttab",
    'quote " and \\ backslash',
    "nul\x00nul",
    "ünïcödé 任务 🎉",
    "</script><!--",
    '","offset":1,"previous":',
    '{"type":"task_status","status":"active","worker":',
    "%d %s %%",
    "\u2028\u2029",
]


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_survive(one: Sender, two: Sender, stored: Stored, text: str) -> None:
    """In ids, worker names, members and extra, through every form in which a run is kept."""
    odd = {"worker": text, "extra": {"args": text}, "note": text}
    one.send(step(text, "active", "one/1", **odd))
    two.send(step(text, "active", "two/1", worker="celery@two"))
    two.send(step(text, "completed", "two/1", worker="celery@two"))
    record = stored.active[text]
    assert (text, text, text, text) == (record["task_id"], record["worker"], record["args"], record["note"])
    one.send(step(text, "completed", "one/1", **odd))
    one.send(step(text, "active", "one/2", **odd))
    assert {"status": "completed", "worker": text} == stored.active[text]["previous"]
    assert ({text: ["one/2"]}, []) == (stored.runs, stored.history)


def test_ids_that_are_no_utf8_survive_as_text(one: Sender, stored: Stored) -> None:
    """A lone surrogate becomes `?`, in the key as in the record; the empty id is an id."""
    one.send(step("bad\udcff", "active", "one/1"), step("", "active", "one/2"))
    assert {"bad?", ""} == set(stored.active)
    assert "bad?" == stored.active["bad?"]["task_id"]


def test_an_odd_worker_id_keeps_its_numbers(client: Redis, stored: Stored) -> None:
    """Leases and batch numbers work under any id."""
    one = Sender(client, 'w"\\ 任务%d')
    one.begin()
    one.send(step("a", "active"))
    assert "duplicate" == one.send(step("a", "completed"), number=2).verdict
    assert {one.worker_id} == set(stored.workers) == set(stored.leases)


# -- whatever comes ------------------------------------------------------------------------------------

_steps = st.builds(
    lambda kind, task, run, status: step(
        f"t{task}", status, f"r{task}.{run}", kind=kind, worker=f"w{run}", extra={}, n=run
    ),
    st.sampled_from(["task", "task", "task", "end"]),
    st.integers(0, 2),
    st.integers(0, 3),
    st.sampled_from(sorted(RANKS)),
)


@settings(
    max_examples=60,
    deadline=None,
    # The server is emptied at the start of each example.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(batches=st.lists(st.lists(_steps, max_size=8), max_size=8))
def test_state_and_log_tell_the_same_story(
    client: Redis, stored: Stored, batches: list[list[Operation]]
) -> None:
    """Whatever steps come in whatever order: no id is in two places, every open run belongs to a record, and
    a reader that knows only the events has the state of the hashes."""
    client.flushall()
    one = Sender(client)
    one.begin()
    for batch in batches:
        one.send(*batch)
        _check(stored)


def _check(stored: Stored) -> None:
    active, waiting, finished = stored.active, stored.waiting, stored.finished
    assert not active.keys() & waiting.keys()
    assert not (active.keys() | waiting.keys()) & finished.keys()
    assert stored.runs.keys() == active.keys() | waiting.keys()
    assert sorted(stored.history) == sorted(finished)
    for task_id, record in (active | waiting).items():
        assert stored.runs[task_id][-1] == record["run"]
    reader = State()
    for offset, event, extra in stored.entries:
        reader.apply(LogEntry(offset, event, extra), json.loads(event))
    assert {key: json.loads(task.record) for key, task in reader.active.items()} == active
    assert {key: json.loads(task.record) for key, task in reader.waiting.items()} == waiting
    _check_previous(stored)


def _check_previous(stored: Stored) -> None:
    events = [event for event in stored.events if event["type"] == "task_status"]
    for task_id in {event["task_id"] for event in events}:
        own = [event for event in events if event["task_id"] == task_id]
        for before, after in pairwise(own):
            # A task that went back to the broker has left, so nothing stands before what comes next.
            seen = (
                None
                if before["status"] == "pending"
                else {
                    "status": before["status"],
                    "worker": before["worker"],
                }
            )
            assert seen == after["previous"]
