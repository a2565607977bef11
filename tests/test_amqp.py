"""The sidecar asks RabbitMQ itself how many tasks wait: also when no worker is left to say it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from celery_plugin import askers
from deploy.demo.redis_server import RedisServer
from sidecar import amqp
from sidecar.amqp import AmqpWatcher
from sidecar.depths import QueueDepth
from sidecar.pulse import _join
from tests.support.deadline import eventually
from tests.support.needed import need
from tests.support.processes import Process
from tests.support.prometheus import Prometheus
from tests.support.rabbitmq import RabbitServer
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import make_app
from tests.test_doctor import look

STATUS = "/api/v1/queue/status"
# Far below the time for which a frozen broker is waited for.
AT_ONCE_SECONDS = 1.0


@pytest.fixture
def queue() -> str:
    """A queue of this test alone, which nobody has made yet."""
    return f"mail-{uuid4().hex[:8]}"


@pytest.fixture
def send(rabbit: RabbitServer, queue: str) -> Iterator[Callable[[int], None]]:
    """Send so many tasks into the queue."""
    app = make_app(rabbit.url)

    def send(count: int) -> None:
        for _ in range(count):
            app.send_task("tests.add", (1, 2), queue=queue)

    yield send
    app.close()


def beside(start_sidecar: StartSidecar, url: str, *queues: str, **env: str) -> Sidecar:
    """Start a sidecar that is told of the broker."""
    return start_sidecar(env={"SIDECAR_BROKER_URL": url, "SIDECAR_QUEUES": ",".join(queues), **env})


def pending(sidecar: Sidecar) -> dict[str, int | None]:
    """Queue → how many wait in it."""
    return {queue["name"]: queue["pending"] for queue in sidecar.get(STATUS).json().get("queues", ())}


def lengths(sidecar: Sidecar) -> dict[str, float]:
    """Queue → what Prometheus is told."""
    found = re.findall(r'^celery_queue_length\{queue_name="(.*)"\} (.*)$', sidecar.get("/metrics").text, re.M)
    return {name: float(number) for name, number in found}


def test_no_worker_ever(
    redis_server: RedisServer, rabbit: RabbitServer, queue: str, send: Any, start_sidecar: StartSidecar
) -> None:
    """What waits in a queue that somebody named is counted; one that the broker does not have is not 0."""
    send(3)
    sidecar = beside(start_sidecar, rabbit.url, queue, f"no-{queue}")
    with sidecar.events() as stream:
        stream.until(lambda event: event.event == "queue_status" and event.data["pending_tasks"] == 3)
    assert {queue: 3, f"no-{queue}": None} == pending(sidecar)
    assert {queue: 3} == lengths(sidecar)
    [shown, _] = sorted(sidecar.get(STATUS).json()["queues"], key=lambda each: each["name"])
    assert (0, None) == (shown["consumers"], shown["by_priority"])
    assert abs(time.time() - shown["measured_at"]) < 10
    send(2)
    eventually(lambda: pending(sidecar)[queue] == 5)


def test_the_last_worker_goes(
    redis_server: RedisServer,
    rabbit: RabbitServer,
    queue: str,
    send: Any,
    start_worker: StartWorker,
    start_sidecar: StartSidecar,
) -> None:
    """What is sent after it is counted, also by a sidecar that has never seen a worker."""
    worker = start_worker(
        rabbit.url,
        backend=redis_server.url,
        pool="solo",
        arguments=("-Q", queue),
        env={"SIDECAR_REDIS_URL": redis_server.url},
    )
    sidecar = beside(start_sidecar, rabbit.url)
    eventually(lambda: pending(sidecar) == {queue: 0})
    worker.kill()
    send(2)
    eventually(lambda: lengths(sidecar) == {queue: 2.0})
    assert {queue: 2} == pending(sidecar)
    latecomer = beside(start_sidecar, rabbit.url)
    eventually(lambda: pending(latecomer) == {queue: 2})


def test_a_queue_of_which_only_an_old_record_tells(
    redis_client: Redis, rabbit: RabbitServer, queue: str, send: Any, start_sidecar: StartSidecar
) -> None:
    """Whoever consumed it is forgotten: it is counted all the same, and one that has gone is not shown."""
    send(1)
    for name in (queue, f"no-{queue}"):
        redis_client.hset("queue:depths", name, json.dumps({"pending": 7, "measured_at": 1.0}))
    sidecar = beside(start_sidecar, rabbit.url)
    eventually(lambda: pending(sidecar) == {queue: 1})


def test_alerts_without_a_worker(
    redis_server: RedisServer,
    rabbit: RabbitServer,
    queue: str,
    send: Any,
    start_sidecar: StartSidecar,
    processes: list[Process],
    tmp_path: Path,
) -> None:
    """A hundred messages and one more wait in RabbitMQ and nobody is there: both alerts are on their way."""
    need(shutil.which("prometheus"), "prometheus")
    send(101)
    sidecar = beside(start_sidecar, rabbit.url, queue)
    prometheus = Prometheus(tmp_path, f"127.0.0.1:{sidecar.port}")
    processes.append(prometheus)

    def on_their_way() -> set[str]:
        return {alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"]}

    eventually(lambda: {"CeleryQueueBacksUp", "CeleryQueueWithoutWorker"} <= on_their_way())


def test_a_frozen_broker_holds_nothing_up(
    redis_server: RedisServer, rabbit: RabbitServer, queue: str, send: Any, start_sidecar: StartSidecar
) -> None:
    """Its figures become null, all else is answered at once, a sidecar starts and ends; and when it is back
    it is asked again."""
    send(1)
    sidecar = beside(start_sidecar, rabbit.url, queue)
    with sidecar.events() as stream:
        stream.until(lambda event: event.event == "queue_status" and event.data["pending_tasks"] == 1)
        rabbit.pause()
        try:
            stream.until(lambda event: event.event == "queue_status" and event.data["pending_tasks"] is None)
            assert {queue: None} == pending(sidecar)
            assert {} == lengths(sidecar)
            other = beside(start_sidecar, rabbit.url, queue, SIDECAR_DRAIN_SECONDS="0")
            for path in ("/livez", "/readyz", STATUS, "/metrics"):
                assert 200 == other.get(path, timeout=AT_ONCE_SECONDS).status_code
            other.send_signal(signal.SIGTERM)
            # Its thread would wait for 10 s: for two connections that nobody answers.
            assert 0 == other.wait(5)
        finally:
            rabbit.resume()
        stream.until(lambda event: event.event == "queue_status" and event.data["pending_tasks"] == 1)
    sidecar.wait_for_line("broker: answers again")
    assert 1 == sidecar.output.count("WARNING")


def test_a_broker_that_lets_nobody_in(
    redis_server: RedisServer, rabbit: RabbitServer, queue: str, start_sidecar: StartSidecar
) -> None:
    """The log says why, once and without the password, and all else goes on."""
    sidecar = beside(start_sidecar, rabbit.url.replace("guest@", "hunter2@"), queue)
    sidecar.wait_for_line("broker: .*ACCESS_REFUSED")
    assert {queue: None} == pending(sidecar)
    assert "hunter2" not in sidecar.output


def test_a_user_who_may_do_nothing(
    redis_server: RedisServer, rabbit: RabbitServer, queue: str, send: Any, start_sidecar: StartSidecar
) -> None:
    """A user who may open the virtual host, and neither make, write nor read anything in it, is enough."""
    send(1)
    rabbit.control("add_user", "sidecar", "hunter2")
    try:
        rabbit.control("set_permissions", "sidecar", "^$", "^$", "^$")
        sidecar = beside(start_sidecar, rabbit.url.replace("guest:guest", "sidecar:hunter2"), queue)
        eventually(lambda: pending(sidecar) == {queue: 1})
    finally:
        rabbit.control("delete_user", "sidecar")


def test_what_the_doctor_says(
    redis_server: RedisServer, rabbit: RabbitServer, queue: str, send: Any, sender: Any
) -> None:
    """It asks RabbitMQ itself, too: tasks that wait without a worker are found."""
    send(2)
    report = look(redis_server.url, SIDECAR_BROKER_URL=rabbit.url, SIDECAR_QUEUES=queue)
    assert [f"tasks wait and no worker with the plugin consumes: {queue} (2)"] == report.of(
        "queues", "warning"
    )
    assert "guest:guest" not in report.output


# -- the thread that asks --------------------------------------------------------------------------------


def test_what_is_not_there_is_not_asked_for_all_the_time(
    rabbit: RabbitServer, queue: str, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ logs an error each time: what somebody knows is asked for again after a while, what only an
    old record names after a long one, and neither hides another."""
    monkeypatch.setattr(amqp, "INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(askers, "MISSING_SECONDS", 0.1)
    known, former = f"known-{queue}", f"former-{queue}"

    def errors(name: str) -> int:
        return rabbit.log.read_text().count(f"no queue '{name}'")

    watcher = AmqpWatcher(rabbit.url)
    send(1)
    watcher.watch({known, queue}, {former})
    try:
        eventually(lambda: errors(known) >= 3)
        assert {queue: 1} == {name: depth.pending for name, depth in watcher.depths().items()}
        assert 1 == errors(former)
        monkeypatch.setattr(amqp, "FORMER_SECONDS", 0.1)
        eventually(lambda: errors(former) >= 3)
    finally:
        watcher.stop()


def test_without_celery(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The sidecar starts without it; one line says what is missing."""
    monkeypatch.setitem(sys.modules, "kombu.connection", None)
    watcher = AmqpWatcher("amqp://guest:hunter2@127.0.0.1:1//")
    assert None is watcher.find()
    assert ["WARNING"] == [record.levelname for record in caplog.records]


def test_too_old_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it came about that nobody was told."""
    watcher = AmqpWatcher("amqp://127.0.0.1:1//")
    watcher.on_depth("a", 1)
    assert ["a"] == list(watcher.depths())
    monkeypatch.setattr(amqp, "MAX_AGE_SECONDS", -1.0)
    assert {} == watcher.depths()


def measured(pending: int, age: float) -> QueueDepth:
    """A depth that is so old at second 100."""
    return QueueDepth(pending, None, 100.0 - age)


@pytest.mark.parametrize(
    ("expected", "told", "asked"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": measured(1, 29)}, {}),
        ({"a": 2}, {}, {"a": measured(2, 4)}),
        # The worker lives: it is its broker.
        ({"a": 1}, {"a": measured(1, 7)}, {"a": measured(2, 1)}),
        # It has gone, or cannot ask.
        ({"a": 2}, {"a": measured(1, 9)}, {"a": measured(2, 4)}),
        # Here nobody has asked for long.
        ({"a": 1}, {"a": measured(1, 9)}, {"a": measured(2, 20)}),
        ({"a": 1, "b": 2}, {"a": measured(1, 1)}, {"b": measured(2, 1)}),
    ],
)
def test_whose_word_counts(
    expected: dict[str, int], told: dict[str, QueueDepth], asked: dict[str, QueueDepth]
) -> None:
    """That of a worker which lives, else the newer one."""
    assert expected == {name: depth.pending for name, depth in _join(told, asked, 100.0).items()}
