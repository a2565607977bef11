"""Takes the latest progress of each task on, from a thread of its own: at most ten times a second a task.

Tasks do no more than put it into a dict. There is no lock: a signal's handler (a soft time limit) may break
in anywhere, may raise, and may report progress itself.

    report ─► latest ─► sending ─► send
                 ▲ failed │
                 └────────┘
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from celery_plugin import native
from celery_plugin.progress_meta import Redact, Said, tell

logger = logging.getLogger("celery_plugin")

INTERVAL_SECONDS = 0.1
# As many tasks as Redis takes the progress of before they have started.
TASKS_MAX = 10_000
# Of one call: more of them would hold Redis up.
BATCH_MAX = 500

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
COMPLAINT_SECONDS = 60.0
_IDLE_SECONDS = 3600.0

# Task id and JSON of each; may raise, and is then given them again.
Send = Callable[[list[tuple[str, str]]], None]


class Complaints:
    """Logs at most one line a minute."""

    def __init__(self) -> None:
        self._next = 0.0

    def log(self, what: str, error: Exception) -> None:
        """Say what is wrong, unless something was said within the last minute."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + COMPLAINT_SECONDS
            logger.warning("celery_plugin: %s: %s", what, error)


class Reporter:
    """Belongs to one process: whoever is forked makes another one."""

    def __init__(self, send: Send, redact: Redact, complaints: Complaints) -> None:
        self._send = send
        self._redact = redact
        self._complaints = complaints
        self._wake = native.Signal()
        self._latest: dict[str, Said] = {}  # What is to be sent.
        self._known: frozenset[str] = frozenset()  # Those of them for which the thread wakes by itself.
        self._sending: dict[str, Said] = {}
        # The thread's own.
        self._sent_at: dict[str, float] = {}  # Those that were sent within the last interval.
        self._retry_at = 0.0
        self._retry_seconds = FIRST_RETRY_SECONDS

    def start(self) -> None:
        """Start the thread; it ends with the process and holds nothing up."""
        native.start_thread(self._run)

    def report(self, task_id: str, said: Said) -> None:
        """Take what a task has said in place of what it said before."""
        if len(self._latest) >= TASKS_MAX and task_id not in self._latest:
            return
        self._latest[task_id] = said
        if task_id not in self._known:
            self._wake.set()

    def forget(self, task_id: str) -> None:
        """Send no more of a task that has ended here: its next run may have begun elsewhere."""
        self._sending.pop(task_id, None)
        self._latest.pop(task_id, None)

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.wait(self._until_due())
            try:
                self._turn(time.monotonic())
            except Exception as error:
                self._on_failure(error)

    def _until_due(self) -> float:
        self._known = frozenset(self._latest)
        if not self._known:
            return _IDLE_SECONDS
        due = min(self._sent_at.get(task_id, 0.0) for task_id in self._known) + INTERVAL_SECONDS
        return max(due, self._retry_at) - time.monotonic()

    def _turn(self, now: float) -> None:
        self._known = frozenset()
        if now < self._retry_at:
            return
        self._sent_at = {task_id: at for task_id, at in self._sent_at.items() if now - at < INTERVAL_SECONDS}
        due = [task_id for task_id in list(self._latest) if task_id not in self._sent_at]
        for task_id in due[:BATCH_MAX]:
            self._take(task_id, now)
        lines = self._lines()
        if lines:
            self._send(lines)
            # From its end: a call that was held up would else be followed too soon.
            self._sent_at |= dict.fromkeys(self._sending, time.monotonic())
        self._sending.clear()
        self._retry_seconds = FIRST_RETRY_SECONDS

    def _take(self, task_id: str, now: float) -> None:
        said = self._latest.pop(task_id, None)
        if said is not None:
            self._sending[task_id] = said
            self._sent_at[task_id] = now

    def _lines(self) -> list[tuple[str, str]]:
        lines = []
        for task_id, said in list(self._sending.items()):
            try:
                lines.append((task_id, tell(said, self._redact)))
            except Exception as error:
                # One that is not understood must not hold up the others.
                self._sending.pop(task_id, None)
                self._complaints.log("a task's progress is given up", error)
        return lines

    def _on_failure(self, error: Exception) -> None:
        self._complaints.log("progress does not reach Redis, tasks go on without it", error)
        for task_id, said in list(self._sending.items()):
            self._latest.setdefault(task_id, said)
        self._sending.clear()
        self._retry_at = time.monotonic() + self._retry_seconds
        self._retry_seconds = min(self._retry_seconds * 2, LAST_RETRY_SECONDS)
