"""The image of `Containerfile`, built and run; `make image-test`."""

from __future__ import annotations

import re
import shutil
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from deploy.demo.ports import HOST, free_port
from deploy.demo.redis_server import RedisServer
from tests.image.building import Builder, Image
from tests.support import acl
from tests.support.celery_worker import launch_worker, wait_until_ready
from tests.support.deadline import PATIENCE_SECONDS, eventually
from tests.support.deployed import DEPLOY, documents
from tests.support.guarded import bearer
from tests.support.needed import need
from tests.support.processes import Process
from tests.support.rabbitmq import RabbitServer
from tests.support.sidecar_process import launch_sidecar, wait_until_alive
from tests.support.sse import EventStream
from tests.support.tasks_app import Gate, make_app, make_producer
from tests.support.tokens import SECRET, token

PLACE = Path("opt/celery-sidecar")
STATUS = "/api/v1/queue/status"


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """Built once, in a folder that does not outlive the tests: it takes a gigabyte."""
    for program in ("buildah", "debootstrap"):
        need(shutil.which(program), program)
    with TemporaryDirectory(prefix="image-", ignore_cleanup_errors=True) as folder:
        builder = Builder(Path(folder))
        builder.make_base()
        yield builder.build()
        builder.buildah("umount", "--all")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis that knows the sidecar's user."""
    with RedisServer(*acl.arguments()) as server:
        yield server


def test_what_it_says_of_itself(image: Image) -> None:
    """Nobody is root, SIGTERM ends it, and it says what it is."""
    config = image.config
    assert ("65532:65532", "SIGTERM") == (config["User"], config["StopSignal"])
    assert (["celery-sidecar"], ["serve"]) == (config["Entrypoint"], config["Cmd"])
    assert {"8000/tcp": {}} == config["ExposedPorts"]
    assert "1.2.3" == config["Labels"]["org.opencontainers.image.version"]


def test_nothing_of_the_build_is_left(image: Image) -> None:
    """It has the sidecar and what that needs: no pip, no tests, no sources beside the installed ones."""
    assert not (image.root / "build").exists()
    installed = {path.name for path in image.root.glob(f"{PLACE}/lib/python3*/site-packages/*")}
    assert {"sidecar", "celery_plugin", "starlette", "uvicorn", "redis", "jwt", "cryptography"} <= installed
    assert not {"pip", "setuptools", "hatchling", "tests", "deploy", "pytest"} & installed
    assert (PLACE / "bin/celery-sidecar").name in {
        path.name for path in (image.root / PLACE / "bin").iterdir()
    }


def test_nobody_may_change_it(image: Image) -> None:
    """All that runs is root's, and can be written by nobody else."""
    paths = [path for path in (image.root / PLACE).rglob("*") if not path.is_symlink()]
    assert paths
    assert [] == [
        path for path in paths if path.stat().st_uid or path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ]


def test_it_lets_nobody_in_by_itself(image: Image) -> None:
    """On all addresses it does not start before somebody has said who may read, and says how to."""
    container = image.start()
    try:
        eventually(lambda: not container.running)
    finally:
        container.close()
    assert 2 == container.returncode
    assert "SIDECAR_AUTH_SECRETS" in container.output
    assert "SIDECAR_ALLOW_ANONYMOUS=read" in container.output


def test_the_main_job(image: Image, redis: RedisServer) -> None:
    """Beside a Redis and a worker it tells what happens, is well, and ends when it is told to."""
    port = free_port()
    env = {
        "SIDECAR_PORT": str(port),
        "SIDECAR_REDIS_URL": acl.as_user(redis.url),
        "SIDECAR_AUTH_SECRETS": SECRET,
        "SIDECAR_DRAIN_SECONDS": "1",
    }
    headers = bearer(token("*", ttl=600))
    worker, container = launch_worker(redis.url), image.start(env=env)
    try:
        wait_until_ready(worker)
        eventually(lambda: _status(port, headers) == 200)
        assert 0 == image.check_health(env)
        assert 401 == _status(port, {})
        with EventStream(f"http://{HOST}:{port}/api/v1/queue/events", headers=headers) as stream:
            stream.until_type("live")
            task_id = make_producer(redis.url).send_task("tests.add", (1, 2)).id
            stream.until_task(task_id, "completed")
        assert "65532" == _owner(container)
        container.send_signal(signal.SIGTERM)
        eventually(lambda: not container.running)
        assert 0 == container.returncode
        assert 1 == image.check_health(env)
    finally:
        container.close()
        worker.close()


def test_beside_a_cluster_on_rabbitmq(
    image: Image, redis: RedisServer, rabbit: RabbitServer, gate: Gate
) -> None:
    """Worker and tasks were there first: it tells a task's life and the queue's depth, also when the worker
    has gone."""
    port, backend = free_port(), redis.url_db(1)
    env = {
        "SIDECAR_PORT": str(port),
        "SIDECAR_REDIS_URL": acl.as_user(redis.url),
        "SIDECAR_BROKER_URL": rabbit.url,
        "SIDECAR_AUTH_SECRETS": SECRET,
        "SIDECAR_DRAIN_SECONDS": "1",
    }
    headers = bearer(token("*", ttl=600))
    app = make_app(rabbit.url, backend)
    worker = launch_worker(rabbit.url, backend=backend, env={"SIDECAR_REDIS_URL": redis.url})
    processes = [worker]
    try:
        wait_until_ready(worker)
        # Two run, eight are fetched, and one waits in RabbitMQ.
        for _ in range(11):
            app.send_task("tests.wait_for_file", (str(gate),))
        processes.append(image.start(env=env))
        eventually(lambda: _queue_length(port, headers) == 1)
        with EventStream(f"http://{HOST}:{port}/api/v1/queue/events", headers=headers) as stream:
            stream.until_type("live")
            gate.open()
            stream.until_task(app.send_task("tests.add", (1, 2)).id, "completed")
        worker.stop()
        for _ in range(2):
            app.send_task("tests.add", (1, 2))
        eventually(lambda: _queue_length(port, headers) == 2)
    finally:
        for process in reversed(processes):
            process.close()
        app.close()


def test_the_compose_file_finds_its_programs(image: Image, redis: RedisServer) -> None:
    """The worker and the application of the Compose file run from the image, which has all that they need."""
    [compose] = documents("compose.yaml")
    services = {name: compose["services"][name] for name in ("worker", "application")}
    assert [[".:/srv/deploy:ro"]] * 2 == [service["volumes"] for service in services.values()]
    shutil.copytree(DEPLOY, image.root / "srv" / "deploy")
    sidecar, processes = launch_sidecar(redis.url), []
    try:
        wait_until_alive(sidecar)
        for service in services.values():
            env = {
                key: value.replace("redis:6379", f"{HOST}:{redis.port}")
                for key, value in service["environment"].items()
            }
            processes.append(image.run(service["entrypoint"], env, folder=service["working_dir"]))
        with sidecar.events() as stream:
            stream.until(lambda event: event.data.get("status") == "completed", PATIENCE_SECONDS)
    finally:
        for process in (*processes, sidecar):
            process.close()
        shutil.rmtree(image.root / "srv" / "deploy")


def _status(port: int, headers: dict[str, str]) -> int | None:
    with suppress(httpx.TransportError), httpx.Client(trust_env=False) as client:
        return client.get(f"http://{HOST}:{port}{STATUS}", headers=headers).status_code
    return None


def _queue_length(port: int, headers: dict[str, str]) -> float | None:
    with suppress(httpx.TransportError), httpx.Client(trust_env=False) as client:
        text = client.get(f"http://{HOST}:{port}/metrics", headers=headers).text
        found = re.search(r'^celery_queue_length\{queue_name="celery"\} (.*)$', text, re.MULTILINE)
        return float(found[1]) if found else None
    return None


def _owner(container: Process) -> str:
    [line] = [
        line for line in Path(f"/proc/{container.pid}/status").read_text().splitlines() if "Uid" in line
    ]
    return line.split()[1]
