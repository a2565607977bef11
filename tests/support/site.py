"""A broker, a Redis for the state, and workers: for one test, or for all tests of a module."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery.result import AsyncResult
from redis import Redis

from celery_plugin.contract import JSON
from deploy.demo.redis_server import RedisServer
from tests.support import acl, celery_worker, traps_app
from tests.support.batches import Stored
from tests.support.celery_worker import Worker
from tests.support.deadline import eventually
from tests.support.tasks_app import Gate, make_producer

LEASE_SECONDS = 1.5
RENEW_SECONDS = 0.5
SHORT_LEASE = {
    "SIDECAR_LEASE_SECONDS": str(LEASE_SECONDS),
    "SIDECAR_LEASE_RENEW_SECONDS": str(RENEW_SECONDS),
}


class Site:
    """The broker, which holds results, too; the state, in the same Redis unless it is to be another one."""

    def __init__(self, *, own_state: bool = False) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="site-")
        self.broker = RedisServer(*acl.arguments()).start()
        self.state = RedisServer(*acl.arguments()).start() if own_state else self.broker
        self.workers: list[Worker] = []
        self.app = make_producer(self.broker.url)
        self.client = Redis.from_url(self.state.url)
        self.shown = Stored(self.client)

    def start(self, *, ready: bool = True, env: dict[str, str] | None = None, **options: Any) -> Worker:
        """Start a worker; the options are those of `launch_worker`."""
        variables = {"TMPDIR": self.directory.name, "SIDECAR_REDIS_URL": self.state.url}
        options = {"app": traps_app.__name__, "concurrency": 1} | options
        worker = celery_worker.launch_worker(
            self.broker.url, env=variables | SHORT_LEASE | (env or {}), **options
        )
        self.workers.append(worker)
        if ready:
            celery_worker.wait_until_ready(worker)
        return worker

    def call(self, name: str, *arguments: Any, **options: Any) -> str:
        """Enqueue a task by its name, return its id."""
        return self.result(name, *arguments, **options).id

    def result(self, name: str, *arguments: Any, **options: Any) -> AsyncResult:
        """Enqueue a task by its name."""
        return self.app.tasks[f"tests.{name}"].apply_async(arguments, **options)

    def listening(self) -> dict[str, Any]:
        """Wait until every worker hears remote control commands; return whom to send them to.

        A gevent worker is ready before that, and what it does not hear is gone.
        """
        running = [worker.hostname for worker in self.workers if worker.running]
        every = {"limit": len(running), "destination": running}
        ping = self.app.control.ping
        eventually(lambda: len(running) == len(ping(timeout=1, **every)), what="the workers listen")
        return every

    def command(self, name: str, **arguments: Any) -> None:
        """Send a remote control command to every worker, and wait for their answers."""
        every = self.listening()
        answers = self.app.control.broadcast(name, arguments, reply=True, timeout=30, **every)
        assert every["limit"] == len(answers), f"{name}: {answers}"

    def gate(self) -> Gate:
        """Make a closed gate."""
        return Gate(Path(self.directory.name, uuid4().hex))

    def ended(self, task_id: str) -> JSON:
        """Wait for the end of a task, with nothing left open under its id; return its record."""

        def look() -> JSON | None:
            still = (self.shown.active, self.shown.waiting, self.shown.runs)
            record = self.shown.finished.get(task_id)
            over = record and record["status"] != "retrying" and not any(task_id in open_ for open_ in still)
            return record if over else None

        return eventually(look, what=f"{task_id} ends")

    def timeline(self, task_id: str) -> list[str]:
        """Every step of every run of a task."""
        return self.shown.timeline(task_id)

    def worker_id(self, worker: Worker) -> str:
        """Find the id under which the worker's plugin writes."""

        def look() -> str | None:
            workers = self.shown.workers.items()
            return next((name for name, record in workers if record.get("pid") == worker.pid), None)

        return eventually(look, what="the worker is announced")

    def close(self) -> None:
        """End all."""
        for worker in reversed(self.workers):
            worker.close()
        self.client.close()
        self.app.close()
        for server in {id(server): server for server in (self.broker, self.state)}.values():
            server.close()
        self.directory.cleanup()


@contextmanager
def open_site(*, own_state: bool = False) -> Iterator[Site]:
    """Open a site and close it; pytest shows what its workers said where a test fails."""
    site = Site(own_state=own_state)
    try:
        yield site
    finally:
        for worker in site.workers:
            print(f"--- {worker.name}\n{worker.output}")
        site.close()


def unique_hostname(name: str = "same") -> str:
    """Make a hostname that several workers can share."""
    return f"{name}-{uuid4().hex[:6]}@{socket.gethostname()}"
