"""Redis over TLS with a certificate of the client's own, and over a unix socket, for worker and sidecar."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest

from deploy.demo.ports import HOST, free_port
from deploy.demo.redis_server import RedisDidNotStart, RedisServer
from tests.support import acl
from tests.support.certificates import Certificates, make_certificates
from tests.support.starters import StartRedis, StartSidecar, StartWorker
from tests.support.tasks_app import make_app

OTHER_HOST = "127.0.0.2"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and what it has signed: the server shows it, and the client too."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_port(certificates: Certificates, start_redis: StartRedis) -> int:
    """Where a Redis listens that talks only to who has a certificate."""
    port = free_port()
    files = {
        "--tls-port": port,
        "--tls-cert-file": certificates.certificate,
        "--tls-key-file": certificates.key,
        "--tls-ca-cert-file": certificates.authority,
        "--tls-auth-clients": "yes",
    }
    try:
        # The second address is none of the certificate's.
        start_redis("--bind", HOST, OTHER_HOST, *(str(word) for pair in files.items() for word in pair))
    except RedisDidNotStart as error:
        if "tls" not in str(error).lower():
            raise
        pytest.skip("this server was built without TLS")
    return port


def url(port: int, user: str, certificates: Certificates, **changes: str | None) -> str:
    """Make the URL, with the options by which redis-py and Celery know them."""
    host = changes.pop("host", HOST)
    options = {
        "ssl_cert_reqs": "required",
        "ssl_ca_certs": str(certificates.authority),
        "ssl_certfile": str(certificates.certificate),
        "ssl_keyfile": str(certificates.key),
        **changes,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return f"rediss://{user}:{acl.PASSWORD}@{host}:{port}/0?{urlencode(given)}"


def test_tasks_over_tls(
    tls_port: int,
    redis_server: RedisServer,
    certificates: Certificates,
    start_worker: StartWorker,
    start_sidecar: StartSidecar,
) -> None:
    """With authority, certificate, user and password in the URL all is as without encryption."""
    env = {"SIDECAR_REDIS_URL": url(tls_port, acl.WORKER, certificates)}
    a_worker = start_worker(env=env)
    broker = {"SIDECAR_BROKER_URL": acl.as_user(redis_server.url)}
    sidecar = start_sidecar(url(tls_port, acl.USER, certificates), env=broker)
    with make_app(redis_server.url, redis_server.url) as app, sidecar.events() as stream:
        stream.until_type("live")
        sent = app.send_task("tests.add", (1, 2)).id
        stream.until_task(sent, "completed")
    assert acl.PASSWORD not in a_worker.output + sidecar.output


def test_an_encrypted_broker(
    certificates: Certificates, tls_port: int, start_worker: StartWorker, start_sidecar: StartSidecar
) -> None:
    """Celery's own URL of an encrypted broker does for the state and for what waits, too."""
    broker = url(tls_port, "", certificates).replace(f":{acl.PASSWORD}@", "")
    a_worker = start_worker(broker)
    sidecar = start_sidecar(url(tls_port, acl.USER, certificates), env={"SIDECAR_QUEUES": "idle"})
    with make_app(broker, broker) as app, sidecar.events() as stream:
        stream.until_type("live")
        app.send_task("tests.add", (1, 2), queue="idle")
        stream.until(lambda event: event.event == "queue_status" and event.data["pending_tasks"] == 1)
        stream.until_task(app.send_task("tests.add", (1, 2)).id, "completed")
    assert "writing to rediss://" in a_worker.output


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        ("certificate verify failed", {"ssl_ca_certs": None}),
        ("not valid for|mismatch|doesn't match", {"host": OTHER_HOST}),
        # With TLS 1.3 the server says so after the handshake, and closes: who writes first may not hear it.
        ("certificate required|reset|EOF|closed", {"ssl_certfile": None, "ssl_keyfile": None}),
    ],
    ids=["another authority", "another host", "no certificate"],
)
def test_certificates_that_do_not_fit(
    expected: str,
    changes: dict[str, str | None],
    tls_port: int,
    certificates: Certificates,
    start_worker: StartWorker,
    start_sidecar: StartSidecar,
) -> None:
    """What is wrong is said in both logs, without the password; both go on."""
    a_worker = start_worker(env={"SIDECAR_REDIS_URL": url(tls_port, acl.WORKER, certificates, **changes)})
    sidecar = start_sidecar(url(tls_port, acl.USER, certificates, **changes))
    sidecar.wait_for_line(f"cannot read Redis.*({expected})")
    a_worker.wait_for_line(f"cannot write to Redis.*({expected})")
    assert 503 == sidecar.get("/readyz").status_code
    assert acl.PASSWORD not in a_worker.output + sidecar.output


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_file_that_is_not_there(
    option: str, certificates: Certificates, start_worker: StartWorker, start_sidecar: StartSidecar
) -> None:
    """It is named at start: the sidecar ends, and the plugin stays off."""
    wrong = {option: "/nowhere/it.pem"}
    a_worker = start_worker(env={"SIDECAR_REDIS_URL": url(1, acl.WORKER, certificates, **wrong)})
    sidecar = start_sidecar(url(1, acl.USER, certificates, **wrong), ready=False)
    assert 2 == sidecar.wait()
    sidecar.wait_for_line(f"SIDECAR_REDIS_URL.*the file of {option} cannot be read")
    a_worker.wait_for_line(f"celery_plugin is off.*SIDECAR_REDIS_URL: the file of {option} cannot be read")
    assert acl.PASSWORD not in a_worker.output + sidecar.output


def test_a_unix_socket(
    tmp_path: Path, start_redis: StartRedis, start_worker: StartWorker, start_sidecar: StartSidecar
) -> None:
    """A path, with user and password, does for both, and for the broker."""
    socket = tmp_path / "redis.sock"
    server = start_redis("--unixsocket", str(socket))
    a_worker = start_worker(
        server.url, env={"SIDECAR_REDIS_URL": f"unix://{acl.WORKER}:{acl.PASSWORD}@{socket}?db=0"}
    )
    sidecar = start_sidecar(f"unix://{acl.USER}:{acl.PASSWORD}@{socket}?db=0", env={"SIDECAR_QUEUES": "idle"})
    with make_app(server.url, server.url) as app, sidecar.events() as stream:
        stream.until_type("live")
        app.send_task("tests.add", (1, 2), queue="idle")
        stream.until(lambda event: event.event == "queue_status" and event.data["pending_tasks"] == 1)
        stream.until_task(app.send_task("tests.add", (1, 2)).id, "completed")
    assert acl.PASSWORD not in a_worker.output + sidecar.output
