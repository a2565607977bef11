"""What the stream has told so far: figures, workers, tasks, and how fresh all of that is."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final

from celery_plugin.contract import END_STATUSES, JSON, EventType
from sidecar.terminal.follow import CONNECTING, OPEN, Item, Link, Message
from sidecar.terminal.text import clean

# How long a task that has ended stays, and how many do.
ENDED_SECONDS: Final = 5.0
ENDED_MAX: Final = 50
# The sidecar gives a sign of life every 15 s; after this it is doubted.
QUIET_SECONDS: Final = 20.0
_OPEN_STATUSES: Final = frozenset({"active", "reserved", "scheduled", "lost"})
# All that is shown of a task: the records of 100,000 would take 100 MB.
_KEPT: Final = (
    "task_id",
    "task_name",
    "status",
    "worker",
    "queue",
    "attempt",
    "max_retries",
    "message",
    "progress",
    "exception",
    "received_at",
    "eta",
    "started_at",
    "finished_at",
    "lost_at",
    "runtime",
)


class Picture:
    """Fed with what the stream says; times are seconds since the epoch by the sidecar's clock."""

    def __init__(self) -> None:
        self.figures: JSON = {}
        self.tasks: dict[str, JSON] = {}
        self.workers: dict[str, JSON] = {}
        # Those that have ended, the last one first, with when they leave (by `time.monotonic`).
        self.ended: deque[tuple[float, JSON]] = deque(maxlen=ENDED_MAX)
        self.truncated = False
        self.link = Link(CONNECTING)
        # Since when the sidecar cannot read Redis.
        self.stale_since: float | None = None
        self._live = False
        self._sign_at = time.monotonic()
        # The sidecar's clock less the one here.
        self._ahead = 0.0

    # -- how fresh it is

    @property
    def fresh(self) -> bool:
        """Whether all this is so now."""
        return (
            self._live
            and self.stale_since is None
            and self.link.state == OPEN
            and self.silence < QUIET_SECONDS
        )

    @property
    def begun(self) -> bool:
        """Whether anything is known at all."""
        return bool(self.figures)

    @property
    def silence(self) -> float:
        """For how many seconds nothing came."""
        return time.monotonic() - self._sign_at

    def now(self) -> float:
        """The time by which clocks are shown: they stand still where nobody knows what goes on."""
        still = 0.0 if self.fresh else self.silence
        return time.time() + self._ahead - still

    # -- what comes

    def take(self, item: Item) -> None:
        """Take in what the stream says."""
        if isinstance(item, Link):
            # A new connection says itself that Redis cannot be read.
            self._live, self.link = False, item
            self.stale_since = None if item.state == OPEN else self.stale_since
        else:
            self._sign_at = time.monotonic()
        if isinstance(item, Message):
            # Figures come when all has come: behind a snapshot, and behind what was missed.
            self._live = self._live or item.event in (EventType.LIVE, EventType.QUEUE_STATUS)
            take = _TAKES.get(item.event)
            if take is not None:
                take(self, item.data)

    def forget_ended(self) -> bool:
        """Drop what has ended a while ago; tell whether anything was dropped."""
        before = len(self.ended)
        while self.ended and self.ended[-1][0] <= time.monotonic():
            self.ended.pop()
        return len(self.ended) != before

    def _snapshot(self, data: JSON) -> None:
        if isinstance(data.get("queue_status"), dict):
            self._figures(data["queue_status"])
        for worker in _objects(data.get("workers")):
            self._worker(worker)
        for task in _objects(data.get("tasks")):
            self._task(task)
        self.truncated = self.truncated or data.get("truncated") is True

    def _reset(self, _: JSON) -> None:
        self.tasks.clear()
        self.workers.clear()
        self.truncated, self._live = False, False

    def _figures(self, data: JSON) -> None:
        self.figures = data
        if isinstance(at := data.get("server_time"), int | float):
            self._ahead = at - time.time()

    def _task(self, record: JSON) -> None:
        task_id = clean(record.get("task_id"))
        task = {name: record[name] for name in _KEPT if record.get(name) is not None}
        if record.get("status") in _OPEN_STATUSES:
            self.tasks[task_id] = task
            return
        self.tasks.pop(task_id, None)
        if record.get("status") in (*END_STATUSES, "retrying"):
            self.ended.appendleft((time.monotonic() + ENDED_SECONDS, task))

    def _worker(self, record: JSON) -> None:
        worker_id = clean(record.get("worker_id"))
        if record.get("status") == "offline":
            self.workers.pop(worker_id, None)
        else:
            self.workers[worker_id] = record

    def _stale(self, data: JSON) -> None:
        since = data.get("since", data.get("timestamp"))
        self.stale_since = float(since) if isinstance(since, int | float) else time.time() + self._ahead

    def _fresh(self, _: JSON) -> None:
        self.stale_since = None


_TAKES: Final = {
    EventType.SNAPSHOT: Picture._snapshot,
    EventType.RESET: Picture._reset,
    EventType.QUEUE_STATUS: Picture._figures,
    EventType.TASK_STATUS: Picture._task,
    EventType.WORKER_STATUS: Picture._worker,
    EventType.STALE: Picture._stale,
    EventType.FRESH: Picture._fresh,
}


def _objects(value: Any) -> list[JSON]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
