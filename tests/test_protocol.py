"""docs/protocol.md is held against a real sidecar: its frames, and the clients that it shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis

from celery_plugin.contract import EventType
from deploy.demo.redis_server import RedisServer
from sidecar import control
from sidecar.openapi import make_document
from tests.support.batches import Sender
from tests.support.conforming import Document
from tests.support.deadline import eventually
from tests.support.guarded import bearer
from tests.support.processes import Process
from tests.support.sse import Event, Parser
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import Gate
from tests.support.tokens import SECRET, token
from tests.support.writing import task, worker

QUEUE = "/api/v1/queue"
EVENTS = f"{QUEUE}/events"
NAMES = ("before", "one", "two", "three")
# Anyone may read, and who has a token only until that ends; there is room for two.
LIMITED = {"SIDECAR_AUTH_SECRETS": SECRET, "SIDECAR_ALLOW_ANONYMOUS": "read", "SIDECAR_MAX_STREAMS": "2"}
TEXT = (Path(__file__).resolve().parents[1] / "docs" / "protocol.md").read_text()


def blocks(language: str) -> list[str]:
    """The blocks of the document in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


# The frames that the document shows.
SHOWN = [event for block in blocks("sse") for event in Parser().feed(block.encode())]


def test_frames(
    redis_server: RedisServer,
    start_sidecar: StartSidecar,
    start_worker: StartWorker,
    celery_app: Celery,
    gate: Gate,
) -> None:
    """Each type of message has an example, which has the members that a real sidecar sends just now."""
    sidecar = start_sidecar(env=LIMITED)
    eventually(lambda: sidecar.get("/readyz").is_success)
    with sidecar.events() as stream:
        stream.until_type("live")
        start_worker(hostname="celery@shop")
        task_id = celery_app.send_task("tests.progress", ("page 1", str(gate))).id
        stream.until(lambda event: event.event == "task_status" and "progress" in event.data)
        with sidecar.events(last_event_id=f"{'0' * 15}1-5") as behind:
            behind.until_type("live")
            with sidecar.events() as refused:
                refused.wait_for_end()
        with sidecar.events(headers=bearer(token(ttl=1.0))) as expiring:
            expiring.wait_for_end()
        gate.open()
        with sidecar.events(f"{QUEUE}/tasks/{task_id}/events") as of_one_task:
            of_one_task.wait_for_end()
        redis_server.stop()
        stream.until_type("stale")
        redis_server.start()
        stream.until_type("fresh")
        sidecar.stop()
        stream.wait_for_end()
    document = Document(make_document())
    captured = [each for some in (stream, behind, refused, expiring, of_one_task) for each in some.seen]
    types = {value for name, value in vars(EventType).items() if name.isupper()}
    assert types == {each.event for each in captured} == {each.event for each in SHOWN}
    for shown in SHOWN:
        document.check_event(shown)
        assert shape(shown) in [shape(each) for each in captured]


def shape(event: Event) -> tuple[str, bool, list[str]]:
    """The type, whether it has an id, and the members of a message."""
    return event.event, event.own_id, list(event.data)


def is_told(line: str, name: str) -> bool:
    """Whether a line of either client tells of a task."""
    return f'"task_id":"{name}"' in line or f" {name} " in line


def test_control_lines() -> None:
    """What stands around the messages is what is sent."""
    sent = [control.RETRY, control.starting_over(None), control.HEARTBEAT]
    assert sent == [block.encode() for block in blocks("text")]


CLIENTS = {"python": (sys.executable, "follow.py"), "bash": ("bash", "follow.sh")}


@pytest.mark.parametrize("language", CLIENTS)
def test_client(
    language: str,
    sender: Sender,
    client: Redis,
    start_sidecar: StartSidecar,
    processes: list[Process],
    tmp_path: Path,
) -> None:
    """The client that is shown has each event once, also when the sidecar is killed or Redis emptied."""
    [program] = blocks(language)
    interpreter, name = CLIENTS[language]
    (tmp_path / name).write_text(program)
    sidecar = start_sidecar()
    eventually(lambda: sidecar.get("/readyz").is_success)

    def run(path: str) -> Process:
        started = Process([interpreter, name, sidecar.url + path], name=name, cwd=tmp_path)
        processes.append(started)
        return started

    sender.send(task("before", "active"))
    follower = run(EVENTS)
    follower.wait_for_line("before")
    sender.send(task("one", "active"))
    follower.wait_for_line("one")
    sidecar.kill()
    sender.send(task("two", "active"))
    sidecar = start_sidecar(port=sidecar.port)
    follower.wait_for_line("two")
    client.flushall()
    sender.send(worker(), task("three", "active"))
    last = follower.wait_for_line(r".*\bthree\b.*")[0]
    told = [name for line in follower.output.splitlines() for name in NAMES if is_told(line, name)]
    assert list(NAMES) == told
    # Whoever did not start over would know of four.
    assert language != "python" or last == "active three 1"
    one = run(f"{QUEUE}/tasks/three/events")
    sender.send(task("three", "completed"))
    assert 0 == one.wait()
    assert "completed" in one.output
