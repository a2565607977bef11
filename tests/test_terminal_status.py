"""`celery-sidecar status`: one answer, as a table or as JSON, and an exit code that a script can use."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from deploy.demo.child import environment
from tests.support.batches import Sender
from tests.support.deadline import eventually
from tests.support.guarded import serving
from tests.support.sidecar_process import Sidecar
from tests.support.tokens import OTHER_SECRET, SECRET, token
from tests.support.writing import task

Run = subprocess.CompletedProcess[str]


def status(url: str, *arguments: str, **variables: str) -> Run:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "status", *arguments],
        env=environment(SIDECAR_URL=url, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_table(sender: Sender, sidecar: Sidecar) -> None:
    """Figures and queues stand in a table without colours, since this is no terminal."""
    sender.send(task("a", "active"), task("b", "reserved"))
    eventually(lambda: 2 == sidecar.get("/api/v1/queue/status").json()["total_tasks"])
    run = status(sidecar.url)
    assert (0, "") == (run.returncode, run.stderr)
    rows = dict(line.rsplit(maxsplit=1) for line in run.stdout.splitlines() if line)
    assert {"total": "2", "active": "1", "reserved": "1", "workers online": "1"}.items() <= rows.items()
    assert ["celery", "0", "1"] == run.stdout.splitlines()[-1].split()
    assert "\x1b" not in run.stdout


def test_json(sidecar: Sidecar) -> None:
    """As JSON it is the sidecar's answer, on one line."""
    run = status(sidecar.url, "--json")
    [line] = run.stdout.splitlines()
    answer = sidecar.get("/api/v1/queue/status").json()
    assert answer.keys() == json.loads(line).keys()


def test_nobody_there(free_port: Callable[[], int]) -> None:
    """Where nobody listens it says so and where, with exit code 1 and no traceback."""
    url = f"http://127.0.0.1:{free_port()}"
    run = status(url)
    assert (1, "", f"celery-sidecar: {url}: Connection refused\n") == (run.returncode, run.stdout, run.stderr)


@pytest.mark.parametrize("path", ["/nothing/here", "/livez"])
def test_something_else_answers(sidecar: Sidecar, path: str) -> None:
    """A wrong path is told as the answer that came."""
    run = status(sidecar.url + path)
    assert 1 == run.returncode
    assert "404 Not found" in run.stderr


def test_a_token_is_needed() -> None:
    """Without a token, and with a wrong one, it says why; none is printed."""
    with serving(auth_secrets=SECRET) as client:
        url, wrong = client.sidecar.url, token(key=OTHER_SECRET)
        assert 0 == status(url, SIDECAR_TOKEN=token()).returncode
        assert "401 Not authenticated: a token is needed" in status(url).stderr
        run = status(url, SIDECAR_TOKEN=wrong)
        assert 1 == run.returncode
        assert "401" in run.stderr
        assert wrong not in run.stderr


def test_mistakes_are_told_together() -> None:
    """Mistakes end it with exit code 2; what stands in no flag is not repeated, it may be a token."""
    run = status("nonsense", "--json")
    assert (2, "") == (run.returncode, run.stdout)
    assert "celery-sidecar: 1 mistake in the settings" in run.stderr
    run = status("http://a", "hunter2")
    assert 2 == run.returncode
    assert "hunter2" not in run.stderr
