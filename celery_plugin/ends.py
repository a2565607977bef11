"""Ends of runs whose worker cannot tell them: its own that it lost sight of, and those of dead workers.

They are what is left when events were given up, when Redis came back with an older state, and when a worker
was killed. Redis is searched in steps from outside the script, where a scan of 110,000 records blocked it for
1.5 s; each end counts only if the run is still open there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

from redis import Redis

from celery_plugin.contract import EXTRA_FIELDS, JSON, RANK_ENDED, Keys, encode
from celery_plugin.counter_names import LABELS, OTHER, host_of
from celery_plugin.counting import lost_field
from celery_plugin.operations import Operation, Other
from celery_plugin.record import sentence, squeeze
from celery_plugin.texts import encode_text

_SCAN_COUNT = 1000

# What the script writes into the head itself.
_HEAD_FIELDS = ("type", "status", "worker", "offset", "previous", "progress")

# So long a dead worker is shown, and a depth is kept that nobody measures any more.
FORGET_SECONDS = 3600.0
# Of the 50,000 that the script allows.
COUNTERS_CROWDED = 40_000


@dataclass(frozen=True)
class Ending:
    """How runs end: ``end`` or ``lost`` (see `Operation`), why, and when, in seconds since the epoch."""

    kind: str
    reason: str
    at: float


def stray_ends(
    client: Redis, keys: Keys, worker_id: str, hostname: str, held: Set[str], ending: Ending
) -> Iterator[Operation]:
    """Yield an end for every run of a worker but those that it holds."""
    mark = f"{worker_id}/"
    for task_id, lines in client.hscan_iter(keys.runs, count=_SCAN_COUNT):
        for line in lines.decode("utf-8", "replace").split("\n"):
            run, rank, _ = line.split("\t", 2)
            if run.startswith(mark) and run not in held and int(rank) != RANK_ENDED:
                record = _record(client, keys, task_id)
                yield _end(task_id.decode("utf-8", "replace"), run, record, hostname, ending)


def _record(client: Redis, keys: Keys, task_id: bytes) -> JSON:
    found: Any = client.hget(keys.active_tasks, task_id) or client.hget(keys.waiting_tasks, task_id)
    return json.loads(found) if found else {}


def _end(task_id: str, run: str, record: JSON, hostname: str, ending: Ending) -> Operation:
    at = round(ending.at, 6)
    # A record that somebody deleted leaves an end without facts, but a whole one.
    members: JSON = {"position": None, "task_id": task_id, "task_name": ""}
    members |= {name: value for name, value in record.items() if name not in (*_HEAD_FIELDS, *EXTRA_FIELDS)}
    members |= {"run": run, "reason": ending.reason, "message": sentence(ending.reason)}
    members |= {"finished_at": at, "updated_at": at, "timestamp": at}
    if "started_at" in record:
        members["runtime"] = max(0.0, round(at - record["started_at"], 6))
    worker = encode_text(hostname)
    texts: dict[str, str] = {name: str(record[name]) for name in EXTRA_FIELDS if name in record}
    extra, step = squeeze("lost", members, texts, worker)
    counted = lost_field(str(members["task_name"]), hostname, record.get("queue"))
    return Operation(run, worker, task_id, "", extra, step, ending.kind, counted)


def dead_workers_ends(client: Redis, keys: Keys, me: str) -> Iterator[Operation | Other]:
    """Yield what is to be said of workers whose lease has ended, and of those that ended long ago.

    One worker says it: the living one whose id comes first.
    """
    now, leases = _leases(client, keys)
    living = sorted(worker for worker, ends in leases.items() if ends > now)
    if living[:1] != [me]:
        return
    for worker, ends in leases.items():
        if ends <= now:
            yield from _ends_of(client, keys, worker, ends)
    yield from _forgotten(client, keys, set(leases), now)
    yield from _stale_depths(client, keys, now)


def counters_of_gone_hosts(client: Redis, keys: Keys) -> Iterator[Other]:
    """Make room where there are nearly too many counters: of hosts of which no worker is remembered.

    A container has a new hostname each time. Without this those of the first ones would stay, and all that
    came later be `other`.
    """
    if client.hlen(keys.counters) <= COUNTERS_CROWDED:
        return
    workers = [_object(text) for _, text in client.hscan_iter(keys.workers, count=_SCAN_COUNT)]
    known = {OTHER, *(host_of(str(record.get("worker"))) for record in workers)}
    for field, _ in client.hscan_iter(keys.counters, count=_SCAN_COUNT):
        name = field.decode("utf-8", "replace")
        labels = _labels(name)
        if len(labels) >= len(LABELS) and labels[1] not in known:
            yield Other(f"uncount {name}", ("uncount", name))


def _leases(client: Redis, keys: Keys) -> tuple[float, dict[str, float]]:
    pipeline = client.pipeline(transaction=False)
    pipeline.time()
    pipeline.zrange(keys.leases, 0, -1, withscores=True)
    (seconds, micros), ends = pipeline.execute()
    return seconds + micros / 1e6, {worker.decode("utf-8", "replace"): end for worker, end in ends}


def _ends_of(client: Redis, keys: Keys, worker: str, lease_ends: float) -> Iterator[Operation | Other]:
    record = _object(client.hget(keys.workers, worker))
    # The clock of its tasks stops when it was last heard of.
    seen_at = lease_ends - float(record.get("lease_seconds") or 0.0)
    ending = Ending("lost", "worker_lost", seen_at)
    yield from stray_ends(client, keys, worker, str(record.get("worker") or worker), frozenset(), ending)
    members = {name: value for name, value in record.items() if name not in ("type", "batch", "offset")}
    members |= {"worker_id": worker, "worker": record.get("worker") or worker}
    members |= {"status": "offline", "reason": "worker_lost", "timestamp": round(seen_at, 6)}
    yield Other(f"gone {worker}", ("gone", worker, encode(members)[1:-1]))


def _forgotten(client: Redis, keys: Keys, leased: Set[str], now: float) -> Iterator[Other]:
    for worker, text in client.hscan_iter(keys.workers, count=_SCAN_COUNT):
        name, record = worker.decode("utf-8", "replace"), _object(text)
        if name not in leased and float(record.get("timestamp") or 0.0) < now - FORGET_SECONDS:
            yield Other(f"forget {name}", ("forget", name))


def _stale_depths(client: Redis, keys: Keys, now: float) -> Iterator[Other]:
    """Of queues that no worker consumes any more; broadcast queues have a new name with each worker."""
    for queue, text in client.hscan_iter(keys.depths, count=_SCAN_COUNT):
        if float(_object(text).get("measured_at") or 0.0) < now - FORGET_SECONDS:
            name = queue.decode("utf-8", "replace")
            yield Other(f"undepth {name}", ("undepth", name))


def _labels(counter: str) -> list[Any]:
    try:
        found = json.loads(counter)
    except ValueError:
        return []
    return found[1:] if isinstance(found, list) else []


def _object(text: Any) -> JSON:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}
