"""The promises of what is told of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis import Redis

from celery_plugin.contract import JSON, RANKS, RECORD_MAX_BYTES
from celery_plugin.operations import Operation
from celery_plugin.record import message, tell
from celery_plugin.runs import Run
from celery_plugin.texts import cut, encode_text
from celery_plugin.worker import new_worker_id, shown_name
from tests.support.batches import Sender, Stored, worker_step

HUGE = 1_000_000
RUN = Run(
    id="celery@one:0123456789ab/7",
    task_id="3f0b8b9e-8e0d-4e6c-9d53-0a3c8d1f2b4a",
    task_name="app.tasks.generate",
    args="('a', 1)",
    kwargs="{'n': 2}",
    queue="celery",
    attempt=1,
    max_retries=3,
    priority=None,
    root_id="3f0b8b9e-8e0d-4e6c-9d53-0a3c8d1f2b4a",
    parent_id=None,
    group_id=None,
    received_at=1_700_000_000.25,
    eta=None,
    status="reserved",
    updated_at=1_700_000_000.25,
)

# Every character there is, lone surrogates too, some texts as long as a producer may send them.
_characters = st.characters(exclude_categories=())
_texts = st.builds(
    lambda text, times: text * times, st.text(_characters, max_size=40), st.sampled_from([0, 1, 2, 10, 500])
)
_ids = st.none() | st.uuids().map(str)
_times = st.floats(1e9, 4e9)
_runs = st.builds(
    Run,
    id=st.just(""),
    task_id=st.uuids().map(str),
    task_name=_texts,
    args=_texts,
    kwargs=_texts,
    queue=st.none() | _texts,
    attempt=st.integers(1, 10_000),
    max_retries=st.none() | st.integers(0, 10_000),
    priority=st.none() | st.integers(0, 255),
    root_id=_ids,
    parent_id=_ids,
    group_id=_ids,
    received_at=_times,
    eta=st.none() | _times,
    status=st.sampled_from(sorted(RANKS)),
    updated_at=_times,
    started_at=st.none() | _times,
    finished_at=st.none() | _times,
    runtime=st.none() | st.floats(0, 1e6),
    exception=st.none() | _texts,
    reason=st.sampled_from([None, "expired", "terminated", "requeued", "worker_exited", "end_not_seen"]),
)
_FULL = replace(
    RUN,
    task_name="n" * HUGE,
    args="a" * HUGE,
    kwargs="\ud800" * HUGE,
    queue="🎉" * HUGE,
    attempt=10_000,
    max_retries=10_000,
    priority=255,
    root_id=str(UUID(int=1)),
    parent_id=str(UUID(int=2)),
    group_id=str(UUID(int=3)),
    eta=1_700_000_000.123456,
    started_at=1_700_000_000.123456,
    finished_at=1_700_000_000.123456,
    runtime=123_456.123456,
    exception="\x00" * HUGE,
    reason="worker_exited",
    status="failed",
)


@settings(
    max_examples=150,
    deadline=None,
    # The server is emptied at the start of each example.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(run=_runs, hostname=_texts, other=_texts)
@example(run=_FULL, hostname="celery@" + "h" * 300, other="celery@" + "o" * 300)
@example(run=_FULL, hostname="🎉" * 300, other="\x00" * 300)
@example(run=replace(RUN, args="\x00" * 5000, kwargs="'" * 5000), hostname="w", other="celery@" + "o" * 300)
def test_a_record_takes_at_most_1_kb(client: Redis, run: Run, hostname: str, other: str) -> None:
    """Whatever name, arguments, exception and workers are, with the head that the script writes: at an offset
    far away, and behind a run of another worker. It is JSON on one line and says whose it is."""
    client.flushall()
    stored = Stored(client)
    one = Sender(client)
    one.begin()
    client.hset(stored.keys.log, "offset", 10**13)
    before = replace(RUN, id="", task_id=run.task_id, task_name="", args="", kwargs="", status="scheduled")
    one.send(_operation(before, other))
    one.send(_operation(run, hostname))
    record = _stored_record(client, stored, run)
    if record is not None:
        assert len(record) <= RECORD_MAX_BYTES
        assert run.task_id == json.loads(record)["task_id"]
    for _, event, extra in stored.entries:
        assert len(event) + len(extra) <= RECORD_MAX_BYTES
        assert b"\n" not in event + extra


def _operation(run: Run, hostname: str) -> Operation:
    run = replace(run, id=f"{new_worker_id(hostname)}/{10**6}")
    return _tell(run, encode_text(shown_name(hostname)))


def _stored_record(client: Redis, stored: Stored, run: Run) -> bytes | None:
    keys = stored.keys
    for key in (keys.active_tasks, keys.waiting_tasks, keys.finished_tasks):
        record: Any = client.hget(key, run.task_id)
        if record is not None:
            return bytes(record)
    return None


def _tell(run: Run, worker: str) -> Operation:
    (told,) = tell(run, [(run.status, run.updated_at)], worker)
    return told


def _members(told: Operation) -> JSON:
    """What stands in a step besides what the script writes."""
    moving = told.steps.split("\t")[4:] or ['"updated_at":0']
    members: JSON = json.loads(f"{{{told.facts}{moving[0]}}}")
    return members


def test_what_is_short_is_told_whole(client: Redis) -> None:
    """An ordinary record loses nothing."""
    one = Sender(client)
    one.begin()
    run = replace(RUN, status="active", started_at=1_700_000_001.5, updated_at=1_700_000_001.5)
    one.send(_tell(run, '"celery@one"'))
    assert Stored(client).active == {
        RUN.task_id: {
            "type": "task_status",
            "status": "active",
            "worker": "celery@one",
            "offset": 2,
            "previous": None,
            "message": "Running",
            "task_id": RUN.task_id,
            "task_name": "app.tasks.generate",
            "position": None,
            "queue": "celery",
            "attempt": 1,
            "max_retries": 3,
            "received_at": 1_700_000_000.25,
            "started_at": 1_700_000_001.5,
            "updated_at": 1_700_000_001.5,
            "timestamp": 1_700_000_001.5,
            "run": RUN.id,
            "args": "('a', 1)",
            "kwargs": "{'n': 2}",
        }
    }


@pytest.mark.parametrize("status", ["reserved", "scheduled", "active"])
def test_what_the_script_says_of_a_short_step(client: Redis, status: str) -> None:
    """It is what the worker says where there is little room; only what is long is cut."""
    one = Sender(client)
    one.begin()
    short = replace(RUN, status=status, task_name="n")
    events = []
    for run in (short, replace(short, task_name="🎉" * HUGE, queue="🎉" * HUGE)):
        one.send(_tell(replace(run, task_id=f"{len(events)}"), '"celery@one"'))
        events.append(Stored(client).events[-1])
    varying = ("offset", "task_id", "task_name", "queue")
    plain, cut_short = [{k: v for k, v in event.items() if k not in varying} for event in events]
    assert plain == cut_short
    assert events[0]["queue"] == RUN.queue
    assert events[1]["queue"] != RUN.queue


_ODD_IDS = ["a\x1fb", "a\tb", "\x1f", "tasks\x1f", "\x1f" * 6, "a\nb", "\ud800"]


@pytest.mark.parametrize("odd", _ODD_IDS)
def test_ids_that_look_like_separators(client: Redis, odd: str) -> None:
    """An application gives ids as it likes: a batch with such an id says the same."""
    one, runs = Sender(client), [replace(RUN, task_id=task_id) for task_id in ("before", odd, "behind")]
    one.begin()
    one.send(*(_tell(run, '"celery@one"') for run in runs))
    shown = [id_.encode("utf-8", "replace").decode() for id_ in ("before", odd, "behind")]
    assert shown == [event.get("task_id") for event in Stored(client).events[1:]]
    assert set(shown) == set(Stored(client).waiting)


def test_a_batch_keeps_its_order(client: Redis) -> None:
    """What stands between steps stays between them."""
    one, stored = Sender(client), Stored(client)
    one.begin()
    first, then = replace(RUN, task_id="first"), replace(RUN, task_id="then", id="celery@one:1/8")
    one.send(_tell(first, '"w"'), worker_step("one", status="stopping"), _tell(then, '"w"'))
    assert ["first", None, "then"] == [event.get("task_id") for event in stored.events[1:]]


def test_a_queue_that_is_not_known_is_left_out() -> None:
    """What nobody said is no empty text."""
    assert "queue" not in _members(_tell(replace(RUN, queue=None), '"w"'))


def test_long_arguments_share_the_room() -> None:
    """Both are cut with an ellipsis, and one that is short leaves its room to the other."""
    long = replace(RUN, args="a" * HUGE, kwargs="k" * HUGE)
    extra = json.loads(_tell(long, '"w"').extra)
    assert len(extra["args"]) == pytest.approx(len(extra["kwargs"]), abs=10)
    assert extra["args"].endswith("a…")
    assert extra["kwargs"].endswith("k…")
    alone = json.loads(_tell(replace(RUN, args="a" * HUGE, kwargs="{}"), '"w"').extra)
    assert "{}" == alone["kwargs"]
    assert len(alone["args"]) > 1.9 * len(extra["args"])


def test_the_same_run_is_told_with_the_same_facts_until_its_end() -> None:
    """What is made once for a run fits also when it has failed with a long exception."""
    run = replace(RUN, args="a" * HUGE, kwargs="k" * HUGE)
    first = json.loads(_tell(run, '"w"').extra)
    run.status, run.started_at = "active", 1_700_000_001.0
    assert first == json.loads(_tell(run, '"w"').extra)
    run.status, run.finished_at, run.exception = "failed", 1_700_000_002.0, "ValueError('" + "x" * 500 + "')"
    told = _tell(run, '"w"')
    assert first["args"].startswith(json.loads(told.extra)["args"][:-1])
    assert "ValueError('xxx" == _members(told)["exception"][:15]


@pytest.mark.parametrize("name", ["n", "🎉" * HUGE])
def test_steps_that_are_told_together(name: str) -> None:
    """Each says what it would have said alone; what a run ends with is told with its end."""
    ended = {"status": "completed", "started_at": 1_700_000_001.5, "finished_at": 1_700_000_002.5}
    run = replace(
        RUN, task_name=name, queue=name, result="done", runtime=1.0, updated_at=1_700_000_002.5, **ended
    )
    steps = [("reserved", RUN.received_at), ("active", 1_700_000_001.5), ("completed", 1_700_000_002.5)]
    alone = [
        *tell(replace(RUN, task_name=name, queue=name), steps[:1], '"w"'),
        *tell(replace(run, status="active", finished_at=None, result=None), steps[1:2], '"w"'),
        *tell(replace(run), steps[2:], '"w"'),
    ]
    together = list(tell(run, steps, '"w"'))
    assert [step for told in alone for step in told.steps.split("\n")] == [
        step for told in together for step in told.steps.split("\n")
    ]
    extras = [json.loads(told.extra) for told in together]
    assert [{"args", "kwargs"}] * (len(extras) - 1) + [{"args", "kwargs", "result"}] == list(map(set, extras))
    assert len(extras) == (2 if name == "n" else 3)


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        ("Waiting for a free slot in the worker", {"status": "reserved"}),
        ("Waiting for its time", {"status": "scheduled"}),
        ("Running", {"status": "active"}),
        ("Completed in 1.5 s", {"status": "completed", "runtime": 1.5}),
        ("Completed in 0.000123 s", {"status": "completed", "runtime": 0.0001234}),
        ("Completed", {"status": "completed"}),
        ("Failed: ValueError('no')", {"status": "failed", "exception": "ValueError('no')"}),
        ("Failed", {"status": "failed"}),
        ("Retrying: ValueError('no')", {"status": "retrying", "exception": "ValueError('no')"}),
        ("Retrying", {"status": "retrying"}),
        ("Returned to the queue", {"status": "pending"}),
        ("Expired before it ran", {"status": "revoked", "reason": "expired"}),
        ("Its worker ended before it did", {"status": "lost", "reason": "worker_exited"}),
    ],
)
def test_messages_are_sentences(expected: str, changes: dict[str, Any]) -> None:
    """Whoever reads only `message` knows what the task does."""
    assert expected == message(replace(RUN, **changes))


@pytest.mark.parametrize("status", sorted(RANKS))
def test_every_status_has_a_message(status: str) -> None:
    """None is forgotten."""
    assert message(replace(RUN, status=status))


@pytest.mark.parametrize(
    ("expected", "text", "length"),
    [("abc", "abc", 3), ("ab…", "abcd", 3), ("…", "abcd", 1), ("", "", 5), ("🎉…", "🎉🎉🎉", 2)],
)
def test_cut_says_that_something_is_missing(expected: str, text: str, length: int) -> None:
    """By an ellipsis, which counts."""
    assert expected == cut(text, length)


@settings(deadline=None)
@given(text=st.text(_characters))
def test_encode_text_is_json_on_one_line(text: str) -> None:
    """Whatever is in it, also where it is no Unicode text."""
    encoded = encode_text(text)
    assert text == json.loads(encoded)
    assert not {"\n", "\r", "\t", "\x00"} & set(encoded)
