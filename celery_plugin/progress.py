"""Sees what tasks say of their progress, by ``self.update_state(state="PROGRESS", meta={…})``.

Celery's own method runs after it, unchanged: it returns and raises what it always did, and progress is told
also where results are disabled or their backend is away. The call is made where the task runs:

    in a child of the pool    ─► a thread of that child, made at its first such call ─► record.lua
    in the worker's process   ─► a thread of that process, made at the first such call ─► writer
      (solo, threads, gevent)

Only the task that runs here, in this thread, is told: of an id that was given Celery's method knows no more
than that. A task that runs eagerly inside another one is none of the worker's, and nothing would ever end it.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from celery import signals
from celery._state import get_current_task
from celery.app.task import Task
from celery.exceptions import SoftTimeLimitExceeded

from celery_plugin.operations import Other
from celery_plugin.progress_meta import Redact, read
from celery_plugin.progress_reporter import Complaints, Reporter, Send
from celery_plugin.script import Script
from celery_plugin.settings import Settings
from celery_plugin.writer import PROGRESS, Observe


class ToRedis:
    """Sends from a child of the pool; nothing of the parent's connection is used."""

    def __init__(
        self, connect: Callable[[], Any], script: Script, settings: Settings, worker_id: str
    ) -> None:
        self._connect = connect
        self._script = script
        self._settings = settings
        self._worker_id = worker_id
        self._client: Any = None

    def __call__(self, lines: list[tuple[str, str]]) -> None:
        """Send them in one call; raises redis-py's errors."""
        # No cached_property: before Python 3.12 it has one lock for all, which a fork would inherit locked.
        self._client = self._client or self._connect()
        try:
            self._script.call(
                self._client,
                worker_id=self._worker_id,
                number=0,
                lease_seconds=0.0,
                settings=self._settings,
                epoch_if_needed=secrets.token_hex(8),
                operations=[Other(task_id, (PROGRESS, json, task_id)) for task_id, json in lines],
            )
        except Exception:
            self._client.close()
            raise


class Progress:
    """The progress of one worker's tasks; make it in the worker's process, before the pool forks."""

    def __init__(self, observe: Observe, to_redis: Callable[[], Send], redact: Redact = str) -> None:
        self._observe = observe
        self._to_redis = to_redis
        self._redact = redact
        self._pid = os.getpid()
        self._complaints = Complaints()
        self._reporters: dict[int, Reporter] = {}  # By process: a fork finds none of its own.

    def watch(self) -> None:
        """See every call of ``update_state`` from now on."""
        original = Task.update_state

        # No names of arguments here: whoever calls it wrongly is told so by Celery.
        @wraps(original)
        def update_state(task: Any, *args: Any, **kwargs: Any) -> Any:
            self._see(task, args, kwargs)
            return original(task, *args, **kwargs)

        Task.update_state = update_state

    def _see(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._report(task, *args, **kwargs)
        except SoftTimeLimitExceeded:
            # It is the task's: a signal has broken in.
            raise
        except Exception as error:
            self._complaints.log("a task's progress is given up", error)

    def _report(self, task: Any, task_id: Any = None, state: Any = None, meta: Any = None, **_: Any) -> None:
        running = _running(task, task_id)
        if running is None:
            return
        said = read(state, meta, time.time())
        if said is not None:
            self._reporter().report(running, said)

    def _reporter(self) -> Reporter:
        pid = os.getpid()
        return self._reporters.get(pid) or self._begin(pid)

    def _begin(self, pid: int) -> Reporter:
        send = self._to_writer if pid == self._pid else self._to_redis()
        made = Reporter(send, self._redact, self._complaints)
        # Two threads of a pool may come here at once.
        reporter = self._reporters.setdefault(pid, made)
        if reporter is made:
            signals.task_postrun.connect(self._ended, weak=False, dispatch_uid=("celery_plugin", id(self)))
            reporter.start()
        return reporter

    def _ended(self, task_id: str, **_: Any) -> None:
        reporter = self._reporters.get(os.getpid())
        if reporter is not None:
            reporter.forget(task_id)

    def _to_writer(self, lines: list[tuple[str, str]]) -> None:
        for task_id, json in lines:
            self._observe(PROGRESS, {"of": task_id, "json": json})


def _running(task: Any, task_id: Any) -> str | None:
    """The id under which the task runs here, if it is the one that was given or none was."""
    if task_id is None:
        return _id_of(task.request)
    # A task may be spoken of through another one's method.
    current = get_current_task()
    requests = [task.request] if current is None else [task.request, current.request]
    return task_id if task_id in map(_id_of, requests) else None


def _id_of(request: Any) -> str | None:
    # The application gives what it likes as an id; Redis has none that is not a text.
    runs = not (request.is_eager or request.called_directly)
    return request.id if runs and isinstance(request.id, str) else None
