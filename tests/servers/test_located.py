"""The plugin alone finds its Redis behind Sentinels and in a Cluster: with each Celery and its redis-py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from celery import Celery

from tests.support import acl
from tests.support.batches import Stored
from tests.support.cluster_servers import PREFIX, ClusterSet
from tests.support.deadline import eventually
from tests.support.sentinel_app import make_sentinel_app
from tests.support.sentinel_servers import SentinelSet
from tests.support.starters import StartWorker
from tests.support.tasks_app import Gate

LEASE = {"SIDECAR_LEASE_SECONDS": "3", "SIDECAR_LEASE_RENEW_SECONDS": "0.5"}


@pytest.fixture
def sentinels() -> Iterator[SentinelSet]:
    """A master, a replica and three Sentinels of this test alone."""
    with closing(SentinelSet()) as made:
        made.start()
        yield made


@pytest.fixture
def cluster() -> Iterator[ClusterSet]:
    """Three nodes of this test alone."""
    with closing(ClusterSet()) as made:
        made.start()
        yield made


def test_a_new_master(sentinels: SentinelSet, start_worker: StartWorker, gate: Gate) -> None:
    """What runs is told to the new master with what the old one had, and so is a pool child's progress."""
    master = sentinels.servers[0]
    start_worker(sentinels.celery_url(), app="tests.support.sentinel_app", env=LEASE)
    with make_sentinel_app(sentinels.celery_url()) as app:
        with sentinels.client(master) as client:
            ended = app.send_task("tests.add", (1, 2)).id
            eventually(lambda: ended in Stored(client).finished)
            runs = app.send_task("tests.progress", ("half", str(gate))).id
            eventually(lambda: runs in Stored(client).progress)
            sentinels.wait_for_replica(master)
        master.kill()
        with sentinels.client(sentinels.wait_for_failover(master)) as client:
            stored = Stored(client)
            after = app.send_task("tests.add", (1, 2)).id
            # Celery 5.3 begins none while one runs from before; that one's end is no question of the Redis.
            eventually(lambda: after in stored.waiting.keys() | stored.finished.keys())
            assert "active" == stored.active[runs]["status"]
            gate.open()
            eventually(lambda: {ended, after} <= stored.finished.keys())


def test_another_node(cluster: ClusterSet, celery_app: Celery, start_worker: StartWorker, gate: Gate) -> None:
    """The node is found from those that do not have the keys, and followed when the slot moves."""
    env = {**LEASE, "SIDECAR_PREFIX": PREFIX, "SIDECAR_REDIS_URL": cluster.url(acl.WORKER, *cluster.others())}
    worker = start_worker(env=env)
    runs = celery_app.send_task("tests.progress", ("half", str(gate))).id
    with cluster.client() as client:
        eventually(lambda: runs in Stored(client, cluster.keys).progress)
    cluster.move(cluster.others()[0])
    gate.open()
    with cluster.client() as client:
        stored = Stored(client, cluster.keys)
        eventually(lambda: "completed" == stored.finished.get(runs, {}).get("status"))
    assert "given up" not in worker.output
