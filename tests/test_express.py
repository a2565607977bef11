"""The example for Express in docs/security.md, in a real Node: its token opens the sidecar."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import httpx
import pytest

from deploy.demo.ports import HOST
from tests.support import npm
from tests.support.batches import Sender
from tests.support.deadline import eventually
from tests.support.needed import need
from tests.support.processes import Process
from tests.support.starters import StartSidecar
from tests.support.tokens import SECRET
from tests.support.writing import task

ROOT = Path(__file__).resolve().parents[1]
SECURITY = (ROOT / "docs" / "security.md").read_text()
# What the example imports.
PACKAGES = ("express@5", "jsonwebtoken@9")
# What it takes for granted, and the line that every application has.
BEFORE = """\
const requireLogin = (req, res, next) => (req.get("cookie") === "user=ada" ? next() : res.sendStatus(401));
"""
AFTER = f"\nconst server = app.listen(0, '{HOST}', () => console.log(`port ${{server.address().port}}`));\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the example imports."""
    return npm.install(tmp_path_factory.mktemp("express"), *PACKAGES)


@pytest.fixture
def site(folder: Path, processes: list[Process]) -> str:
    """The example, as the document has it, served."""
    [example] = re.findall(r"### Express\n\n```js\n(.*?)```", SECURITY, re.DOTALL)
    (folder / "app.mjs").write_text(BEFORE + example + AFTER)
    node = need(shutil.which("node"), "node")
    # The first secret is the one that signs.
    env = os.environ | {"SIDECAR_AUTH_SECRETS": f" {SECRET} ,another"}
    process = Process([node, "app.mjs"], name="Express", cwd=folder, env=env)
    processes.append(process)
    port = process.wait_for_line(r"^port (\d+)$")[1]
    return f"http://{HOST}:{port}"


def test_the_token_of_express(site: str, sender: Sender, start_sidecar: StartSidecar) -> None:
    """It shows the tasks that it names, without arguments, and no others; without a login there is none."""
    sender.send(
        task("mine", "active", task_name="app.reports.make"),
        task("other", "active", task_name="app.mail.send"),
    )
    sidecar = start_sidecar(env={"SIDECAR_AUTH_SECRETS": SECRET})
    eventually(lambda: sidecar.get("/readyz").is_success)
    assert 401 == httpx.get(f"{site}/queue-token", trust_env=False).status_code
    answer = httpx.get(f"{site}/queue-token", headers={"Cookie": "user=ada"}, trust_env=False)
    headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    tasks = sidecar.get("/api/v1/queue/tasks", headers=headers).json()["tasks"]
    assert [("mine", None)] == [(each["task_id"], each.get("args")) for each in tasks]
    assert 404 == sidecar.get("/api/v1/queue/tasks/other", headers=headers).status_code
