"""`celery -A proj sidecar …`: the same commands, which find their addresses in the app."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.demo.child import environment
from deploy.demo.redis_server import RedisServer
from sidecar.celery_command import settings_of
from sidecar.settings import BadSettings
from tests.support import folder_app, secure_app
from tests.support.pseudo_terminal import Terminal
from tests.support.sentinel_app import make_sentinel_app
from tests.support.sentinel_servers import SENTINEL_PASSWORD
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartWorker
from tests.support.tasks_app import make_app

APP = "tests.support.tasks_app"


def command(*arguments: str, app: str = APP) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "celery", "-A", app, "sidecar", *arguments]


def run(*arguments: str, app: str = APP, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    return subprocess.run(
        command(*arguments, app=app),
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_doctor_finds_its_way(redis_server: RedisServer, start_worker: StartWorker) -> None:
    """Redis and broker are the app's, and the rights that are tried are the worker's."""
    worker = start_worker()
    result = run(
        "doctor", "--json", CELERY_BROKER_URL=redis_server.url, CELERY_RESULT_BACKEND=redis_server.url
    )
    assert 0 == result.returncode, result.stdout + result.stderr
    found = [each["what"] for each in json.loads(result.stdout)["findings"]]
    assert any("the worker's rights: all" in what for what in found)
    assert f"alive: {worker.hostname}" in found
    assert any(what.startswith("a Redis at redis://127.0.0.1") for what in found)


def test_sentinels_of_the_app() -> None:
    """What the app says of them beside its URL stands in the URL that is looked at."""
    app = make_sentinel_app("sentinel://:a%2F@one:1/2;sentinel://two:2/2")
    found = settings_of(app, {})
    login = f"sentinel_password={SENTINEL_PASSWORD}"
    expected = f"sentinel://:a%2F@one:1/2;sentinel://two:2/2?master_name=mymaster&{login}"
    assert (expected, expected) == (found["SIDECAR_REDIS_URL"], found["SIDECAR_BROKER_URL"])


def test_watch_and_status(sidecar: Sidecar) -> None:
    """They ask the sidecar that is named, in a terminal as well."""
    result = run("status", "--url", sidecar.url)
    assert (0, "") == (result.returncode, result.stderr)
    assert "workers online" in result.stdout
    with Terminal(command("watch"), environment(SIDECAR_URL=sidecar.url)) as view:
        view.until("● live")
        view.type("q")
        assert 0 == view.wait()
        assert view.settings == view.current_settings()


def test_exit_codes_and_help(free_port: Callable[[], int]) -> None:
    """Codes and words are those of the command alone."""
    assert 1 == run("status", "--url", f"http://127.0.0.1:{free_port()}").returncode
    result = run("status", "--url", "nonsense")
    assert 2 == result.returncode
    assert "1 mistake in the settings" in result.stderr
    result = run("watch", "--help")
    assert 0 == result.returncode
    assert "usage: celery sidecar watch" in result.stdout
    assert "doctor" in run("--help").stdout


def test_an_app_without_redis(tmp_path: Path) -> None:
    """Where the app names no Redis it says which setting is missing."""
    result = run("doctor", app=folder_app.__name__, TASKS_FOLDER=str(tmp_path))
    assert 2 == result.returncode
    assert "set SIDECAR_REDIS_URL" in result.stderr


def test_what_the_app_says() -> None:
    """TLS, prefix and the sidecar's address come from the app's settings."""
    found = settings_of(secure_app.app, {})
    assert (
        "rediss://:hunter2@127.0.0.1:6390/2?ssl_cert_reqs=required&ssl_ca_certs=%2Fetc%2Fca.pem"
        == (found["SIDECAR_REDIS_URL"])
    )
    assert found["SIDECAR_REDIS_URL"] == found["SIDECAR_BROKER_URL"]
    assert ("other", "celery") == (found["SIDECAR_PREFIX"], found["SIDECAR_QUEUES"])
    assert "https://sidecar.example" == found["SIDECAR_URL"]


def test_the_environment_wins() -> None:
    """What is set there is not overruled by the app."""
    given = {"SIDECAR_REDIS_URL": "redis://a", "SIDECAR_URL": "http://b", "SIDECAR_PREFIX": "c"}
    assert given.items() <= settings_of(secure_app.app, given).items()


def test_another_broker() -> None:
    """With RabbitMQ the state is where the results are, and the broker is the app's."""
    found = settings_of(make_app("amqp://u:p@h:5672//", "redis://r:6379/1"), {})
    assert "redis://r:6379/1" == found["SIDECAR_REDIS_URL"]
    assert found["SIDECAR_BROKER_URL"].startswith("amqp://u:p@h")


@pytest.mark.parametrize("arguments", [("worker", "--help"), ("sidecar", "--help")])
def test_the_plugin_is_not_loaded_by_the_way(arguments: tuple[str, ...]) -> None:
    """Celery loads the command with each of its own: that must not make a worker one that is watched."""
    program = f"""
import sys
from celery.__main__ import main
sys.argv = ["celery", "-A", "{APP}", *{arguments!r}]
try:
    main()
finally:
    print("LOADED", sorted(name for name in sys.modules if name.startswith(("celery_plugin", "sidecar"))))
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "LOADED ['sidecar', 'sidecar.celery_command']" in result.stdout


def test_a_broker_url_that_cannot_be_read() -> None:
    """The app's mistake is named, and no piece of its password."""
    with pytest.raises(BadSettings, match="broker_url of the app cannot be read") as refused:
        settings_of(make_app("amqp://u:hunter2/p@h:5672//"), {})
    assert "hunter2" not in str(refused.value)
    assert refused.value.__suppress_context__
