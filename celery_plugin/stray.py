"""Runs that Redis shows as a worker's own although it no longer has them.

They are what is left when events were given up, or when Redis came back with an older state. Redis is
searched in steps from outside the script: a scan of 110,000 records inside it blocked Redis for 1.5 s.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Set
from typing import Any

from redis import Redis

from celery_plugin.contract import EXTRA_FIELDS, JSON, RANKS, Keys
from celery_plugin.record import encode_text, sentence, squeeze
from celery_plugin.script import Operation
from celery_plugin.worker import WorkerRecord

_SCAN_COUNT = 1000

# What the script writes into the head itself.
_HEAD_FIELDS = ("type", "status", "worker", "offset", "previous")


def stray_ends(client: Redis, keys: Keys, worker: WorkerRecord, held: Set[str]) -> Iterator[Operation]:
    """Yield an end for every run of this worker that it does not hold."""
    mark = f"{worker.worker_id}/"
    for task_id, lines in client.hscan_iter(keys.runs, count=_SCAN_COUNT):
        for line in lines.decode("utf-8", "replace").split("\n"):
            run = line.split("\t", 1)[0]
            if run.startswith(mark) and run not in held:
                record = _record(client, keys, task_id)
                yield _end(task_id.decode("utf-8", "replace"), run, record, worker.hostname)


def _record(client: Redis, keys: Keys, task_id: bytes) -> JSON:
    found: Any = client.hget(keys.active_tasks, task_id) or client.hget(keys.waiting_tasks, task_id)
    return json.loads(found) if found else {}


def _end(task_id: str, run: str, record: JSON, hostname: str) -> Operation:
    now = time.time()
    # A record that somebody deleted leaves an end without facts, but a whole one.
    members: JSON = {"position": None, "task_id": task_id, "task_name": ""}
    members |= {name: value for name, value in record.items() if name not in (*_HEAD_FIELDS, *EXTRA_FIELDS)}
    members |= {"run": run, "reason": "end_not_seen", "message": sentence("end_not_seen")}
    members |= {"finished_at": round(now, 6), "updated_at": round(now, 6), "timestamp": round(now, 6)}
    worker = encode_text(hostname)
    told = squeeze(members, record.get("args", ""), record.get("kwargs", ""), worker)
    return Operation("end", task_id, run, RANKS["lost"], "lost", worker, *told, at=now)
