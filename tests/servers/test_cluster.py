"""The state in a Redis Cluster: found from any node, and followed where it goes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from celery import Celery

from deploy.demo.child import environment
from deploy.demo.ports import HOST
from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.cluster_servers import PASSWORD, PREFIX, ClusterSet
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import Gate

ENV = {"SIDECAR_PREFIX": PREFIX}
LEASE = {"SIDECAR_LEASE_SECONDS": "3", "SIDECAR_LEASE_RENEW_SECONDS": "0.5"}


@pytest.fixture
def cluster() -> Iterator[ClusterSet]:
    """Three nodes of this test alone."""
    made = ClusterSet()
    try:
        made.start()
        yield made
    finally:
        made.close()


def history(sidecar: Sidecar) -> dict[str, str]:
    """Task id → how it has ended."""
    answer = sidecar.get("/api/v1/queue/history").json()
    return {task["task_id"]: task["status"] for task in answer["tasks"]}


def doctor(**variables: str) -> str:
    """What the doctor says."""
    command = [sys.executable, "-m", "sidecar", "doctor"]
    return subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, check=False, timeout=60
    ).stdout


def test_a_worker_and_a_sidecar(
    cluster: ClusterSet,
    redis_server: RedisServer,
    celery_app: Celery,
    gate: Gate,
    start_worker: StartWorker,
    start_sidecar: StartSidecar,
) -> None:
    """State, progress and log are on one node, found from another one; the broker is another Redis."""
    elsewhere = cluster.others()
    url = cluster.url(acl.WORKER, *elsewhere)
    a_worker = start_worker(env={**ENV, "SIDECAR_REDIS_URL": url})
    env = {**ENV, "SIDECAR_BROKER_URL": acl.as_user(redis_server.url), "SIDECAR_QUEUES": "idle"}
    sidecar = start_sidecar(cluster.url(acl.USER, *reversed(elsewhere)), env=env)
    with sidecar.events() as stream:
        stream.until_type("live")
        sent = celery_app.send_task("tests.progress", ("half", str(gate))).id
        stream.until(lambda event: event.event == "task_status" and event.data["message"] == "half")
        celery_app.send_task("tests.add", (1, 2), queue="idle")
        stream.until(lambda event: event.event == "queue_status" and event.data["pending_tasks"] == 1)
        gate.open()
        last = stream.until_task(sent, "completed")
    assert {sent: "completed"} == history(sidecar)
    with sidecar.events(last_event_id=last.id.replace(f"-{last.id.split('-')[1]}", "-1")) as again:
        again.until_task(sent, "completed")
        assert [] == [event for event in again.seen if event.event == "reset"]
    assert a_worker.wait_for_line(f"writing to {HOST}:{elsewhere[0].port};.* under '{PREFIX}'")
    report = doctor(SIDECAR_REDIS_URL=cluster.url(acl.USER, *elsewhere), SIDECAR_PREFIX=PREFIX)
    assert "error" not in report
    assert "alive: " in report
    for secret in (PASSWORD, acl.PASSWORD):
        assert secret not in a_worker.output + sidecar.output + report


@pytest.mark.parametrize("how", ["the slot moves", "its node dies"])
def test_the_keys_go_elsewhere(
    how: str,
    cluster: ClusterSet,
    celery_app: Celery,
    start_worker: StartWorker,
    start_sidecar: StartSidecar,
) -> None:
    """Plugin and sidecar follow, all is there, and a reset tells that the server is another one."""
    owner = cluster.owner()
    replica = cluster.add_replica(owner) if how == "its node dies" else None
    start_worker(env={**ENV, **LEASE, "SIDECAR_REDIS_URL": cluster.url(acl.WORKER)})
    sidecar = start_sidecar(cluster.url(acl.USER), env=ENV)
    with sidecar.events() as stream:
        stream.until_type("live")
        before = celery_app.send_task("tests.add", (1, 2)).id
        stream.until_task(before, "completed")
        if replica is None:
            cluster.move(cluster.others()[0])
        else:
            with owner.asked() as client:
                assert 1 == client.execute_command("WAIT", 1, 5000)
            owner.kill()
        assert "epoch" == stream.until_type("reset").data["reason"]
        stream.until_type("live")
        after = celery_app.send_task("tests.add", (1, 2)).id
        stream.until_task(after, "completed")
    assert {before: "completed", after: "completed"} == history(sidecar)
    workers = sidecar.get("/api/v1/queue/workers").json()["workers"]
    assert [True] == [each["alive"] for each in workers]


def test_a_cluster_that_nobody_said_is_one(
    cluster: ClusterSet, start_worker: StartWorker, start_sidecar: StartSidecar
) -> None:
    """Whoever names one of its nodes as a Redis is told what to write instead, by both."""
    [node, *_] = cluster.others()
    url = node.url_db(0, acl.WORKER, acl.PASSWORD)
    a_worker = start_worker(env={**ENV, "SIDECAR_REDIS_URL": url})
    sidecar = start_sidecar(node.url_db(0, acl.USER, acl.PASSWORD), env=ENV)
    report = doctor(SIDECAR_REDIS_URL=node.url_db(0, acl.USER, acl.PASSWORD), SIDECAR_PREFIX=PREFIX)
    assert "it is a Redis Cluster, and the URL does not say so" in report
    a_worker.wait_for_line("it is a Redis Cluster: SIDECAR_REDIS_URL must begin with redis")
    sidecar.wait_for_line("it is a Redis Cluster: its URL must begin with redis")
    eventually(lambda: sidecar.get("/readyz").status_code == 503)
