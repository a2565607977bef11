"""Redis away, gone, empty, frozen or refusing: told clearly, waited for, and nothing missed afterwards."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from celery_plugin.contract import Position
from deploy.demo.redis_server import RedisServer
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.sse import EventStream
from tests.support.starters import StartRedis, StartSidecar
from tests.support.writing import life, task, worker, writing

QUESTIONS = ("/readyz", *(f"/api/v1/queue/{name}" for name in ("status", "tasks", "tasks/a", "workers")))


def status_of(sidecar: Sidecar, path: str) -> int:
    """Ask and return the status."""
    return sidecar.get(path, timeout=10).status_code


def begin(stream: EventStream) -> str:
    """Take the snapshot; return the position behind it."""
    return stream.until_type("live").id


def deltas(stream: EventStream) -> list[int]:
    """The offsets of the log's events so far."""
    own = [event for event in stream.seen if event.own_id and event.event != "live"]
    return [Position.parse(event.id).offset for event in own]


def warnings_of(sidecar: Sidecar) -> list[str]:
    """The lines that are more than information."""
    return [line for line in sidecar.output.splitlines() if not re.search(r" (INFO|DEBUG) ", line)]


def assert_calm(sidecar: Sidecar, lines: int = 40) -> None:
    """No traceback, no error, and no flood of lines."""
    assert "Traceback" not in sidecar.output
    assert " ERROR " not in sidecar.output
    assert len(sidecar.output.splitlines()) < lines, sidecar.output


def test_down_at_start(start_redis: StartRedis, start_sidecar: StartSidecar) -> None:
    """The sidecar starts, says what is wrong, lives, is not ready, and shows everything once Redis comes."""
    server = start_redis()
    server.stop()
    sidecar = start_sidecar(server.url)
    [line] = [sidecar.wait_for_line(r"WARNING.*cannot read Redis.*").group()]
    assert str(server.port) in line
    assert 200 == status_of(sidecar, "/livez")
    for path in QUESTIONS:
        answer = sidecar.get(path)
        assert (503, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
        assert int(answer.headers["retry-after"]) >= 1
    with sidecar.events() as stream:
        assert (200, "stale") == (stream.status, stream.next().event)
        server.start()
        with writing(server.url) as sender:
            sender.send(worker(), task("a", "active"))
            begin(stream)
            last = sender.send(task("a", "completed"))
            stream.until(lambda event: event.id == str(last.position))
    assert ["stale", "fresh", "snapshot"] == [event.event for event in stream.seen[:3]]
    assert 200 == status_of(sidecar, "/readyz")
    assert 1 == sidecar.output.count("cannot read Redis")
    assert_calm(sidecar)


def test_frozen(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """A Redis that stops answering is told within 8 s; afterwards comes exactly what was missed."""
    sidecar = start_sidecar()
    with writing(redis_server.url) as sender, sidecar.events() as stream:
        sender.send(worker())
        begin(stream)
        eventually(lambda: status_of(sidecar, "/readyz") == 200)
        redis_server.pause()
        cpu, frozen_at = cpu_seconds(sidecar), time.monotonic()
        eventually(lambda: status_of(sidecar, "/readyz") == 503, seconds=8)
        stream.until_type("stale", seconds=8 - (time.monotonic() - frozen_at))
        assert 200 == status_of(sidecar, "/livez")
        eventually(lambda: time.monotonic() - frozen_at > 9)
        # Asking /readyz and /livez costs a little, too.
        assert cpu_seconds(sidecar) - cpu < 1.0
        redis_server.resume()
        last = sender.send(*life("a"))
        stream.until(lambda event: event.id == str(last.position))
        eventually(lambda: "fresh" in [event.event for event in stream.seen])
        eventually(lambda: status_of(sidecar, "/readyz") == 200)
    assert list(range(deltas(stream)[0], 5)) == deltas(stream)
    assert not [event for event in stream.seen if event.event == "reset"]
    assert_calm(sidecar)


def cpu_seconds(sidecar: Sidecar) -> float:
    """The CPU time that the sidecar has used, without its children (it has none)."""
    fields = Path(f"/proc/{sidecar.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_killed_and_restarted_with_its_data(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """A lost Redis is told at once; when it is back with its data, nothing was missed or told twice."""
    with writing(redis_server.url) as sender, Redis.from_url(redis_server.url) as client:
        sender.send(worker(), task("a", "active"))
        sidecar = start_sidecar()
        with sidecar.events() as stream:
            begin(stream)
            client.save()
            redis_server.kill()
            stream.until_type("stale", seconds=2)
            for path in QUESTIONS:
                assert 503 == status_of(sidecar, path)
            redis_server.start()
            stream.until_type("fresh")
            # Another run id of the server: the script begins a new epoch, and says so.
            last = sender.send(task("a", "completed"))
            assert "epoch" == stream.until_type("reset").data["reason"]
            assert str(last.position) == begin(stream)
        assert {"tasks": [], "next": None} == sidecar.get("/api/v1/queue/tasks").json()
    assert_calm(sidecar)


def test_restarted_empty(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """When Redis comes back without its data, viewers start over with what there is now."""
    with writing(redis_server.url) as sender:
        sender.send(worker(), task("a", "active"))
        sidecar = start_sidecar()
        with sidecar.events() as stream:
            begin(stream)
            redis_server.kill()
            stream.until_type("stale", seconds=2)
            redis_server.start()
            assert "epoch" == stream.until_type("reset").data["reason"]
            assert [] == stream.until_type("snapshot").data["tasks"]
            begin(stream)
            sender.number = 0
            last = sender.send(worker(), *life("b"))
            stream.until(lambda event: event.id == str(last.position))
        assert [1, 2, 3, 4] == deltas(stream)[-4:]
    assert_calm(sidecar)


def test_emptied(redis_client: Redis, redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """FLUSHALL under a running sidecar ends in a reset too, at the latest when the next event comes."""
    with writing(redis_server.url) as sender:
        sender.send(worker(), task("a", "active"))
        sidecar = start_sidecar()
        with sidecar.events() as stream:
            begin(stream)
            redis_client.flushall()
            sender.number = 0
            last = sender.send(worker(), task("b", "active"))
            assert "epoch" == stream.until_type("reset").data["reason"]
            [shown] = stream.until_type("snapshot").data["tasks"]
            assert "b" == shown["task_id"]
            assert str(last.position) == begin(stream)
    assert_calm(sidecar)


def test_wrong_password(start_redis: StartRedis, start_sidecar: StartSidecar) -> None:
    """A refused login is told clearly, never with the password, and tried again ever less often."""
    server = start_redis("--requirepass", "right-one")
    sidecar = start_sidecar(server.url_db(0, "sidecar", "wr0ng-one"))
    assert re.search("(?i)password", sidecar.wait_for_line(r"WARNING.*cannot read Redis.*").group())
    with Redis.from_url(server.url_db(0, password="right-one")) as client:
        before = logins(client)
        since = time.monotonic()
        eventually(lambda: time.monotonic() - since > 4)
        # Three loops (events, depths, bindings) and the leases, each every 1 to 2 s in the end.
        assert 1 <= logins(client) - before <= 40
    assert 503 == status_of(sidecar, "/readyz")
    assert "wr0ng-one" not in sidecar.output
    assert_calm(sidecar)


def logins(client: Redis) -> int:
    """How many connections there ever were."""
    info: Any = client.info("stats")
    return int(info["total_connections_received"])


def test_another_reason_is_told(start_redis: StartRedis, start_sidecar: StartSidecar) -> None:
    """When Redis comes back and refuses the login, that is told although it was away before."""
    server = start_redis()
    server.stop()
    sidecar = start_sidecar(server.url_db(0, "sidecar", "wr0ng-one"))
    sidecar.wait_for_line(r"WARNING.*cannot read Redis")
    server.start()
    sidecar.wait_for_line(r"WARNING.*cannot read Redis.*(?i:password)")
    assert "wr0ng-one" not in sidecar.output
    assert_calm(sidecar)


def test_forbidden(start_redis: StartRedis, start_sidecar: StartSidecar) -> None:
    """A user that may not read the log is told so, and no state that was not read is shown."""
    server = start_redis()
    with Redis.from_url(server.url) as client:
        client.acl_setuser("sidecar", enabled=True, commands=["-hmget"])
        sidecar = start_sidecar(server.url)
        sidecar.wait_for_line(r"WARNING.*cannot read Redis.*hmget")
        assert 503 == status_of(sidecar, "/api/v1/queue/tasks")
        client.acl_setuser("sidecar", enabled=True, commands=["+hmget"])
        eventually(lambda: status_of(sidecar, "/api/v1/queue/tasks") == 200)
    assert_calm(sidecar)


def test_killed_connections(
    redis_client: Redis, redis_server: RedisServer, start_sidecar: StartSidecar
) -> None:
    """Whichever connections Redis kills, and however often, nothing is missed and nothing told twice."""
    kinds: list[Callable[[], object]] = [
        lambda: redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"),
        lambda: redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
    ]
    with writing(redis_server.url) as sender:
        sender.send(worker())
        sidecar = start_sidecar()
        with sidecar.events() as stream:
            begin(stream)
            for number in range(12):
                sender.send(task(f"t{number}", "active"))
                kinds[number % 2]()
                last = sender.send(task(f"t{number}", "completed"))
                stream.until(lambda event, last=last: event.id == str(last.position))
        assert list(range(2, 26)) == deltas(stream)
    assert not [event for event in stream.seen if event.event == "reset"]
    eventually(lambda: len(redis_client.client_list()) <= 8)
    # Beside the start and the request: two lines for each of the subscriber's two connections and of the two
    # that watch the broker, six times.
    assert_calm(sidecar, lines=4 + 6 * 4 * 2 + 1)


@pytest.mark.parametrize("path", ["/livez", "/nothing", "/api/v1/queue/status"])
def test_many_questions_at_once(
    redis_client: Redis, redis_server: RedisServer, start_sidecar: StartSidecar, path: str
) -> None:
    """Questions that come together leave no more connections to Redis than they need."""
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        begin(stream)
    with httpx.Client(base_url=sidecar.url, trust_env=False) as client:
        assert {200, 404} >= {client.get(path).status_code for _ in range(100)}
    assert len(redis_client.client_list()) <= 8
