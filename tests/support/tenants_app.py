"""A Celery application of two tenants: what is foreign has that word in its name, id, queue and arguments."""

from __future__ import annotations

from celery import Celery, Task, shared_task

from tests.support import tasks_app
from tests.support.tasks_app import wait_for_file

MINE, FOREIGN = "mine", "foreign"
TENANTS = (MINE, FOREIGN)

app: Celery = tasks_app.make_app()


def _fail(secret: str) -> None:
    raise ValueError(secret)


def _report(self: Task, secret: str) -> str:
    self.update_state(state="PROGRESS", meta={"message": f"with {secret}"})
    return secret


def _retry(self: Task, secret: str) -> str:
    if self.request.retries == 0:
        raise self.retry(countdown=0, exc=ValueError(secret))
    return secret


def _spawn(self: Task, secret: str, task_id: str, tenant: str) -> str:
    """Send a task of another tenant, which is then a child of this one."""
    self.app.send_task(f"{tenant}.report", [f"of {task_id}"], task_id=task_id, queue=tenant)
    return secret


def _hold(secret: str, gate: str) -> str:
    wait_for_file.run(gate)
    return secret


for tenant in TENANTS:
    shared_task(_fail, name=f"{tenant}.fail")
    shared_task(_report, name=f"{tenant}.report", bind=True)
    shared_task(_retry, name=f"{tenant}.retry", bind=True, max_retries=1)
    shared_task(_spawn, name=f"{tenant}.spawn", bind=True)
    shared_task(_hold, name=f"{tenant}.hold")
