"""Counters of what tasks did, with the names, labels and buckets that existing dashboards use.

A counter's field in Redis is a JSON array, its name and its labels:
``["celery_task_started_total","app.add","host","celery"]``. A histogram has a field for each bucket, not
cumulated, with its upper bound as the last label.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Final

from celery_plugin.events import exception_class
from celery_plugin.runs import Run
from celery_plugin.script import Other

# Of the default buckets of Prometheus's client.
RUNTIME_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip  # one scale, one line
WAIT_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
RUNTIME: Final = "celery_task_runtime"
# Not celery_task_queue_wait_time: when a message was sent, Celery does not say.
RECEIVED_TO_STARTED: Final = "celery_task_received_to_started"

TOTALS: Final = {
    "reserved": "celery_task_received_total",
    "scheduled": "celery_task_received_total",
    "active": "celery_task_started_total",
    "completed": "celery_task_succeeded_total",
    "failed": "celery_task_failed_total",
    "retrying": "celery_task_retried_total",
    "revoked": "celery_task_revoked_total",
    "rejected": "celery_task_rejected_total",
}

OTHER: Final = "other"
# Task names of one worker; an application that makes names up must not fill Redis.
NAMES_MAX = 1000
EXCEPTIONS_MAX = 200


class Counts:
    """Adds up until the next batch. Belongs to the writer's thread."""

    def __init__(self, hostname: str) -> None:
        self._host = hostname.rpartition("@")[2]
        self._added: Counter[tuple[str, ...]] = Counter()
        self._sums: Counter[tuple[str, ...]] = Counter()
        self._names: set[tuple[str, str]] = set()
        self._exceptions: set[str] = set()

    def note(self, run: Run) -> None:
        """Count the step that a run has just made."""
        total = TOTALS.get(run.status)
        if total is None or (run.status == "reserved" and run.updated_at != run.received_at):
            return  # a scheduled one whose time has come was received before
        labels = self._labels(run)
        if run.status == "failed":
            name, host, queue = labels
            self._added[total, name, host, self._exception(run.exception), queue] += 1
        else:
            self._added[(total, *labels)] += 1
        if run.status == "active" and run.started_at is not None:
            self._observe(RECEIVED_TO_STARTED, labels, run.started_at - max(run.received_at, run.eta or 0.0))
        elif run.status == "completed" and run.runtime is not None:
            self._observe(RUNTIME, labels, run.runtime)

    def take(self) -> Iterator[Other]:
        """Yield what has been added, and begin anew."""
        added, self._added = self._added, Counter()
        sums, self._sums = self._sums, Counter()
        for field, number in added.items():
            yield _operation(field, str(number))
        for field, seconds in sums.items():
            yield _operation(field, f"{seconds:.6f}")

    def __bool__(self) -> bool:
        return bool(self._added)

    def _observe(self, histogram: str, labels: tuple[str, str, str], seconds: float) -> None:
        seconds = max(0.0, seconds)
        buckets = RUNTIME_BUCKETS if histogram == RUNTIME else WAIT_BUCKETS
        bound = next((f"{bound:g}" for bound in buckets if seconds <= bound), "+Inf")
        self._added[(f"{histogram}_bucket", *labels, bound)] += 1
        # A Counter of floats is a dict that begins at 0.
        self._sums[(f"{histogram}_sum", *labels)] += seconds  # type: ignore[assignment]

    def _labels(self, run: Run) -> tuple[str, str, str]:
        name, queue = run.task_name, run.queue or ""
        if (name, queue) not in self._names:
            if len(self._names) >= NAMES_MAX:
                return OTHER, self._host, OTHER
            self._names.add((name, queue))
        return name, self._host, queue

    def _exception(self, exception: str | None) -> str:
        name = (exception and exception_class(exception)) or "Exception"
        if name not in self._exceptions:
            if len(self._exceptions) >= EXCEPTIONS_MAX:
                return OTHER
            self._exceptions.add(name)
        return name


def _operation(field: tuple[str, ...], number: str) -> Other:
    name, *labels = field
    bound = labels[-1:] if name.endswith("_bucket") else []
    other = [name, *[OTHER] * (len(labels) - len(bound)), *bound]
    return Other("", ("count", number, _json(other), _json(field)))


def _json(field: list[str] | tuple[str, ...]) -> str:
    return json.dumps(field, ensure_ascii=False, separators=(",", ":"))
