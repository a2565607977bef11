"""What is told of the worker itself: its record, and how its broker names the lists of a queue."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import Any

import celery

from celery_plugin import __version__
from celery_plugin.contract import JSON, PROTOCOL
from celery_plugin.record import WORKER_MAX_BYTES
from celery_plugin.texts import fit_text

# kombu's own defaults, for a broker whose options do not say otherwise.
_SEP = "\x06\x16"
_PRIORITY_STEPS = [0, 3, 6, 9]


# It stands in each record of a task, as JSON.
_ID_HOSTNAME_BYTES = 50


def new_worker_id(hostname: str) -> str:
    """Name this process: a worker that is restarted under its old hostname is another one."""
    # Tabs and line ends divide the lines of the runs in Redis.
    readable = "".join(character if character.isprintable() else "?" for character in hostname)
    return f"{_cut(readable, _ID_HOSTNAME_BYTES)}:{uuid.uuid4().hex[:12]}"


def shown_name(hostname: str) -> str:
    """Cut the name that is shown; ``--hostname`` may be of any length, a record may not."""
    return _cut(hostname, WORKER_MAX_BYTES)


def _cut(text: str, size: int) -> str:
    return str(json.loads(fit_text(text, size)))


class WorkerRecord:
    """Describes a running worker; ``str | None`` facts are None where Celery does not say."""

    def __init__(self, worker: Any, worker_id: str, lease_seconds: float = 15.0) -> None:
        self.worker_id = worker_id
        self.hostname = shown_name(worker.hostname)
        self.status = "online"
        self.gave_up = 0
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._started_at = time.time()

    def members(self) -> JSON:
        """Build the record as it is now; what changes with every call is left to ``stamped``."""
        app = self._worker.app
        return {
            "worker_id": self.worker_id,
            "worker": self.hostname,
            "status": self.status,
            "pid": os.getpid(),
            "pool": self._worker.pool_cls.__module__.rpartition(".")[2],
            "concurrency": self._concurrency(),
            "queues": sorted(app.amqp.queues.consume_from),
            "broker": broker_facts(app),
            "celery_version": celery.__version__,
            "plugin_version": __version__,
            "protocol": PROTOCOL,
            "lease_seconds": self._lease_seconds,
            "started_at": round(self._started_at, 6),
            "gave_up": self.gave_up,
        }

    def _concurrency(self) -> int | None:
        pool: Any = getattr(self._worker, "pool", None)
        # Before Celery 5.7 a gevent pool says how many tasks it runs.
        slots = getattr(getattr(pool, "_pool", None), "size", None)
        try:
            return int(slots if isinstance(slots, int) else pool.num_processes)
        except (AttributeError, TypeError, NotImplementedError):
            return self._worker.concurrency if isinstance(self._worker.concurrency, int) else None


def broker_facts(app: Any) -> JSON:
    """Say how the broker stores a queue; the sidecar counts Redis lists by it."""
    connection = app.connection_for_read()
    options = connection.transport_options or {}
    return {
        "transport": connection.transport.driver_type,
        "sep": options.get("sep", _SEP),
        "priority_steps": list(options.get("priority_steps", _PRIORITY_STEPS)),
        "global_keyprefix": options.get("global_keyprefix", ""),
    }
