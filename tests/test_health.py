"""The command ``celery-sidecar health``, with which a container checks itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploy.demo.child import environment
from deploy.demo.ports import HOST, free_port
from tests.support.deadline import eventually
from tests.support.starters import StartSidecar

NOBODY = "redis://127.0.0.1:1/0"


def health(*arguments: str, **env: str) -> tuple[int, str]:
    """Its exit code, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "health", *arguments],
        env=environment(**env),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.returncode, done.stdout + done.stderr


def test_well(start_sidecar: StartSidecar) -> None:
    """A sidecar that has Redis is well and ready, and nothing is said."""
    sidecar = start_sidecar()
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    assert (0, "") == health(SIDECAR_PORT=str(sidecar.port))
    assert (0, "") == health("--ready", SIDECAR_PORT=str(sidecar.port))


@pytest.mark.parametrize("address", ["0.0.0.0", "::", HOST])  # noqa: S104
def test_on_any_address(start_sidecar: StartSidecar, address: str) -> None:
    """A sidecar that listens on all addresses is asked on loopback, by the settings that it has itself."""
    env = {"SIDECAR_HOST": address, "SIDECAR_ALLOW_ANONYMOUS": "read"}
    sidecar = start_sidecar(env=env, ready=False)
    eventually(lambda: health(SIDECAR_PORT=str(sidecar.port), **env) == (0, ""))


def test_not_ready(start_sidecar: StartSidecar) -> None:
    """Without Redis it is well, so it is not restarted for nothing; and not ready, as is said."""
    sidecar = start_sidecar(NOBODY)
    eventually(lambda: sidecar.get("/livez").status_code == 200)
    assert (0, "") == health(SIDECAR_PORT=str(sidecar.port))
    code, said = health("--ready", SIDECAR_PORT=str(sidecar.port))
    assert 1 == code
    assert f"celery-sidecar: http://{HOST}:{sidecar.port}/readyz: 503 " in said


def test_nobody_there() -> None:
    """Where nobody listens it says where it has asked."""
    port = free_port()
    code, said = health(SIDECAR_PORT=str(port))
    assert 1 == code
    assert f"celery-sidecar: http://{HOST}:{port}/livez: Connection refused" in said


def test_a_mistake() -> None:
    """What is wrong with the settings is said as by ``serve``."""
    code, said = health("--left")
    assert 2 == code
    assert "no such flag" in said
    assert "SIDECAR_PORT is 'abc'" in health(SIDECAR_PORT="abc")[1]
