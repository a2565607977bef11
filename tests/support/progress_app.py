"""Tasks that report progress in all the ways that there are; without a thought of the plugin."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Task, current_task
from celery.backends.base import DisabledBackend

from tests.support import tasks_app

app = tasks_app.make_app()


class RaisingBackend(DisabledBackend):
    """Results that can be stored, but no progress."""

    def store_result(self, task_id: str, result: Any, state: str, *_: Any, **__: Any) -> None:
        """Raise what the caller is to see."""
        if state == "PROGRESS":
            raise LookupError(f"no place for {task_id}")


@app.task(name="progress.say", bind=True, ignore_result=True)
def say(self: Task, metas: list[Any], gate: str | None = None, state: str = "PROGRESS") -> None:
    """Report each meta at once after the other, then wait for the gate if there is one."""
    for meta in metas:
        self.update_state(state=state, meta=meta)
    if gate is not None:
        tasks_app.wait_for_file.run(gate)


@app.task(name="progress.flood", bind=True)
def flood(self: Task, count: int, seconds: float, gate: str | None = None) -> tuple[int, float]:
    """Report as fast as it goes, so often and so long; return how often it was, and how long."""
    begin, done = time.monotonic(), 1
    while done < count or time.monotonic() - begin < seconds:
        self.update_state(state="PROGRESS", meta={"done": done})
        done += 1
    self.update_state(state="PROGRESS", meta={"done": done, "message": "Last"})
    took = time.monotonic() - begin
    if gate is not None:
        tasks_app.wait_for_file.run(gate)
    return done, took


@app.task(name="progress.say_where", bind=True)
def say_where(self: Task) -> int:
    """Report, and return the process at once."""
    self.update_state(state="PROGRESS", meta={"message": "Here"})
    return os.getpid()


@app.task(name="progress.of_others", bind=True)
def of_others(self: Task, gate: str) -> None:
    """Report for ids that are not its own, for its own in two other ways, and run a task eagerly."""
    self.update_state(task_id="somebody-else", state="PROGRESS", meta={"message": "Not mine"})
    say.apply(([{"message": "Eager"}],))
    with suppress(ValueError):  # Celery's own: a function that is called has no id
        flood(1, 0.0)
    say.update_state(task_id=self.request.id, state="PROGRESS", meta={"message": "By another's method"})
    current_task.update_state(state="PROGRESS", meta={"message": "By the current task", "done": 1})
    tasks_app.wait_for_file.run(gate)


@app.task(name="progress.raises", bind=True, ignore_result=True)
def raises(self: Task, answer: str) -> None:
    """Write down what a backend that cannot store makes of an update."""
    try:
        self.update_state(state="PROGRESS", meta={"message": "Told all the same"})
    except LookupError as error:
        Path(answer).write_text(str(error))
    tasks_app.wait_for_file.run(f"{answer}.gate")


@app.task(name="progress.forks", bind=True, ignore_result=True)
def forks(self: Task, gate: str) -> None:
    """Report from a process of its own, after it has reported itself."""
    self.update_state(state="PROGRESS", meta={"message": "From the child"})
    pid = os.fork()
    if pid == 0:
        try:
            self.update_state(state="PROGRESS", meta={"message": "From the child of the child"})
            tasks_app.wait_for_file.run(gate)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
