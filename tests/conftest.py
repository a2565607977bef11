"""Fixtures: each test has servers of its own, so tests may run in any order and side by side."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from redis import Redis

from deploy.demo.ports import free_port as find_free_port
from deploy.demo.ports import share_ports
from deploy.demo.redis_server import RedisServer
from tests.support import acl, celery_worker, rabbitmq, sidecar_process, tasks_app
from tests.support.batches import Sender, Stored
from tests.support.caddy import Caddy, find_caddy
from tests.support.celery_worker import Worker
from tests.support.deadline import eventually
from tests.support.needed import need
from tests.support.nginx import Nginx, find_nginx
from tests.support.processes import Process
from tests.support.rabbitmq import RabbitServer
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartCaddy, StartNginx, StartProcess, StartRedis, StartSidecar, StartWorker
from tests.support.writing import worker, writing

if _worker := os.environ.get("PYTEST_XDIST_WORKER"):
    share_ports(int(_worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))

# For `python -m bench fuzz`.
hypothesis_settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_CASES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

# Where the tests run in the background of a script, programs that they start would be deaf to SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What takes minutes: on several servers (`make test-matrix`), on a machine where one may be root
# (`make image-test`) or with a package index (`make release-check`).
_APART = {"servers": "SERVERS_TEST", "image": "IMAGE_TEST", "release": "RELEASE_TEST"}
collect_ignore = [folder for folder, variable in _APART.items() if not os.environ.get(variable)]

# What takes longest comes first: else one process is still at it when the others have nothing left.
_LONG = (
    "test_misbehaving.py",
    "test_amqp.py",
    "test_brokers.py",
    "test_leases.py",
    "test_outages.py",
    "test_packages.py",
    "test_traps.py",
    "test_progress.py",
    "test_standards.py",
    "test_checker.py",
    "test_workers_flag.py",
    "test_rolling_restart.py",
    "test_limits.py",
    "test_life.py",
    "test_pools.py",
    "test_terminal_watch.py",
    "test_nothing_foreign.py",
    "test_metrics.py",
    "test_demo.py",
    "test_deploy_caddy.py",
    "test_failures.py",
)
_PROCESSES = pytest.StashKey[list[Process]]()
_SERVERS = pytest.StashKey[list[RedisServer]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files."""
    rank = {name: place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio alone, as uvicorn does."""
    return "asyncio"


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Find a port on which nobody listens."""
    return find_free_port


@pytest.fixture
def start_redis(request: pytest.FixtureRequest) -> Iterator[StartRedis]:
    """Start Redis servers with settings of their own, e.g. ``start_redis("--requirepass", "x")``.

    Each has the sidecar's user.
    """
    servers = request.node.stash.setdefault(_SERVERS, [])

    def start(*arguments: str, port: int | None = None) -> RedisServer:
        server = RedisServer(*acl.arguments(), *arguments, port=port)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def redis_server(start_redis: StartRedis) -> RedisServer:
    """An empty Redis for this test alone."""
    return start_redis()


@pytest.fixture(scope="session")
def rabbit_node() -> Iterator[RabbitServer]:
    """One node for all tests: it takes seconds to start."""
    lacks = rabbitmq.missing()
    if lacks:
        assert not os.environ.get("CI"), lacks
        pytest.skip(lacks)
    server = RabbitServer()
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def rabbit(rabbit_node: RabbitServer) -> RabbitServer:
    """The node, which runs."""
    rabbit_node.ensure_running()
    return rabbit_node


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[Redis]:
    """A client of database 0 that answers strings."""
    with Redis.from_url(redis_server.url, decode_responses=True) as client:
        yield client


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Redis]:
    """A client of database 0 that answers bytes."""
    with Redis.from_url(redis_server.url) as opened:
        yield opened


@pytest.fixture
def stored(client: Redis) -> Stored:
    """What stands in database 0."""
    return Stored(client)


@pytest.fixture
def processes(request: pytest.FixtureRequest) -> Iterator[list[Process]]:
    """The child processes of this test; whatever is appended is ended, and shown when it fails."""
    started: list[Process] = request.node.stash.setdefault(_PROCESSES, [])
    yield started
    for process in reversed(started):
        process.close()


@pytest.fixture
def start_process(processes: list[Process]) -> StartProcess:
    """Start commands that end with the test."""

    def start(command: Sequence[str], *, name: str = "", env: dict[str, str] | None = None) -> Process:
        process = Process(command, name=name, env=env)
        processes.append(process)
        return process

    return start


@pytest.fixture
def start_worker(request: pytest.FixtureRequest, processes: list[Process], tmp_path: Path) -> StartWorker:
    """Start workers, on `redis_server` unless a broker is named; return when they consume."""

    def start(broker: str | None = None, *, ready: bool = True, **options: Any) -> Worker:
        # A worker that is killed leaves what it had in TMPDIR.
        env = {"TMPDIR": str(tmp_path), **(options.pop("env", None) or {})}
        worker = celery_worker.launch_worker(broker or _redis_url(request), env=env, **options)
        processes.append(worker)
        if ready:
            celery_worker.wait_until_ready(worker)
        return worker

    return start


@pytest.fixture
def start_sidecar(request: pytest.FixtureRequest, processes: list[Process]) -> StartSidecar:
    """Start sidecars, on `redis_server` unless a Redis is named; return when they answer /livez.

    They run under the user of `deploy/redis-sidecar.acl`, unless the URL names another one.
    """

    def start(redis_url: str | None = None, *, ready: bool = True, **options: Any) -> Sidecar:
        url = acl.as_user(redis_url or _redis_url(request))
        sidecar = sidecar_process.launch_sidecar(url, **options)
        processes.append(sidecar)
        if ready:
            sidecar_process.wait_until_alive(sidecar)
        return sidecar

    return start


@pytest.fixture
def start_nginx(processes: list[Process], tmp_path: Path) -> StartNginx:
    """Start an nginx in front of sidecars, with the configuration that is shipped."""

    def start(*sidecars: Sidecar) -> Nginx:
        nginx = Nginx(need(find_nginx(), "nginx"), tmp_path, [each.port for each in sidecars])
        processes.append(nginx)
        return nginx

    return start


@pytest.fixture
def start_caddy(processes: list[Process], tmp_path: Path) -> StartCaddy:
    """Start a Caddy in front of sidecars, with the configuration that is shipped."""

    def start(*sidecars: Sidecar) -> Caddy:
        caddy = Caddy(need(find_caddy(), "caddy"), tmp_path, [each.port for each in sidecars])
        processes.append(caddy)
        return caddy

    return start


@pytest.fixture
def sender(redis_server: RedisServer) -> Iterator[Sender]:
    """The writing side of a worker of `redis_server`, announced."""
    with writing(redis_server.url) as sender:
        sender.send(worker())
        yield sender


@pytest.fixture
def sidecar(sender: Sender, start_sidecar: StartSidecar) -> Sidecar:
    """A sidecar that is ready, beside `sender`."""
    sidecar = start_sidecar()
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    return sidecar


@pytest.fixture
def celery_app(redis_server: RedisServer) -> Iterator[Celery]:
    """The producer's side: the app of the test tasks, on `redis_server`, without the plugin."""
    app = tasks_app.make_producer(redis_server.url)
    yield app
    app.close()


@pytest.fixture
def gate(tmp_path: Path) -> tasks_app.Gate:
    """A closed gate for `wait_for_file` tasks: pass ``str(gate)``, then ``gate.open()``."""
    return tasks_app.Gate(tmp_path / "gate")


def _redis_url(request: pytest.FixtureRequest) -> str:
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show what the child processes said when a test fails."""
    report = yield
    if report.failed:
        for process in item.stash.get(_PROCESSES, []):
            report.sections.append((f"output of {process.name}", process.output))
        for server in item.stash.get(_SERVERS, []):
            if server.log.exists():
                report.sections.append(("output of redis", server.last_lines(50)))
    return report
