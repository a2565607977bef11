"""Real Celery workers."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from uuid import uuid4

from deploy.demo.child import environment
from tests.support.processes import Process

TASKS_APP = "tests.support.tasks_app"
PLUGIN = "celery_plugin"


class Worker(Process):
    """A worker process; a prefork one has its pool children in the same process group."""

    hostname: str


def launch_worker(
    broker: str,
    *,
    backend: str | None = None,
    app: str = TASKS_APP,
    pool: str = "prefork",
    concurrency: int = 2,
    events: bool = False,
    hostname: str | None = None,
    plugin: bool = True,
    arguments: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Worker:
    """Start a worker without waiting; the plugin comes in through the environment, as for users."""
    name = hostname or f"w{uuid4().hex[:6]}@{socket.gethostname()}"
    command = [sys.executable, "-m", "celery", f"--app={app}", "worker"]
    options = [f"--pool={pool}", f"--concurrency={concurrency}", f"--hostname={name}", "--loglevel=INFO"]
    variables = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": backend or broker}
    if plugin:
        variables["CELERY_WORKER_INCLUDE"] = PLUGIN
    worker = Worker(
        [*command, *options, *(["-E"] if events else []), *arguments],
        name=f"worker {name}",
        env=environment(**variables | dict(env or {})),
    )
    worker.hostname = name
    return worker


def wait_until_ready(worker: Worker) -> None:
    """Wait until the worker consumes."""
    worker.wait_for_line(r"\bready\.$")
