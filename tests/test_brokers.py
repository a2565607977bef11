"""What waits is counted right, whatever the broker: each queue's depth, and every task once."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from celery import Celery
from kombu.transport.virtual import Transport as VirtualTransport
from redis import Redis

from celery_plugin import askers
from celery_plugin.depths import DepthMeter, asker_of
from deploy.demo.ports import HOST
from deploy.demo.redis_server import RedisDidNotStart, RedisServer
from tests.support import folder_app
from tests.support.batches import Stored
from tests.support.celery_worker import Worker
from tests.support.certificates import Certificates, make_certificates
from tests.support.conf_app import CONF
from tests.support.deadline import eventually
from tests.support.processes import runs
from tests.support.rabbitmq import RabbitServer
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartProcess, StartRedis, StartSidecar, StartWorker
from tests.support.tasks_app import Gate, make_app

SHORT_LEASE = {"SIDECAR_LEASE_SECONDS": "3", "SIDECAR_LEASE_RENEW_SECONDS": "0.3"}
CONFIGURED_APP = "tests.support.conf_app"
# Every sign that means something in a URL, a query, a shell or a percent code.
PASSWORD = "p@ss:w/rd?&=#%41+ $'\"é;,[]"


# -- what is shown ---------------------------------------------------------------------------------------


def shown(sidecar: Sidecar) -> dict[str, Any]:
    """The figures of now; nothing where they cannot be told."""
    answer = sidecar.get("/api/v1/queue/status")
    return answer.json() if answer.status_code == 200 else {}


def pending(figures: dict[str, Any]) -> dict[str, int | None]:
    """Each queue's depth."""
    return {queue["name"]: queue["pending"] for queue in figures.get("queues", ())}


def held(figures: dict[str, Any]) -> dict[str, int]:
    """What the workers have."""
    return {name: figures[f"{name}_tasks"] for name in ("reserved", "scheduled", "active")}


def shows(sidecar: Sidecar, depths: Mapping[str, int], **at_workers: int) -> bool:
    """Tell whether exactly this is shown, and the sum of it."""
    figures = shown(sidecar)
    told = pending(figures)
    if not figures or {queue: told.get(queue) for queue in depths} != dict(depths):
        return False
    total = sum(depths.values()) + sum(at_workers.values())
    return at_workers == held(figures) and (figures["pending_tasks"], figures["total_tasks"]) == (
        sum(depths.values()),
        total,
    )


# -- brokers that are Redis ------------------------------------------------------------------------------


@dataclass
class Setup:
    """How worker and sidecar reach their servers."""

    broker: str
    conf: dict[str, Any] = field(default_factory=dict)
    backend: str = ""
    # Where the worker is to find it by itself, none is named.
    state: str = ""
    # Where the sidecar is told another one than the worker.
    sidecar_state: str = ""


Make = Callable[[pytest.FixtureRequest], Setup]


def _redis(request: pytest.FixtureRequest, *arguments: str) -> RedisServer:
    start: StartRedis = request.getfixturevalue("start_redis")
    return start(*arguments)


def _with_options(**options: Any) -> Make:
    def make(request: pytest.FixtureRequest) -> Setup:
        return Setup(_redis(request).url, {"broker_transport_options": options})

    return make


def _with_password(request: pytest.FixtureRequest) -> Setup:
    server = _redis(request, "--requirepass", PASSWORD)
    return Setup(server.url_db(3, password=PASSWORD))


def _three_servers(request: pytest.FixtureRequest) -> Setup:
    broker, backend, state = (_redis(request) for _ in range(3))
    return Setup(broker.url_db(1), {}, backend.url_db(2), state.url_db(3))


def _socket(request: pytest.FixtureRequest) -> Setup:
    directory: Path = request.getfixturevalue("tmp_path")
    _redis(request, "--unixsocket", str(directory / "redis.sock"))
    path = directory / "redis.sock"
    return Setup(f"redis+socket://{path}?virtual_host=2", sidecar_state=f"unix://{path}?db=2")


def _encrypted(request: pytest.FixtureRequest) -> tuple[str, Certificates]:
    """Start a server with TLS; return its address and its certificates."""
    made = make_certificates(request.getfixturevalue("tmp_path"))
    port = request.getfixturevalue("free_port")()
    files = {"cert": made.certificate, "key": made.key, "ca-cert": made.authority}
    tls = [word for name, file in files.items() for word in (f"--tls-{name}-file", str(file))]
    try:
        _redis(request, "--tls-port", str(port), "--tls-auth-clients", "no", "--requirepass", PASSWORD, *tls)
    except RedisDidNotStart as error:
        if "Bad directive" not in str(error) or os.environ.get("CI"):
            raise
        pytest.skip("the Redis of this machine is built without TLS")
    return f"//:{quote(PASSWORD, safe='')}@{HOST}:{port}/0", made


def _encrypted_by_url(request: pytest.FixtureRequest) -> Setup:
    address, made = _encrypted(request)
    return Setup(
        f"rediss:{address}?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={quote(str(made.authority), safe='')}"
    )


def _encrypted_by_settings(request: pytest.FixtureRequest) -> Setup:
    address, made = _encrypted(request)
    tls = {"ssl_cert_reqs": "required", "ssl_ca_certs": str(made.authority)}
    url = f"rediss:{address}?ssl_ca_certs={quote(str(made.authority), safe='')}"
    return Setup(f"redis:{address}", {"broker_use_ssl": tls, "redis_backend_use_ssl": tls}, sidecar_state=url)


def _encrypted_unverified(request: pytest.FixtureRequest) -> Setup:
    address, _ = _encrypted(request)
    return Setup(f"rediss:{address}?ssl_cert_reqs=none")


REDIS_SETUPS: dict[str, Make] = {
    "priority_steps": _with_options(priority_steps=[0, 2, 5, 8]),
    "sep": _with_options(sep="|", priority_steps=[0, 9]),
    "global_keyprefix": _with_options(global_keyprefix="shop:", sep=":"),
    "queue_order_strategy": _with_options(queue_order_strategy="priority"),
    "password": _with_password,
    "three servers": _three_servers,
    "socket": _socket,
    "rediss by URL": _encrypted_by_url,
    "rediss by settings": _encrypted_by_settings,
    "rediss unverified": _encrypted_unverified,
}


@pytest.fixture(params=REDIS_SETUPS)
def setup(request: pytest.FixtureRequest) -> Setup:
    """One way to have a Redis as the broker."""
    return REDIS_SETUPS[request.param](request)


@contextmanager
def _producer(setup: Setup) -> Iterator[Celery]:
    app = make_app(setup.broker, setup.backend or setup.broker, **setup.conf)
    yield app
    app.close()


def _start_worker(start_worker: StartWorker, setup: Setup, queues: str, **options: Any) -> Worker:
    env = SHORT_LEASE | {CONF: json.dumps(setup.conf)}
    if setup.state:
        env["SIDECAR_REDIS_URL"] = setup.state
    arguments = ("-Q", queues, *options.pop("arguments", ()))
    return start_worker(
        setup.broker,
        backend=setup.backend or None,
        app=CONFIGURED_APP,
        arguments=arguments,
        env=env,
        **options,
    )


def _start_sidecar(start_sidecar: StartSidecar, setup: Setup, *queues: str) -> Sidecar:
    state = setup.sidecar_state or setup.state or setup.broker
    broker = setup.sidecar_state or setup.broker
    return start_sidecar(state, env={"SIDECAR_BROKER_URL": broker, "SIDECAR_QUEUES": ",".join(queues)})


def test_a_redis_broker_is_counted(
    setup: Setup, start_worker: StartWorker, start_sidecar: StartSidecar, gate: Gate
) -> None:
    """Each queue's depth is right, with every priority, and without a consumer; a task that a worker has
    fetched is counted once, at the worker; the sum is what was sent."""
    worker = _start_worker(start_worker, setup, "a,b", concurrency=1)
    sidecar = _start_sidecar(start_sidecar, setup)
    with _producer(setup) as app:
        wait = app.tasks["tests.wait_for_file"]
        wait.apply_async((str(gate),), queue="a")
        eventually(lambda: shows(sidecar, {"a": 0, "b": 0}, active=1, reserved=0, scheduled=0))
        # It fetches four beside the one that runs, which is acknowledged already.
        for _ in range(4):
            wait.apply_async((str(gate),), queue="b")
        eventually(lambda: shows(sidecar, {"a": 0, "b": 0}, active=1, reserved=4, scheduled=0))
        for priority in (0, 3, 5, 9):
            wait.apply_async((str(gate),), queue="a", priority=priority)
        for priority in (1, 2):
            wait.apply_async((str(gate),), queue="b", priority=priority)
        for priority in (0, 8, 9):
            wait.apply_async((str(gate),), queue="nobody", priority=priority)
        waiting = {"a": 4, "b": 2, "nobody": 3}
        eventually(lambda: shows(sidecar, waiting, active=1, reserved=4, scheduled=0), what=worker.name)
        gate.open()
        eventually(lambda: shows(sidecar, {"a": 0, "b": 0, "nobody": 3}, active=0, reserved=0, scheduled=0))
        app.tasks["tests.add"].apply_async((1, 2), queue="a", countdown=3600)
        eventually(lambda: shows(sidecar, {"a": 0, "b": 0, "nobody": 3}, active=0, reserved=0, scheduled=1))
    assert "Traceback" not in worker.output


def test_a_password_is_in_no_log(
    start_redis: StartRedis, start_worker: StartWorker, start_sidecar: StartSidecar
) -> None:
    """However it is spelled, worker and sidecar keep it to themselves."""
    server = start_redis("--requirepass", PASSWORD)
    setup = Setup(server.url_db(3, password=PASSWORD))
    worker = _start_worker(start_worker, setup, "a", pool="solo")
    sidecar = _start_sidecar(start_sidecar, setup)
    eventually(lambda: shows(sidecar, {"a": 0}, active=0, reserved=0, scheduled=0))
    for text in (worker.output, sidecar.output):
        assert quote(PASSWORD, safe="") not in text
        assert PASSWORD not in text


# -- RabbitMQ --------------------------------------------------------------------------------------------


class Queues:
    """Queues of this test alone, and how they are declared: all known to the worker, two consumed."""

    def __init__(self) -> None:
        mark = uuid4().hex[:8]
        self.a, self.b, self.nobody = (f"{name}-{mark}" for name in ("a", "b", "nobody"))
        declared = {name: {"exchange": name, "routing_key": name} for name in (self.a, self.b, self.nobody)}
        self.conf = {"task_queues": declared, "task_default_queue": self.a}

    def depths(self, a: int, b: int, nobody: int) -> dict[str, int]:
        return {self.a: a, self.b: b, self.nobody: nobody}


@pytest.fixture
def queues() -> Queues:
    """Three queues."""
    return Queues()


@pytest.fixture
def with_rabbit(rabbit: RabbitServer, start_redis: StartRedis, queues: Queues) -> Setup:
    """Broker, result backend and state on three servers."""
    return Setup(rabbit.url, queues.conf, start_redis().url, start_redis().url)


def _measured(setup: Setup) -> dict[str, dict[str, Any]]:
    with Redis.from_url(setup.state) as client:
        stored = Stored(client)
        found: Any = client.hgetall(stored.keys.depths)
    return {queue.decode(): json.loads(depth) for queue, depth in found.items()}


def _told(setup: Setup) -> dict[str, int]:
    return {queue: depth["pending"] for queue, depth in _measured(setup).items()}


def _asked(app: Celery, names: Mapping[str, int]) -> dict[str, int]:
    """What the broker says to somebody else."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        return {name: channel.queue_declare(name, passive=True).message_count for name in names}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_rabbitmq_is_counted(
    pool: str,
    with_rabbit: Setup,
    queues: Queues,
    start_worker: StartWorker,
    start_sidecar: StartSidecar,
    gate: Gate,
) -> None:
    """Before, while and after tasks run each queue's depth is what the broker says, also of a queue without a
    consumer; a prefetched task is counted once, at the worker; the sum is what was sent."""
    with _producer(with_rabbit) as app:
        app.tasks["tests.wait_for_file"].apply_async((str(gate),), queue=queues.nobody)
    _start_worker(start_worker, with_rabbit, f"{queues.a},{queues.b}", concurrency=1, pool=pool)
    sidecar = _start_sidecar(start_sidecar, with_rabbit, queues.nobody)
    with _producer(with_rabbit) as app:
        wait = app.tasks["tests.wait_for_file"]
        idle = queues.depths(0, 0, 1)
        eventually(lambda: shows(sidecar, idle, active=0, reserved=0, scheduled=0))
        for _ in range(5):
            wait.apply_async((str(gate),), queue=queues.b)
        eventually(lambda: shows(sidecar, idle, active=1, reserved=4, scheduled=0))
        for count, queue in enumerate((queues.a, queues.b, queues.nobody), start=2):
            for _ in range(count):
                wait.apply_async((str(gate),), queue=queue)
        waiting = queues.depths(2, 3, 5)
        eventually(lambda: waiting == _asked(app, waiting))
        eventually(lambda: shows(sidecar, waiting, active=1, reserved=4, scheduled=0))
        gate.open()
        eventually(lambda: shows(sidecar, queues.depths(0, 0, 5), active=0, reserved=0, scheduled=0))
        age = time.time() - min(depth["measured_at"] for depth in _measured(with_rabbit).values())
        assert -1 < age < 10


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed here")
def test_a_gevent_worker_measures_too(
    with_rabbit: Setup, queues: Queues, start_worker: StartWorker, start_sidecar: StartSidecar, gate: Gate
) -> None:
    """The sockets of its native threads are gevent's. What is sent to a full pool stays at the broker here:
    Celery's main greenlet waits for a place in it, and what lies in its socket nobody has counted."""
    with_rabbit.conf |= {"task_acks_late": True, "worker_prefetch_multiplier": 1}
    worker = _start_worker(start_worker, with_rabbit, queues.a, concurrency=2, pool="gevent")
    sidecar = _start_sidecar(start_sidecar, with_rabbit)
    with _producer(with_rabbit) as app:
        for _ in range(7):
            app.tasks["tests.wait_for_file"].apply_async((str(gate),), queue=queues.a)
    eventually(lambda: shows(sidecar, {queues.a: 5}, active=2, reserved=0, scheduled=0))
    gate.open()
    eventually(lambda: shows(sidecar, {queues.a: 0}, active=0, reserved=0, scheduled=0))
    assert "Traceback" not in worker.output
    worker.stop()


def test_rabbitmq_stops_and_starts(
    rabbit: RabbitServer, with_rabbit: Setup, queues: Queues, start_worker: StartWorker, gate: Gate
) -> None:
    """The worker goes on with its task, one line says that nobody can be asked, and when the broker is back
    the depth is right again, the first that is measured."""
    worker = _start_worker(start_worker, with_rabbit, queues.a, concurrency=1)
    with _producer(with_rabbit) as app:
        app.tasks["tests.wait_for_file"].apply_async((str(gate),), queue=queues.a)
        for _ in range(9):
            app.tasks["tests.add"].apply_async((1, 2), queue=queues.a)
        eventually(lambda: _told(with_rabbit).get(queues.a) == 5)
    rabbit.stop()
    worker.wait_for_line("cannot ask the broker how many messages wait")
    before = _measured(with_rabbit)[queues.a]
    assert 5 == before["pending"]
    gate.open()
    rabbit.start()
    eventually(lambda: _told(with_rabbit)[queues.a] == 0)
    with Redis.from_url(with_rabbit.state) as client:
        eventually(lambda: len(Stored(client).finished) == 10)
    assert 1 == worker.output.count("cannot ask the broker how many messages wait")
    assert worker.running


def test_a_worker_ends_while_its_broker_is_gone(
    rabbit: RabbitServer, with_rabbit: Setup, queues: Queues, start_worker: StartWorker
) -> None:
    """Nobody waits for the thread that waits for the broker."""
    worker = _start_worker(start_worker, with_rabbit, queues.a, pool="solo")
    eventually(lambda: queues.a in _told(with_rabbit))
    rabbit.stop()
    worker.wait_for_line("cannot ask the broker how many messages wait")
    worker.stop()
    assert not runs(worker.pid)


# -- the thread that measures ----------------------------------------------------------------------------


class Meter:
    """A meter that runs in this process, and what it told."""

    def __init__(self, app: Celery, every_seconds: float = 0.05) -> None:
        self.told: list[tuple[str, int]] = []
        self._meter = DepthMeter(app, self._observe, every_seconds)

    def _observe(self, event: str, fields: dict[str, Any]) -> None:
        assert "depth" == event
        self.told.append((fields["of"], json.loads(fields["json"])["pending"]))

    def __enter__(self) -> Meter:
        self._meter.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._meter.stop()

    def tells(self, queue: str, pending: int) -> bool:
        """Tell whether this comes from now on."""
        seen = len(self.told)
        return bool(eventually(lambda: (queue, pending) in self.told[seen:]))


def test_a_frozen_broker_is_given_up_and_asked_again(
    rabbit: RabbitServer, queues: Queues, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that says nothing holds only the thread that asks it, for seconds; then a new connection."""
    app = make_app(rabbit.url, **queues.conf)
    app.tasks["tests.add"].apply_async((1, 2), queue=queues.a)
    with Meter(app) as meter:
        assert meter.tells(queues.a, 1)
        rabbit.pause()
        try:
            eventually(lambda: "cannot ask the broker" in caplog.text)
        finally:
            rabbit.resume()
        app.tasks["tests.add"].apply_async((1, 2), queue=queues.a)
        assert meter.tells(queues.a, 2)
    assert 1 == caplog.text.count("cannot ask the broker")
    app.close()


def test_a_queue_that_is_missing_hides_no_other(
    rabbit: RabbitServer, queues: Queues, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closes the channel, and the next queue is asked for over another; nothing is said aloud. After a
    while it is asked for again."""
    monkeypatch.setattr(askers, "MISSING_SECONDS", 0.5)
    app = make_app(rabbit.url, **queues.conf)
    app.tasks["tests.add"].apply_async((1, 2), queue=queues.b)
    with Meter(app) as meter:
        assert meter.tells(queues.b, 1)
        assert meter.tells(queues.b, 1)
        assert {(queues.b, 1)} == set(meter.told)
        app.tasks["tests.add"].apply_async((1, 2), queue=queues.a)
        assert meter.tells(queues.a, 1)
    assert not caplog.records
    app.close()


MEASURES = """if True:
    import sys
    from celery_plugin.depths import DepthMeter
    from tests.support.tasks_app import make_app, wait_for_file

    app = make_app(sys.argv[1])
    app.amqp.queues.select([sys.argv[2]])
    meter = DepthMeter(app, lambda *_: print("told", flush=True), 0.01)
    meter.start()
    wait_for_file.run(sys.argv[3])
    meter.stop()
"""


def test_a_process_ends_while_its_broker_hangs(
    rabbit: RabbitServer, queues: Queues, start_process: StartProcess, gate: Gate
) -> None:
    """The thread may be in the middle of a question: the interpreter does not wait for it."""
    app = make_app(rabbit.url, **queues.conf)
    app.tasks["tests.add"].apply_async((1, 2), queue=queues.a)
    app.close()
    command = [sys.executable, "-c", MEASURES, rabbit.url, queues.a, str(gate)]
    process = start_process(command)
    process.wait_for_line("told")
    rabbit.pause()
    try:
        gate.open()
        assert 0 == process.wait(3)
    finally:
        rabbit.resume()


@pytest.mark.parametrize("broker", ["memory", "folder"])
def test_other_brokers_that_can_tell(broker: str, tmp_path: Path) -> None:
    """Kombu's own transports say how much is there."""
    app = (
        make_app(f"memory://{uuid4().hex}")
        if broker == "memory"
        else folder_app.make_folder_app(str(tmp_path))
    )
    queue = f"q{uuid4().hex[:8]}"
    app.amqp.queues.select([queue])
    with Meter(app) as meter:
        for _ in range(3):
            app.tasks["tests.add"].apply_async((1, 2), queue=queue)
        assert meter.tells(queue, 3)
    app.close()


def test_a_redis_is_left_to_the_sidecar(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """The sidecar reads it as it changes; the worker makes no connection for it."""
    app = make_app(redis_server.url)
    assert asker_of(app) is None
    app.close()
    assert not caplog.records


def test_a_broker_that_cannot_tell(caplog: pytest.LogCaptureFixture) -> None:
    """One line for debugging says why its queues have no depth."""
    caplog.set_level(logging.DEBUG, "celery_plugin")
    app = make_app(broker_transport="tests.test_brokers:Silent")
    assert asker_of(app) is None
    assert 1 == caplog.text.count("does not tell how many messages wait")
    app.close()


class Silent(VirtualTransport):
    """A transport of a third party."""

    driver_type = "carrier pigeons"
    default_port = 1
