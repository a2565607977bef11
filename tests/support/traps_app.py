"""A Celery application whose tasks end in the odd ways; it has the tasks of `tasks_app`, too."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task, shared_task
from celery.exceptions import Ignore, Reject
from kombu import VERSION as KOMBU
from kombu.transport import redis

from tests.support import tasks_app
from tests.support.tasks_app import wait_for_file

# What was not acknowledged in time goes back to the queue; kombu looks now and then, and at a start.
RESTORING: dict[str, float] = {
    "visibility_timeout": float(os.environ.get("VISIBILITY_SECONDS", "3600")),
    "unacked_restore_interval": 0.5,
    "unacked_restore_throttle": 1,
    # A worker that is killed while it looks must not keep the others from looking for five minutes.
    "unacked_mutex_expire": 1,
}


class Restoring(redis.Transport):
    """Looks as often as that before kombu 5.7, too, which does so once in 100 s."""

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Look in between."""
        super().register_with_event_loop(connection, loop)
        loop.call_repeatedly(RESTORING["unacked_restore_interval"], self._restore)

    def _restore(self) -> None:
        consuming = [channel for channel in self.cycle._channels if channel.active_queues]
        for channel in consuming[:1]:
            channel.qos.restore_visible(interval=1)


if KOMBU < (5, 7):
    redis.Transport = Restoring

app: Celery = tasks_app.make_app(
    broker_transport_options=RESTORING,
    worker_cancel_long_running_tasks_on_connection_loss=bool(os.environ.get("CANCEL_ON_LOSS")),
    worker_max_tasks_per_child=int(os.environ.get("TASKS_PER_CHILD", "0")) or None,
)


class SlowToTell(Task):
    """Its retry is on its way long before the worker learns that it asked for one."""

    abstract = True

    def on_retry(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Hold the first attempt up."""
        wait_for_file.run(args[0])


@shared_task(name="tests.retry_told_late", base=SlowToTell, bind=True, max_retries=1)
def retry_told_late(self: Task, gate: str) -> int:
    """Retry at once; the first attempt ends when the gate opens."""
    if self.request.retries == 0:
        raise self.retry(countdown=0, exc=ValueError("the first attempt fails"))
    return int(self.request.retries)


@shared_task(name="tests.retry_always", bind=True, max_retries=None)
def retry_always(self: Task, queue: str) -> None:
    """Go on to another queue."""
    raise self.retry(countdown=0, queue=queue)


@shared_task(name="tests.ignore")
def ignore() -> None:
    """End without a result."""
    raise Ignore("nothing to do")


@shared_task(name="tests.replace", bind=True)
def replace(self: Task, x: int, y: int) -> None:
    """Let an addition take its place, under its id."""
    raise self.replace(self.app.signature("tests.add", args=(x, y)))


@shared_task(name="tests.reject", acks_late=True)
def reject() -> None:
    """Refuse the message for good."""
    raise Reject("not for me", requeue=False)


@shared_task(name="tests.reject_too_late", acks_late=False)
def reject_too_late(requeue: bool) -> None:
    """Refuse a message that was acknowledged before: it is gone, whatever the task wants."""
    raise Reject("too late", requeue=requeue)


@shared_task(name="tests.requeue", bind=True, acks_late=True)
def requeue(self: Task, mark: str) -> str:
    """Put the message back into the queue once."""
    if not Path(mark).exists():
        Path(mark).touch()
        raise Reject("later", requeue=True)
    return mark


@shared_task(name="tests.fail_unacknowledged", acks_late=True, acks_on_failure_or_timeout=False)
def fail_unacknowledged() -> None:
    """Fail, so that the worker rejects the message."""
    raise ValueError("it broke")


@shared_task(name="tests.silent", send_events=False)
def silent(gate: str) -> str:
    """Send no events."""
    return str(wait_for_file.run(gate))


@shared_task(name="tests.silent_failure", send_events=False)
def silent_failure() -> None:
    """Send no events, and fail."""
    raise ValueError("it broke")


@shared_task(name="tests.wait_late", acks_late=True)
def wait_late(gate: str) -> str:
    """Run until the gate opens; the message is acknowledged then."""
    return str(wait_for_file.run(gate))


@shared_task(name="tests.wait_and_tally", acks_late=True)
def wait_and_tally(gate: str, tally: str) -> None:
    """Run until the gate opens; leave a line for each time that it ran to its end."""
    wait_for_file.run(gate)
    with Path(tally).open("a") as lines:
        lines.write(f"{os.getpid()}\n")


@shared_task(name="tests.die")
def die() -> None:
    """Kill the process of the pool that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(name="tests.compute")
def compute(seconds: float) -> float:
    """Use the processor without ever letting go, as an extension does that is not made for greenlets."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass
    return seconds


@shared_task(name="tests.gather")
def gather(numbers: list[int]) -> int:
    """Sum up."""
    return sum(numbers)
