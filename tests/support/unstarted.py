"""A worker that was set up in the test's own process and never starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery, _state
from celery.worker import WorkController


@contextmanager
def unstarted_worker(hostname: str) -> Iterator[WorkController]:
    """Set up a worker of two processes on a Redis that is never asked."""
    app = Celery("unstarted", broker="redis://", set_as_current=False)
    worker = WorkController(app=app, hostname=hostname, pool_cls="prefork", concurrency=2)
    # A process that made a pool is taken for one that runs tasks, and may not wait for results.
    _state._set_task_join_will_block(False)
    yield worker
    app.close()
