"""How long the task that is taken next has waited at least: from when it was first seen there."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from sidecar import heads as heads_module
from sidecar.depths import BrokerFacts, Reading
from sidecar.heads import MESSAGE_MAX_BYTES, Heads, task_id_of
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import Gate

FACTS = BrokerFacts()


def message(task_id: str) -> bytes:
    """A message as kombu puts it into a list."""
    return json.dumps({"body": "W10=", "headers": {"id": task_id}, "properties": {}}).encode()


def oldest(sidecar: Sidecar) -> Any:
    """What the figures say."""
    return sidecar.get("/api/v1/queue/status").json().get("oldest_waiting_s")  # 503 at first


def test_with_a_real_worker(
    start_sidecar: StartSidecar, start_worker: StartWorker, celery_app: Celery, gate: Gate
) -> None:
    """Null while nothing waits; then it grows with the clock, until a worker takes the task."""
    sidecar = start_sidecar()
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    assert oldest(sidecar) is None
    sent = time.monotonic()
    celery_app.send_task("tests.add", [1, 2])
    first = eventually(lambda: oldest(sidecar))
    celery_app.send_task("tests.add", [3, 4])
    later = eventually(lambda: (now := oldest(sidecar)) > 1.2 and now)
    assert first < later <= time.monotonic() - sent
    start_worker()
    eventually(lambda: oldest(sidecar) is None)


def test_the_next_one_begins_anew(start_sidecar: StartSidecar, redis_client: Redis) -> None:
    """When the head is taken its clock is not that of the next one."""
    redis_client.lpush("celery", message("a"), message("b"))
    sidecar = start_sidecar()
    eventually(lambda: (oldest(sidecar) or 0) > 1.5)
    redis_client.rpop("celery")
    eventually(lambda: 0 < (oldest(sidecar) or 0) < 1.5)


def test_a_quiet_queue_is_quiet(start_sidecar: StartSidecar, redis_client: Redis) -> None:
    """That a task waits longer is no news: who watches has the clock."""
    redis_client.lpush("celery", message("a"))
    with start_sidecar().events() as stream:
        stream.until(
            lambda event: event.event == "queue_status" and event.data["oldest_waiting_s"] is not None
        )
        with pytest.raises(AssertionError, match="no event within"):
            stream.until_type("queue_status", seconds=1.5)


def test_by_priority() -> None:
    """Of each queue the list is looked at from which kombu takes first, if anything is in it."""
    lists = {FACTS.key(queue, step): [(queue, step)] for queue in "ab" for step in FACTS.priority_steps}
    lengths = {("a", 3): 1, ("a", 6): 5, ("b", 0): 2, ("b", 9): 1}
    readings = {FACTS.key(*at): Reading(lengths.get(at, 0), 1.0) for queue in lists.values() for at in queue}
    heads = Heads()
    heads.note_change(lists)
    assert {FACTS.key("a", 3), FACTS.key("b", 0)} == set(heads.due(lists, readings))


def test_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy list is looked at now and then, a quiet one never; a list that is empty again is forgotten."""
    key = FACTS.key("a", 0)
    lists, readings = {key: [("a", 0)]}, {key: Reading(1, 1.0)}
    heads = Heads()
    heads.note_change([key])
    assert [key] == heads.due(lists, readings)
    heads.take(key, [message("x")])
    assert (float("inf"), []) == (heads.next_look, heads.due(lists, readings))
    heads.note_change([key])
    assert 0 < heads.next_look - time.monotonic() <= heads_module.INTERVAL_SECONDS
    assert [] == heads.due(lists, readings)
    assert heads.oldest_since is not None
    monkeypatch.setattr(heads, "_next_look", 0.0)
    assert [] == heads.due(lists, {key: Reading(0, 1.0)})
    assert None is heads.oldest_since


def test_the_same_task() -> None:
    """As long as it is the same task its clock goes on; what cannot be read has none."""
    heads, key = Heads(), b"celery"
    heads.take(key, [message("a")])
    since = heads.oldest_since
    heads.take(key, [message("a") + b" "])
    assert since == heads.oldest_since
    for answer in ([], [b"nonsense"], RuntimeError("refused"), None):
        heads.take(key, [message("a")])
        heads.take(key, answer)
        assert None is heads.oldest_since


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("a", message("a")),
        ("b", b'{"headers":{},"properties":{"correlation_id":"b"}}'),
        (None, b'{"headers":{"id":5},"properties":{}}'),
        (None, b'{"headers":[],"properties":{}}'),
        (None, b"[]"),
        (None, b"\xff"),
        (None, b"[" * 100_000),
        (None, message("a" * MESSAGE_MAX_BYTES)),
        (None, "text"),
    ],
)
def test_ids(expected: str | None, text: object) -> None:
    """The id is found where Celery puts it, and whatever else stands in a list is no fault."""
    assert expected == task_id_of(text)


@given(st.binary(max_size=50) | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)))
def test_any_message(value: Any) -> None:
    """Whatever somebody puts into a list, there is an id or none."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    assert isinstance(task_id_of(text), str | None)
