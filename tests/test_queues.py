"""The queues as they are shown: each depth from whoever can know it, and null where nobody can."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from celery_plugin.contract import JSON
from deploy.demo.redis_server import RedisServer
from sidecar.depths import QueueDepth
from sidecar.pulse import _depth
from sidecar.queues import Sources, list_queues, sum_of
from tests.support.batches import Sender
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar
from tests.support.writing import task, worker, writing

STATUS = "/api/v1/queue/status"
AMQP = {"transport": "amqp"}
ELSEWHERE = {"SIDECAR_BROKER_URL": "amqp://127.0.0.1:1//"}


@pytest.fixture
def sender(redis_server: RedisServer) -> Iterator[Sender]:
    """A worker of `redis_server`, not announced yet."""
    with writing(redis_server.url) as sender:
        yield sender


def write_depth(client: Redis, queue: str, pending: int, age: float = 0.0) -> float:
    """Write what a worker measured; return when it did."""
    at = round(time.time() - age, 6)
    client.hset("queue:depths", queue, json.dumps({"pending": pending, "measured_at": at}))
    return at


def figures(sidecar: Sidecar) -> Any:
    """The figures of now."""
    return sidecar.get(STATUS).json()


def pending(shown: Any) -> dict[str, int | None]:
    """Queue → how many wait in it."""
    return {queue["name"]: queue["pending"] for queue in shown["queues"]}


def test_another_broker(sender: Sender, redis_client: Redis, start_sidecar: StartSidecar) -> None:
    """What the workers measured is shown with its time; null where nobody did; too old is not known."""
    sender.send(worker(queues=["a", "b", "old"], broker=AMQP), task("t", "active"))
    at = write_depth(redis_client, "a", 7)
    write_depth(redis_client, "old", 3, age=31)
    sidecar = start_sidecar(env=ELSEWHERE)
    with sidecar.events() as stream:
        stream.until(lambda event: event.event == "queue_status" and event.data["pending_tasks"] == 7)
    shown = figures(sidecar)
    assert {"a": 7, "b": None, "old": None} == pending(shown)
    assert (7, 8, None) == (shown["pending_tasks"], shown["total_tasks"], shown["oldest_waiting_s"])
    measured = {queue["name"]: (queue["measured_at"], queue["by_priority"]) for queue in shown["queues"]}
    assert {"a": (at, None), "b": (None, None), "old": (None, None)} == measured
    redis_client.delete("queue:depths")
    eventually(lambda: figures(sidecar)["pending_tasks"] is None)
    assert None is figures(sidecar)["total_tasks"]


def test_workers_that_say_so(sender: Sender, redis_client: Redis, start_sidecar: StartSidecar) -> None:
    """Where the sidecar was not told of the broker, the workers' word counts: lists of the Redis that holds
    the state say nothing."""
    sender.send(worker(broker=AMQP))
    write_depth(redis_client, "celery", 5)
    sidecar = start_sidecar()
    eventually(lambda: figures(sidecar)["pending_tasks"] == 5)
    assert {"celery": 5} == pending(figures(sidecar))


def test_both(
    sender: Sender, redis_server: RedisServer, redis_client: Redis, start_sidecar: StartSidecar
) -> None:
    """Workers of one Redis may have two brokers: each queue is counted where it is, and one of both names
    twice."""
    sender.send(worker(queues=["here", "same"]))
    with writing(redis_server.url, "two") as other:
        other.send(worker("two", queues=["there", "same"], broker=AMQP))
    redis_client.lpush("here", "x")
    redis_client.lpush("same", "x", "y")
    write_depth(redis_client, "there", 10)
    write_depth(redis_client, "same", 20)
    sidecar = start_sidecar()
    expected = {"here": 1, "there": 10, "same": 22, "celery": 0}
    eventually(lambda: pending(figures(sidecar)) == expected)
    assert 33 == figures(sidecar)["pending_tasks"]
    redis_client.hdel("queue:depths", "same")
    eventually(lambda: pending(figures(sidecar)) == expected | {"same": None})
    assert 11 == figures(sidecar)["pending_tasks"]


def test_consumers_follow_the_leases(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Who has lost its lease consumes nothing."""
    sender.send(worker(queues=["celery", "b"]), lease=0.5)
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        stream.until(lambda event: event.event == "queue_status" and event.data["workers_online"] == 0)
    assert {"celery": 0, "b": 0} == {
        queue["name"]: queue["consumers"] for queue in figures(sidecar)["queues"]
    }


def depth(number: int, at: float = 1.0) -> QueueDepth:
    """A depth of a list."""
    return QueueDepth(number, {0: number}, at)


REDIS: JSON = {"worker_id": "one", "queues": ["a"]}


@pytest.mark.parametrize(
    ("expected", "workers", "sources"),
    [
        ({"x": None, "a": None}, [REDIS], Sources(None, {})),
        ({"x": None, "a": None}, [REDIS], Sources(None, {"a": depth(5)})),
        ({"x": None, "a": 5}, [REDIS], Sources({}, {"a": depth(5)})),
        ({"x": None, "a": 7}, [REDIS], Sources({"a": depth(2)}, {"a": depth(5)})),
        ({"x": None, "b": 2}, [], Sources({"b": depth(2)}, {})),
        ({"x": None, "b": 2, "c": 1}, [], Sources({"b": depth(2)}, {"c": depth(1)})),
    ],
)
def test_sources(expected: dict[str, int | None], workers: list[JSON], sources: Sources) -> None:
    """What could not be asked is null, also where something else could."""
    queues = list_queues(workers, ["x"], sources)
    assert expected == {queue["name"]: queue["pending"] for queue in queues}
    known = [number for number in expected.values() if number is not None]
    assert (sum(known) if known else None) == sum_of(queues)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"pending":1}',
        b'{"pending":"1","measured_at":1}',
        b'{"pending":1,"measured_at":"x"}',
    ],
)
def test_odd_depths(text: bytes) -> None:
    """What is no depth is not known."""
    assert None is _depth(text, 1.0)


@given(
    st.integers() | st.floats() | st.text() | st.none(), st.integers() | st.floats() | st.text() | st.none()
)
def test_any_depth(number: object, at: object) -> None:
    """A depth that is shown is a number of its time."""
    found = _depth(json.dumps({"pending": number, "measured_at": at}).encode(), 1000.0)
    assert found is None or (isinstance(found.pending, int) and abs(found.measured_at - 1000) <= 30)
