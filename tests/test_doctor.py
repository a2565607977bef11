"""`celery-sidecar doctor`: finds what is wrong, says what to do, and writes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from celery_plugin import __version__
from deploy.demo.child import environment
from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.batches import Sender, worker_step
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartRedis, StartSidecar, StartWorker
from tests.support.writing import worker


class Report:
    """What it found."""

    def __init__(self, run: subprocess.CompletedProcess[str]) -> None:
        assert run.stdout, run.stderr
        told = json.loads(run.stdout)
        self.code, self.output = run.returncode, run.stdout + run.stderr
        self.worst: str = told["worst"]
        self.all: list[dict[str, str]] = told["findings"]

    def of(self, about: str, *levels: str) -> list[str]:
        """What it says of something, at these levels."""
        return [each["what"] for each in self.all if each["about"] == about and each["level"] in levels]

    @property
    def bad(self) -> list[tuple[str, str]]:
        """All that is worse than a note."""
        return [(each["about"], each["what"]) for each in self.all if each["level"] in ("warning", "error")]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    command = [sys.executable, "-m", "sidecar", "doctor", *arguments]
    return subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, check=False, timeout=60
    )


def look(url: str, *arguments: str, **variables: str) -> Report:
    """Run it on a Redis, under the sidecar's user unless the URL names another one."""
    return Report(run("--json", *arguments, SIDECAR_REDIS_URL=acl.as_user(url), **variables))


def everything(client: Redis) -> dict[bytes, Any]:
    """What stands in the database."""
    keys: Any = client.keys()
    return {key: client.dump(key) for key in keys}


def test_all_is_well(
    redis_server: RedisServer, client: Redis, start_worker: StartWorker, start_sidecar: StartSidecar
) -> None:
    """A worker, a sidecar under its own user, and its broker: nothing to do, and nothing was changed."""
    worker = start_worker()
    sidecar = start_sidecar()
    before = everything(client).keys()
    report = look(redis_server.url, "--url", sidecar.url)
    assert (0, []) == (report.code, report.bad), report.output
    assert before == everything(client).keys()
    assert any(worker.hostname in what for what in report.of("workers", "ok"))
    assert any(f"plugin {__version__} with Celery" in what for what in report.of("plugin", "ok"))
    assert 3 == len(report.of("clock", "ok")), report.all
    assert any("it sees 1 workers" in what for what in report.of("sidecar", "ok"))
    # Its own user may not ask for these, which is said.
    assert report.of("redis", "note")


def test_for_a_reader(redis_server: RedisServer, sender: Sender) -> None:
    """For people it is lines, with what to do below what was found; no password is printed."""
    result = run(SIDECAR_REDIS_URL=acl.as_user(redis_server.url))
    assert "ok      redis" in result.stdout
    assert "→ --url, or SIDECAR_URL" in result.stdout
    assert acl.PASSWORD not in result.stdout + result.stderr
    assert "\x1b" not in result.stdout


def test_nobody_there(free_port: Callable[[], int]) -> None:
    """Without a Redis there is nothing else to say; its password is not shown."""
    report = look(f"redis://user:hunter2@127.0.0.1:{free_port()}/0")
    assert (2, "error") == (report.code, report.worst)
    assert ["redis", "sidecar"] == [each["about"] for each in report.all]
    assert "hunter2" not in report.output


@pytest.mark.parametrize("url", ["redis://sidecar:hunter2@{}", "redis://:hunter2@{}", "redis://{}"])
def test_wrong_credentials(start_redis: StartRedis, url: str) -> None:
    """A user or password that is refused is told as such."""
    server = start_redis("--requirepass", "secret")
    result = run("--json", SIDECAR_REDIS_URL=url.format(f"127.0.0.1:{server.port}"))
    assert 2 == result.returncode
    assert "refuses" in json.loads(result.stdout)["findings"][0]["what"]
    assert "hunter2" not in result.stdout + result.stderr


def test_missing_rights(redis_server: RedisServer, client: Redis, sender: Sender) -> None:
    """Each command that is refused is named."""
    client.execute_command(
        "ACL", "SETUSER", acl.USER, "-zrange", "-hscan", "-client|tracking", "resetchannels"
    )
    report = look(redis_server.url)
    assert 2 == report.code
    rights = " ".join(report.of("rights", "error", "warning"))
    for word in ("ZRANGE queue:leases", "HSCAN queue:workers", "SUBSCRIBE queue:events", "CLIENT TRACKING"):
        assert word in rights


def test_the_rights_of_a_worker(redis_server: RedisServer, client: Redis, sender: Sender) -> None:
    """As a worker it tries what the plugin does, without any effect."""
    url = acl.as_user(redis_server.url, acl.WORKER)
    before = everything(client)
    report = look(url, "--as-worker", "--broker-url", redis_server.url)
    assert [] == report.of("rights", "error"), report.all
    assert any("worker's rights: all" in what for what in report.of("rights", "ok"))
    assert any("alive: celery@one" in what for what in report.of("workers", "ok")), report.all
    assert before == everything(client)
    client.execute_command("ACL", "SETUSER", acl.WORKER, "-eval", "-xtrim")
    [refused] = look(url, "--as-worker", "--broker-url", redis_server.url).of("rights", "error")
    assert "XTRIM queue:events" in refused
    assert "EVAL" in refused


def test_a_key_of_somebody_else(redis_server: RedisServer, client: Redis) -> None:
    """A key of the prefix that is something else is named."""
    client.set("queue:workers", "x")
    assert ["the key queue:workers is somebody else's"] == look(redis_server.url).of("keys", "error")


def test_depths_that_cannot_be_read(
    redis_server: RedisServer, client: Redis, sender: Sender, free_port: Callable[[], int]
) -> None:
    """That is what is said of them, and nothing of workers that would not have measured any."""
    client.set("queue:depths", "x")
    report = look(redis_server.url, SIDECAR_BROKER_URL=f"amqp://127.0.0.1:{free_port()}//")
    [found] = report.of("queues", "note", "warning", "error")
    assert "cannot be read" in found


def test_what_redis_does_when_it_is_full(start_redis: StartRedis) -> None:
    """Eviction, a small buffer and a failed save are told to who may ask for them."""
    server = start_redis(
        *("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"),
        *("--client-output-buffer-limit", "pubsub 1mb 1mb 60"),
    )
    report = look(f"redis://default@127.0.0.1:{server.port}/0")
    assert 1 == report.code
    found = " ".join(report.of("redis", "warning"))
    assert "allkeys-lru" in found
    assert "pubsub is 1048576 bytes" in found
    assert any("saves nothing" in what for what in report.of("redis", "note"))


def test_a_replica(start_redis: StartRedis, redis_server: RedisServer) -> None:
    """A replica is no place for the state."""
    replica = start_redis("--replicaof", "127.0.0.1", str(redis_server.port))
    assert any("replica" in what for what in look(replica.url).of("redis", "error"))


def test_no_worker(redis_server: RedisServer) -> None:
    """Where no plugin has ever written it says how one is loaded."""
    report = look(redis_server.url)
    assert 1 == report.code
    [finding] = [each for each in report.all if each["about"] == "workers"]
    assert "CELERY_WORKER_INCLUDE=celery_plugin" in finding["advice"]


def test_workers_that_are_not_as_they_should_be(redis_server: RedisServer, sender: Sender) -> None:
    """Another protocol, a wrong clock, lost events, a lease that has ended: each is told with its worker."""
    sender.send(worker("one", worker="new@a", protocol=99, plugin_version="9.0.0", clock_ahead_s=0.0))
    other = Sender(sender.client, "two")
    other.send(
        worker_step(
            "two", worker="late@b", protocol=1, plugin_version="0.1.0", clock_ahead_s=-42.5, gave_up=7
        )
    )
    dead = Sender(sender.client, "three")
    dead.send(worker_step("three", worker="dead@c"), lease=0)
    report = look(redis_server.url)
    assert 2 == report.code
    assert ["it speaks another protocol than 1, that of this sidecar: new@a"] == report.of("plugin", "error")
    assert ["workers behind Redis's clock when they began: late@b by 42.5 s"] == report.of("clock", "warning")
    warnings = " ".join(report.of("workers", "warning"))
    assert "gave up events while Redis was away or refused them: late@b" in warnings
    assert "silent without having said goodbye: dead@c" in warnings


def test_a_queue_that_nobody_consumes(redis_server: RedisServer, sender: Sender, celery_app: Celery) -> None:
    """Tasks in a queue without a worker are found, also where nobody has named the queue."""
    celery_app.send_task("tests.add", (1, 2), queue="misspelt")
    celery_app.send_task("tests.add", (1, 2), queue="misspelt", priority=9)
    celery_app.send_task("tests.add", (1, 2), queue="celery")
    report = look(redis_server.url)
    assert ["tasks wait and no worker with the plugin consumes: misspelt (2)"] == report.of(
        "queues", "warning"
    )
    assert ["3 tasks wait in 2 queues"] == report.of("queues", "ok")


def test_a_broker_that_is_not_there(
    redis_server: RedisServer, sender: Sender, free_port: Callable[[], int]
) -> None:
    """Of a broker of another kind it says whether it answers, without its password."""
    url = f"amqp://guest:hunter2@127.0.0.1:{free_port()}//"
    report = look(redis_server.url, SIDECAR_BROKER_URL=url)
    [what] = report.of("broker", "error")
    assert "does not answer" in what
    assert "hunter2" not in report.output
    sender.send(worker(broker={"transport": "redis"}))
    assert ["workers use another kind of broker: redis"] == look(redis_server.url, SIDECAR_BROKER_URL=url).of(
        "broker", "warning"
    )


def test_a_sidecar_that_cannot_be_asked(
    redis_server: RedisServer, sender: Sender, sidecar: Sidecar, free_port: Callable[[], int]
) -> None:
    """A sidecar that is named and does not answer is an error; why is said."""
    report = look(redis_server.url, SIDECAR_URL=f"http://127.0.0.1:{free_port()}")
    assert "Connection refused" in report.of("sidecar", "error")[0]
    report = look(redis_server.url, "--url", sidecar.url)
    assert [] == report.of("sidecar", "error")


def test_mistakes_are_told_together() -> None:
    """Mistakes of every kind are reported at once, with exit code 2 and without a password."""
    result = run("--redis-url", "redis://:hunter2@h:x", "--url", "http://u:hunter2@h", SIDECAR_PREFIX="a b")
    assert (2, "") == (result.returncode, result.stdout)
    assert "celery-sidecar: 3 mistakes in the settings" in result.stderr
    assert "hunter2" not in result.stderr
