"""The plugin in a worker that is there already: each of the ways that the examples show, as it is shown."""

from __future__ import annotations

import ast
import difflib
import shutil
from pathlib import Path

import pytest
from celery import Celery

from deploy.demo.redis_server import RedisServer
from tests.support.batches import Stored
from tests.support.celery_worker import wait_until_ready
from tests.support.deadline import eventually
from tests.support.examples import FOLDER, commands, start
from tests.support.processes import Process

WAYS = commands("The plugin in an existing worker")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The examples, to be changed."""
    return Path(shutil.copytree(FOLDER, tmp_path / "examples"))


@pytest.mark.parametrize("way", WAYS, ids=["environment", "option", "setting"])
def test_way(
    way: list[str],
    folder: Path,
    redis_server: RedisServer,
    celery_app: Celery,
    stored: Stored,
    processes: list[Process],
) -> None:
    """What the README has one type makes an existing worker tell of its tasks."""
    *before, last = way
    for command in before:
        prepared = start(command, folder=folder)
        processes.append(prepared)
        assert 0 == prepared.wait()
    broker = {"CELERY_BROKER_URL": redis_server.url, "CELERY_RESULT_BACKEND": redis_server.url}
    worker = start(last, folder=folder, **broker)
    processes.append(worker)
    wait_until_ready(worker)
    task_id = celery_app.send_task("reports.make_report", (1,)).id
    record = eventually(lambda: stored.finished.get(task_id), what="the plugin tells of the task")
    assert ("completed", "reports.make_report") == (record["status"], record["task_name"])


def test_the_change_is_one_line(folder: Path, processes: list[Process]) -> None:
    """The patch is all that the third way asks for."""
    patched = start(WAYS[2][0], folder=folder)
    processes.append(patched)
    assert 0 == patched.wait()
    before, after = ((place / "reports.py").read_text().splitlines() for place in (FOLDER, folder))
    changed = [line for line in difflib.ndiff(before, after) if not line.startswith(" ")]
    assert ['+ app.conf.imports = ("celery_plugin",)'] == changed


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_no_application_touches_queue_code(file: Path) -> None:
    """Nobody imports the plugin, the sidecar or a client of Redis."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    assert set() == {name.partition(".")[0] for name in imported} & {"celery_plugin", "sidecar", "redis"}
