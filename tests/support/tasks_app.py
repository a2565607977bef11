"""A Celery application with tasks whose end a test decides; it never imports the plugin.

A worker loads the module and finds broker and results through the environment; a test makes an app
of its own with `make_app`, which has the same tasks.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from celery import Celery, Task, shared_task

_POLL_SECONDS = 0.005
# Ends a task whose test has failed before it could open the gate.
_GATE_SECONDS = 60.0


def make_app(broker: str | None = None, backend: str | None = None, **conf: Any) -> Celery:
    """Make an app; without URLs it takes CELERY_BROKER_URL and CELERY_RESULT_BACKEND."""
    made = Celery("tasks_app", broker=broker, backend=backend, set_as_current=False)
    made.conf.update(broker_connection_retry_on_startup=True, **conf)
    return made


def make_producer(url: str) -> Celery:
    """Make the app of a test, which may let go of a result when its Redis is gone.

    Before Celery 5.7 such a result asks for its Redis for 20 s, in whatever thread frees it.
    """
    once = {"retry_policy": {"max_retries": 1}}
    return make_app(url, url, result_backend_transport_options=once)


app = make_app()


class Gate:
    """What a `wait_for_file` task waits for: closed until the test opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> None:
        """Let the tasks that wait end."""
        self.path.touch()

    def __str__(self) -> str:
        return str(self.path)


@shared_task(name="tests.add")
def add(x: int, y: int) -> int:
    """Answer at once."""
    return x + y


@shared_task(name="tests.echo")
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    """Return what it was given."""
    return [args, kwargs]


@shared_task(name="tests.sleep_for")
def sleep_for(seconds: float) -> float:
    """Run for a time, in small steps, so that every pool can switch and interrupt."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))
    return seconds


@shared_task(name="tests.wait_for_file")
def wait_for_file(path: str) -> str:
    """Run until the file exists."""
    deadline = time.monotonic() + _GATE_SECONDS
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody opened {path}")
        time.sleep(_POLL_SECONDS)
    return path


@shared_task(name="tests.fail")
def fail(message: str = "it broke") -> None:
    """Fail with this message."""
    raise ValueError(message)


@shared_task(name="tests.retry_once", bind=True, max_retries=1)
def retry_once(self: Task, countdown: float = 0) -> int:
    """Ask for a retry at the first attempt, succeed at the second."""
    if self.request.retries == 0:
        raise self.retry(countdown=countdown, exc=ValueError("the first attempt fails"))
    return int(self.request.retries)


@shared_task(name="tests.big_args")
def big_args(*args: Any, **kwargs: Any) -> int:
    """Take whatever is given and answer how much it was."""
    return len(repr((args, kwargs)))


@shared_task(name="tests.big_result")
def big_result(size: int) -> str:
    """Return a string of this many characters."""
    return "x" * size


@shared_task(name="tests.progress", bind=True)
def progress(self: Task, message: str, gate: str | None = None) -> str:
    """Report progress, then wait for the gate if there is one."""
    self.update_state(state="PROGRESS", meta={"message": message, "current": 1, "total": 2})
    if gate is not None:
        wait_for_file.run(gate)
    return message
