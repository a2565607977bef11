"""The tasks of the soak: each writes down itself how it ended, independently of what is watched."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery, Task
from celery.exceptions import Ignore, Reject

app = Celery("soak")
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        # A message whose worker was killed comes back after this many seconds.
        "visibility_timeout": 6,
        # By default kombu looks for such messages once in 100 s, and not at all for five minutes after a
        # worker was killed while it looked.
        "unacked_restore_interval": 0.5,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 1,
    },
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=2,
)

# What a task does → how it must end; a task that has expired never begins.
ENDS = {
    "ok": "completed",
    "slow": "completed",
    "fail": "failed",
    "retry": "completed",
    "ignore": "completed",
    "reject": "rejected",
    "expired": "revoked",
}


def _note(task_id: str, end: str) -> None:
    # One short line in one write: appending is atomic, also from many processes.
    line = f"{task_id} {end} {time.time():.6f}\n".encode()
    tally = os.open(Path(os.environ["SOAK_TALLY"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(tally, line)
    finally:
        os.close(tally)


@app.task(name="soak.work", bind=True, max_retries=1)
def work(self: Task, kind: str) -> None:
    """End in the way that the kind says."""
    if kind == "slow":
        time.sleep(0.2)
    if kind == "retry" and self.request.retries == 0:
        raise self.retry(countdown=0.2)
    # Where all is fast one begins within its millisecond.
    _note(self.request.id, "completed" if kind == "expired" else ENDS[kind])
    _end(kind)


def _end(kind: str) -> None:
    if kind == "fail":
        raise ValueError("as it was told")
    if kind == "ignore":
        raise Ignore
    if kind == "reject":
        raise Reject("as it was told", requeue=False)
