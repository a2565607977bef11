"""The unit of systemd, as it is shipped."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from deploy.demo.ports import HOST, free_port
from deploy.demo.redis_server import RedisServer
from sidecar.cli import EXIT_MISTAKE
from sidecar.limits import OTHER_FILES
from sidecar.server import END_SECONDS
from sidecar.settings import Settings
from tests.support import acl
from tests.support.deadline import eventually
from tests.support.needed import need
from tests.support.restarting import EVENTS
from tests.support.sse import EventStream
from tests.support.systemd import NAME, SHIPPED, Systemd, need_namespaces

# Of 100; systemd calls up to 19 "safe" or "ok".
EXPOSURE = 13

Boot = Callable[[dict[str, str]], Systemd]


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Boot a systemd with these variables for the sidecar."""
    need_namespaces()
    booted: list[Systemd] = []

    def start(variables: dict[str, str]) -> Systemd:
        booted.append(Systemd(tmp_path, variables))
        booted[-1].wait_until_booted()
        return booted[-1]

    yield start
    for systemd in booted:
        systemd.close()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The unit with a command that is there."""
    command = tmp_path / "celery-sidecar"
    command.touch(0o755)
    text, unit = SHIPPED.read_text(), tmp_path / NAME
    assert "\nExecStart=/opt/celery-sidecar/bin/celery-sidecar serve\n" in text
    unit.write_text(text.replace("/opt/celery-sidecar/bin/celery-sidecar", str(command)))
    return unit


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask systemd-analyze."""
    command = [need(shutil.which("systemd-analyze"), "systemd-analyze"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def service() -> dict[str, str]:
    """What stands under [Service]; of what stands there several times, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # It would write them small.
    parser.read(SHIPPED)
    return dict(parser["Service"])


def test_systemd_understands_it(here: Path) -> None:
    """There is nothing that systemd does not know or would pass over."""
    done = analyze("verify", "--man=no", str(here))
    assert (0, "") == (done.returncode, done.stderr)


def test_it_gives_away_little(here: Path) -> None:
    """systemd's own measure of what a service may do is small."""
    done = analyze("security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", str(here))
    assert 0 == done.returncode, done.stdout


def test_it_waits_for_the_drain() -> None:
    """The sidecar is not killed before its streams have ended, however many processes there are."""
    assert "SIGTERM" == service()["KillSignal"]
    assert Settings().drain_seconds + END_SECONDS <= int(service()["TimeoutStopSec"])


def test_each_stream_has_its_file() -> None:
    """As many files may be open as there may be streams."""
    assert Settings().max_streams + OTHER_FILES <= int(service()["LimitNOFILE"])


@pytest.mark.parametrize("workers", [1, 2])
def test_it_runs_and_drains(redis_server: RedisServer, boot: Boot, workers: int) -> None:
    """As nobody, without a right, it reads Redis and serves streams, and told to stop it parts with each."""
    port = free_port()
    variables = {
        "SIDECAR_REDIS_URL": acl.as_user(redis_server.url),
        "SIDECAR_PORT": str(port),
        "SIDECAR_WORKERS": str(workers),
    }
    systemd = boot(variables)
    eventually(lambda: _answers(port, "/readyz"), what=systemd.log)
    assert "0" not in systemd.of_process("Uid").split()
    assert ("0" * 16, "1") == (systemd.of_process("CapBnd"), systemd.of_process("NoNewPrivs"))
    with EventStream(f"http://{HOST}:{port}{EVENTS}") as stream:
        stream.until_type("live")
        systemd.control("stop", NAME)
        assert "drain" == stream.until_type("drain").event
    assert ("inactive", "success", "0") == tuple(
        systemd.says(name) for name in ("ActiveState", "Result", "ExecMainStatus")
    )


def test_a_mistake_is_told_once(boot: Boot) -> None:
    """With a mistake in its settings it ends, says which, and is not started again."""
    systemd = boot({"SIDECAR_PORT": "many"})
    eventually(lambda: systemd.says("ActiveState") == "failed", what=systemd.log)
    assert "SIDECAR_PORT" in systemd.log
    assert (str(EXIT_MISTAKE), "0") == (systemd.says("ExecMainStatus"), systemd.says("NRestarts"))


def _answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}{path}", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
