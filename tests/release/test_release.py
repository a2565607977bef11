"""What a release has, built and used by one who has nothing else; `make release-check`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from celery_plugin import __version__
from deploy.demo.child import CHECKOUT
from deploy.demo.ports import HOST, free_port
from deploy.demo.redis_server import RedisServer
from tests.release.building import NAME, Environment, Release
from tests.support.deadline import eventually

# Of each kind of file one that is easily left out.
IN_WHEEL = {
    "celery_plugin/py.typed",
    "celery_plugin/record.lua",
    "sidecar/doctor/command.py",
    "sidecar/py.typed",
    "sidecar/static/api.d.ts",
    "sidecar/static/icon.svg",
    "sidecar/static/page.css",
    "sidecar/static/queue-viewer.js",
    "sidecar/terminal/watch.py",
    f"{NAME}.dist-info/licenses/LICENSE",
}
IN_SDIST = {
    ".ci/run",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Containerfile",
    "LICENSE",
    "Makefile",
    "SECURITY.md",
}
IN_SDIST |= {"deploy/redis-sidecar.acl", "deploy/requirements.lock", "docs/security.md", "tests/conftest.py"}

PROJ = """\
from celery import Celery

app = Celery("proj")


@app.task
def add(x, y):
    return x + y
"""


TYPED = """\
from celery_plugin.contract import Position
from sidecar.settings import BadSettings

reveal_type(Position("9f86d081884c7d65", 1).offset)
reveal_type(BadSettings([]).mistakes)
"""


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Built once."""
    made = Release(tmp_path_factory.mktemp("release"))
    made.build()
    return made


@pytest.fixture(scope="session")
def base(release: Release) -> Environment:
    """What a worker gets, with an app beside it."""
    made = release.base()
    (made.folder / "proj.py").write_text(PROJ)
    return made


@pytest.fixture(scope="session")
def server(release: Release) -> Environment:
    """What a sidecar gets."""
    return release.server()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis of this test's own."""
    with RedisServer() as server:
        yield server


def test_the_index_takes_both(release: Release) -> None:
    """The description can be shown, and nothing that an index wants is missing."""
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict"]
    done = subprocess.run(
        [*command, str(release.wheel), str(release.sdist)], capture_output=True, text=True, check=False
    )
    assert (0, 2) == (done.returncode, done.stdout.count("PASSED")), done.stdout + done.stderr


def test_the_wheel_is_complete(release: Release) -> None:
    """It has all that is no module too, and nothing but the two packages."""
    with zipfile.ZipFile(release.wheel) as wheel:
        names = set(wheel.namelist())
    assert set() == IN_WHEEL - names
    assert {"celery_plugin", "sidecar", f"{NAME}.dist-info"} == {name.split("/")[0] for name in names}


def test_the_sdist_is_complete(release: Release) -> None:
    """Who has the sdist alone can build, test and read all."""
    with tarfile.open(release.sdist) as sdist:
        names = {name.removeprefix(f"{NAME}/") for name in sdist.getnames()}
    assert set() == IN_SDIST - names
    assert not {name for name in names if "__pycache__" in name or name.startswith((".venv", ".matrix"))}


def test_the_sdist_makes_the_same_wheel(release: Release) -> None:
    """Byte for byte the one of the tree."""
    assert release.wheel_of_the_tree.read_bytes() == release.wheel.read_bytes()


def test_a_worker_gets_celery_and_redis_alone(release: Release, base: Environment) -> None:
    """Without an extra only these two are asked for, and the server is not there."""
    with zipfile.ZipFile(release.wheel) as wheel:
        metadata = Parser().parsestr(wheel.read(f"{NAME}.dist-info/METADATA").decode())
    asked = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    assert {"celery", "redis"} == {each.name for each in asked if "extra" not in str(each.marker)}
    installed = {each["name"] for each in json.loads(base.pip("list", "--format=json"))}
    assert not {"anyio", "httptools", "PyJWT", "sse-starlette", "starlette", "uvicorn"} & installed
    assert "No broken requirements found." in base.pip("check")
    assert "celery-sidecar[server]" in base.run("celery-sidecar", "serve", code=1)


def test_commands_of_the_wheel(base: Environment) -> None:
    """The wheel's own command and Celery's know one another and the version."""
    assert f"celery-sidecar {__version__}\n" == base.run("celery-sidecar", "--version")
    listed = base.run("celery", "-A", "proj", "sidecar", "--help")
    assert {"doctor", "status", "watch"} <= set(listed.split())


def test_types_of_the_wheel(base: Environment, tmp_path: Path) -> None:
    """A type checker takes the types of the installed packages."""
    program = tmp_path / "program.py"
    program.write_text(TYPED)
    python = f"--python-executable={base.folder}/bin/python"
    command = [sys.executable, "-m", "mypy", "--no-incremental", python, str(program)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    revealed = re.findall(r'Revealed type is "(.*?)"', done.stdout)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert ["int", "list[str]"] == [name.replace("builtins.", "") for name in revealed]


def test_a_worker_and_a_sidecar(base: Environment, server: Environment, redis: RedisServer) -> None:
    """A worker that has the wheel alone tells a sidecar that has it with its extras."""
    # Who has a worker on Redis has it: kombu's transport imports it without requiring it.
    base.pip("install", "--quiet", "packaging")
    port, broker = free_port(), {"CELERY_BROKER_URL": redis.url}
    worker = base.start(
        "celery", "-A", "proj", "worker", "-c1", "-lINFO", CELERY_WORKER_INCLUDE="celery_plugin", **broker
    )
    sidecar = server.start("celery-sidecar", "serve", SIDECAR_REDIS_URL=redis.url, SIDECAR_PORT=str(port))
    try:
        worker.wait_for_line(r"\bready\.")
        task_id = base.run("celery", "-A", "proj", "call", "proj.add", "--args=[2, 3]", **broker).strip()
        assert "completed" == eventually(lambda: status_of(port, task_id), what=f"{task_id} has ended")
        assert 0 == sidecar.stop()
    finally:
        worker.close()
        sidecar.close()


def status_of(port: int, task_id: str) -> str | None:
    """Ask what became of a task; None until it has ended."""
    try:
        url = f"http://{HOST}:{port}/api/v1/queue/tasks/{task_id}"
        status: str = httpx.get(url, trust_env=False).json().get("status", "")
    except httpx.TransportError:
        return None
    return status if status == "completed" else None


def test_the_sbom(release: Release) -> None:
    """It has the version, and each package of the lock that this Python wants, as locked, and no other."""
    sbom = json.loads(release.sbom.read_text())
    root = sbom["metadata"]["component"]
    assert ("celery-sidecar", __version__) == (root["name"], root["version"])
    lock = (CHECKOUT / "deploy" / "requirements.lock").read_text()
    locked = [Requirement(line.rstrip(" \\")) for line in lock.splitlines() if re.match(r"\w", line)]
    here = {each.name: str(each.specifier) for each in locked if not each.marker or each.marker.evaluate()}
    assert here == {canonicalize_name(each["name"]): f"=={each['version']}" for each in sbom["components"]}
    assert any(each["ref"] == root["bom-ref"] and each["dependsOn"] for each in sbom["dependencies"])
