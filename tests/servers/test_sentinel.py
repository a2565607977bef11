"""Behind Sentinels worker and sidecar go on when the master fails, and say what went with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import acl
from tests.support.deadline import eventually
from tests.support.sentinel_app import make_sentinel_app
from tests.support.sentinel_servers import PASSWORD, SENTINEL_PASSWORD, SentinelSet
from tests.support.sidecar_process import Sidecar
from tests.support.sse import Event, EventStream
from tests.support.starters import StartSidecar, StartWorker
from tests.support.writing import task, worker, writing

SECRETS = (PASSWORD, SENTINEL_PASSWORD, acl.PASSWORD)
LEASE = {"SIDECAR_LEASE_SECONDS": "3", "SIDECAR_LEASE_RENEW_SECONDS": "0.5"}


@pytest.fixture
def servers() -> Iterator[SentinelSet]:
    """A master, a replica and three Sentinels of this test alone."""
    made = SentinelSet()
    try:
        made.start()
        yield made
    finally:
        made.close()


def waits(sidecar: Sidecar, count: int) -> bool:
    """Tell whether so many tasks wait in the broker; a figure may come before or behind a task's event."""
    return bool(sidecar.get("/api/v1/queue/status").json().get("pending_tasks") == count)


def assert_nothing_secret(*outputs: str) -> None:
    """No password is in any log."""
    assert [] == [secret for secret in SECRETS for output in outputs if secret in output]


def history(sidecar: Sidecar) -> dict[str, str]:
    """Task id → how it has ended."""
    answer = sidecar.get("/api/v1/queue/history").json()
    return {task["task_id"]: task["status"] for task in answer["tasks"]}


@pytest.mark.parametrize("named", [False, True], ids=["as Celery is told", "by a setting"])
def test_a_worker_and_a_sidecar_over_a_failover(
    named: bool, servers: SentinelSet, start_worker: StartWorker, start_sidecar: StartSidecar
) -> None:
    """Whatever the replica has stays shown, new tasks and what waits too, and a reset tells of the change."""
    master = servers.servers[0]
    env = {**LEASE, **({"SIDECAR_REDIS_URL": servers.url(acl.WORKER)} if named else {})}
    a_worker = start_worker(servers.celery_url(), app="tests.support.sentinel_app", env=env)
    sidecar = start_sidecar(servers.url(acl.USER), env={"SIDECAR_QUEUES": "idle"})
    app = make_sentinel_app(servers.celery_url())
    with app, sidecar.events() as stream:
        stream.until_type("live")
        before = app.send_task("tests.add", (1, 2)).id
        stream.until_task(before, "completed")
        app.send_task("tests.add", (1, 2), queue="idle")
        eventually(lambda: waits(sidecar, 1))
        servers.wait_for_replica(master)
        master.kill()
        servers.wait_for_failover(master)
        reset = stream.until_type("reset")
        stream.until_type("live")
        after = _sent(app)
        stream.until_task(after, "completed")
        eventually(lambda: waits(sidecar, 1))
        _sent(app, queue="idle")
        eventually(lambda: waits(sidecar, 2))
    assert "epoch" == reset.data["reason"]
    assert {before: "completed", after: "completed"} == history(sidecar)
    eventually(
        lambda: [each["alive"] for each in sidecar.get("/api/v1/queue/workers").json()["workers"]] == [True]
    )
    assert_nothing_secret(a_worker.output, sidecar.output)


def _sent(app: Any, **options: Any) -> str:
    return str(app.send_task("tests.add", (1, 2), **options).id)


def test_what_the_new_master_lacks(servers: SentinelSet, start_sidecar: StartSidecar) -> None:
    """An event that was told and went with the master is taken back by a reset, before anybody writes."""
    master, replica = servers.servers
    sidecar = start_sidecar(servers.url(acl.USER))
    with writing(master.url_db(0, password=PASSWORD)) as sender, sidecar.events() as stream:
        stream.until_type("live")
        kept = sender.send(worker(), task("kept", "active"))
        stream.until_task("kept", "active")
        servers.cut_off(replica, master)
        sender.send(task("gone", "active"))
        told = stream.until_task("gone", "active")
        master.kill()
        servers.wait_for_failover(master)
        reset = stream.until_type("reset")
        stream.until_type("live")
        assert {"kept"} == shown_since(stream, reset)
    assert kept.position.epoch == told.id.split("-")[0] == stream.last_event_id.split("-")[0]
    with sidecar.events(last_event_id=told.id) as again:
        assert "future" == again.until_type("reset").data["reason"]
    # Whoever writes now begins an epoch of its own: no offset is given out twice.
    with writing(replica.url_db(0, password=PASSWORD), "two") as sender, sidecar.events() as stream:
        stream.until_type("live")
        answer = sender.send(worker("two"), task("new", "active"))
        assert "epoch" == stream.until_type("reset").data["reason"]
        stream.until_type("live")
    assert answer.position.epoch != kept.position.epoch


def shown_since(stream: EventStream, event: Event) -> set[str]:
    """The tasks of the snapshots behind an event."""
    events = stream.seen[stream.seen.index(event) :]
    tasks = [each.data.get("tasks") or () for each in events if each.event == "snapshot"]
    return {task["task_id"] for some in tasks for task in some}


def test_a_master_that_hangs(servers: SentinelSet, start_sidecar: StartSidecar) -> None:
    """One that is there and says nothing is left, and not followed when it wakes up."""
    master, replica = servers.servers
    sidecar = start_sidecar(servers.url(acl.USER))
    with writing(master.url_db(0, password=PASSWORD)) as sender, sidecar.events() as stream:
        stream.until_type("live")
        sender.send(worker(), task("one", "active"))
        stream.until_task("one", "active")
        servers.wait_for_replica(master)
        master.pause()
        servers.wait_for_failover(master)
        with writing(replica.url_db(0, password=PASSWORD), "two") as other:
            other.send(worker("two"), task("two", "active"))
            stream.until_type("stale")
            stream.until_type("reset")
            stream.until_type("live")
            master.resume()
            with servers.client(master) as client:
                eventually(lambda: client.info("replication")["role"] == "slave")
            for number in range(5):
                other.send(task(f"more{number}", "active"))
                stream.until_task(f"more{number}", "active")
        shown = {each["task_id"] for each in sidecar.get("/api/v1/queue/tasks").json()["tasks"]}
    assert {"one", "two", *(f"more{number}" for number in range(5))} == shown


@pytest.mark.parametrize(
    ("expected", "change"),
    [
        ("WRONGPASS|invalid|Authentication", lambda servers, url: url.replace(SENTINEL_PASSWORD, "geheim")),
        ("it knows no other", lambda servers, url: url.replace("mymaster", "other")),
        ("WRONGPASS|invalid", lambda servers, url: url.replace(acl.PASSWORD, "geheim")),
    ],
    ids=["a Sentinel's password", "the master's name", "the server's password"],
)
def test_mistakes(
    expected: str, change: Any, servers: SentinelSet, start_sidecar: StartSidecar, start_worker: StartWorker
) -> None:
    """What is wrong is said in both logs, without any secret; both go on."""
    sidecar = start_sidecar(change(servers, servers.url(acl.USER)))
    env = {"SIDECAR_REDIS_URL": change(servers, servers.url(acl.WORKER))}
    a_worker = start_worker(servers.celery_url(), app="tests.support.sentinel_app", env=env)
    sidecar.wait_for_line(f"cannot read Redis.*({expected})")
    a_worker.wait_for_line(f"cannot write to Redis.*({expected})")
    assert 503 == sidecar.get("/readyz").status_code
    assert_nothing_secret(a_worker.output, sidecar.output)
    assert "geheim" not in a_worker.output + sidecar.output
