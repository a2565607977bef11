"""docs/versions.md: plugin and sidecar of different versions, and what is left when all is taken out."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

from celery import Celery
from redis import Redis

from celery_plugin.contract import PROTOCOL, Keys, Position, encode, encode_batch
from deploy.demo.redis_server import RedisServer, find_client
from tests.support.batches import Sender, Stored
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import Gate
from tests.support.writing import life, task, worker

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "versions.md").read_text()
GOLDEN = ROOT / "tests" / "contract" / "v1"
QUEUE = "/api/v1/queue"
KEYS = Keys()


def golden(name: str) -> dict[str, Any]:
    """What a released version has written."""
    record: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    return record


def test_an_earlier_plugin(redis_server: RedisServer, client: Redis, start_sidecar: StartSidecar) -> None:
    """What a released version left in Redis is shown whole, and no member is missed that came later."""
    task, ended, shown_worker = (
        golden(f"{name}.json") for name in ("active_task", "finished_task", "worker")
    )
    early = {
        name: shown_worker[name] for name in ("type", "worker_id", "worker", "status", "queues", "broker")
    }
    seconds, _ = client.time()  # type: ignore[misc] # redis-py's types know of no clients that wait
    client.hset(KEYS.log, mapping={"epoch": "9f86d081884c7d65", "offset": "100"})
    client.hset(KEYS.log, "run_id", client.info("server")["run_id"])  # type: ignore[index] # as above
    client.hset(KEYS.active_tasks, task["task_id"], encode(task))
    client.hset(KEYS.workers, early["worker_id"], encode(early))
    client.zadd(KEYS.leases, {early["worker_id"]: seconds + 60})
    client.hset(KEYS.finished_tasks, ended["task_id"], encode(ended))
    client.zadd(KEYS.finished, {ended["task_id"]: ended["finished_at"]})
    sidecar = start_sidecar()
    eventually(lambda: sidecar.get("/readyz").is_success)
    assert [task] == sidecar.get(f"{QUEUE}/tasks").json()["tasks"]
    [history] = sidecar.get(f"{QUEUE}/history").json()["tasks"]
    assert ended == history
    [shown] = sidecar.get(f"{QUEUE}/workers").json()["workers"]
    assert {**early, "alive": True} == {name: shown[name] for name in (*early, "alive")}


def test_a_later_plugin(sidecar: Sidecar, sender: Sender, client: Redis, stored: Stored) -> None:
    """Members and types that nobody knows yet are passed on; with an unknown status a task is in no list."""
    with sidecar.events() as stream:
        stream.until_type("live")
        sender.send(task("a", "active", shade={"of": ["grey"]}))
        assert {"of": ["grey"]} == stream.until_task("a", "active").data["shade"]
        publish(client, stored, {"type": "forecast", "text": "rain"})
        assert "rain" == stream.until_type("forecast").data["text"]
        odd = {"type": "task_status", "task_id": "a", "task_name": "x", "status": "dreaming", "offset": 0}
        publish(client, stored, {**odd, "offset": stored.offset + 1})
        stream.until_task("a", "dreaming")
        sender.send(task("b", "active"))
        stream.until_task("b", "active")
    assert {"b": "active"} == statuses(sidecar)


def publish(client: Redis, stored: Stored, event: dict[str, Any]) -> None:
    """Put an event into the log, as a later plugin would."""
    position = Position(stored.log["epoch"], stored.offset + 1)
    text = encode(event)
    client.hset(KEYS.log, "offset", str(position.offset))
    client.xadd(KEYS.events, {"event": text, "extra": "{}"}, id=f"{position.offset}-0")
    client.publish(KEYS.events_channel, encode_batch(position, [(text.encode(), b"{}")]))


def test_the_number_of_the_contract() -> None:
    """The document names the one that is written."""
    assert f"`{PROTOCOL}` so far" in TEXT


def removal() -> list[str]:
    """The command that deletes the keys."""
    [command] = re.findall(r"^ *\$ (redis-cli .*)$", TEXT, re.MULTILINE)
    return shlex.split(command)


def test_all_keys_are_taken_out() -> None:
    """Each key that there is, and the channel is none."""
    every = {getattr(KEYS, name) for name in vars(Keys) if isinstance(getattr(Keys, name), property)}
    assert every - {KEYS.control_channel} == set(removal()[4:])
    assert ["prefix", "db"] == [each.name for each in fields(Keys)]


def test_taking_it_out(redis_server: RedisServer, sender: Sender, client: Redis) -> None:
    """The command leaves nothing of ours, and all that is somebody else's."""
    sender.send(worker(), *life("a"), task("b", "active"), task("c", "reserved"))
    client.set("queue:mine", "x")
    _, *arguments = removal()
    done = subprocess.run(
        [find_client(), "-p", str(redis_server.port), *arguments],
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert 0 == done.returncode, done.stderr
    assert [b"queue:mine"] == client.keys()


def test_a_worker_that_still_runs(
    start_sidecar: StartSidecar, start_worker: StartWorker, celery_app: Celery, gate: Gate, client: Redis
) -> None:
    """It tells anew of what it has, and viewers begin anew."""
    start_worker()
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        stream.until_type("live")
        held = celery_app.send_task("tests.wait_for_file", (str(gate),)).id
        stream.until_task(held, "active")
        client.unlink(*removal()[4:])
        other = celery_app.send_task("tests.wait_for_file", (str(gate),)).id
        stream.until_type("reset")
        eventually(lambda: {held: "active", other: "active"} == statuses(sidecar))
        gate.open()


def statuses(sidecar: Sidecar) -> dict[str, str]:
    """Task id → status, of what workers have."""
    return {each["task_id"]: each["status"] for each in sidecar.get(f"{QUEUE}/tasks").json()["tasks"]}


def test_every_test_and_file_that_is_named_exists() -> None:
    """No promise points to what is not there."""
    named = set(re.findall(r"tests/[\w/]+\.py", TEXT))
    links = [target for target in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in target]
    targets = {(ROOT / "docs" / target.split("#")[0]).resolve() for target in links}
    assert named
    assert [] == [str(path) for path in {ROOT / name for name in named} | targets if not path.exists()]
