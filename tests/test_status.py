"""The figures of the queue are those of one moment: what waits, what workers hold, what runs."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from celery_plugin.contract import QUEUE_STATUS_FIELDS
from deploy.demo.redis_server import RedisServer
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.sse import EventStream
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import Gate
from tests.support.writing import task, worker, writing

STATUS = "/api/v1/queue/status"


def totals(stream: EventStream) -> list[int]:
    """What the queue_status events said in all."""
    return [event.data["total_tasks"] for event in stream.seen if event.event == "queue_status"]


def parts(figures: Any) -> int:
    """Pending, reserved, scheduled and active together."""
    return sum(figures[f"{name}_tasks"] for name in ("pending", "reserved", "scheduled", "active"))


def test_a_burst(
    start_sidecar: StartSidecar, start_worker: StartWorker, celery_app: Celery, gate: Gate
) -> None:
    """50 tasks on a worker of 2 are 50 at once, never more, and then only fewer, down to 0."""
    start_worker()
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        stream.until_type("live")
        for number in range(50):
            # The first two occupy the worker until all are sent.
            name, argument = ("tests.wait_for_file", str(gate)) if number < 2 else ("tests.sleep_for", 0.03)
            celery_app.send_task(name, [argument])
        stream.until(lambda event: event.event == "queue_status" and event.data["total_tasks"] == 50)
        figures = eventually(lambda: _if_total(sidecar, 50))
        assert 2 == figures["active_tasks"]
        gate.open()
        stream.until(lambda event: event.event == "queue_status" and event.data["total_tasks"] == 0)
    seen = totals(stream)
    since_all = seen[seen.index(50) :]
    assert 50 == max(seen)
    assert sorted(since_all, reverse=True) == since_all
    assert all(
        parts(event.data) == event.data["total_tasks"]
        for event in stream.seen
        if event.event == "queue_status"
    )


def _if_total(sidecar: Sidecar, total: int) -> Any:
    figures = sidecar.get(STATUS).json()
    return figures if figures["total_tasks"] == total and figures["active_tasks"] == 2 else None


def test_before_any_worker(start_sidecar: StartSidecar, celery_app: Celery) -> None:
    """20 tasks that nobody takes are seen within 100 ms, in an answer and in a stream, without an event."""
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        stream.until(lambda event: event.event == "queue_status" and event.data["pending_tasks"] == 0)

        def seconds_until_seen(total: int) -> float:
            for _ in range(20):
                celery_app.send_task("tests.add", [1, 2])
            sent = time.monotonic()
            answer = sidecar.get(STATUS).json()
            assert total == answer["pending_tasks"]
            assert set(QUEUE_STATUS_FIELDS) <= answer.keys()
            stream.until(lambda event: event.event == "queue_status" and event.data["pending_tasks"] == total)
            return time.monotonic() - sent

        # The machine may be busy with something else for a while.
        assert any(seconds_until_seen(20 * number) < 0.1 for number in range(1, 11))
    assert {"snapshot", "live", "queue_status"} == {event.event for event in stream.seen} - {"stale", "fresh"}


def test_a_quiet_queue_is_quiet(start_sidecar: StartSidecar) -> None:
    """Nothing is told when nothing changes."""
    with start_sidecar().events() as stream:
        stream.until_type("queue_status")
        with pytest.raises(AssertionError, match="no event within"):
            stream.until_type("queue_status", seconds=1.5)


def test_a_broker_that_cannot_be_asked(start_sidecar: StartSidecar) -> None:
    """What could not be asked is null, never 0."""
    sidecar = start_sidecar(env={"SIDECAR_BROKER_URL": "amqp://127.0.0.1:1//"})
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    answer = sidecar.get(STATUS).json()
    assert (None, None, 0) == (answer["pending_tasks"], answer["total_tasks"], answer["active_tasks"])


def test_failures_of_the_last_hour(
    redis_client: Redis, redis_server: RedisServer, start_sidecar: StartSidecar
) -> None:
    """They are counted by the minute, and an hour old ones no more; null where that cannot be read."""
    sidecar = start_sidecar()
    with writing(redis_server.url) as sender:
        sender.send(worker(), task("a", "failed"), task("b", "failed"), task("c", "completed"))
    eventually(lambda: sidecar.get(STATUS).json()["failed_last_hour"] == 2)
    seconds: Any = redis_client.time()
    minute = seconds[0] // 60
    counts = {minute - 58: 10, minute - 61: 100, minute + 2: 1000}
    redis_client.hset("queue:counters", mapping={f'["failed",{each}]': n for each, n in counts.items()})
    eventually(lambda: sidecar.get(STATUS).json()["failed_last_hour"] == 12)
    for odd in ("x", "9" * 5000):
        redis_client.hset("queue:counters", f'["failed",{minute}]', odd)
        eventually(lambda: sidecar.get(STATUS).json()["failed_last_hour"] is None)
    assert "Traceback" not in sidecar.output
