"""Counts what tasks did."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

from celery_plugin.counter_names import (
    FAILED,
    LOST,
    OTHER,
    RECEIVED_TO_STARTED,
    RUNTIME,
    RUNTIME_BUCKETS,
    TOTALS,
    WAIT_BUCKETS,
    host_of,
)
from celery_plugin.events import exception_class
from celery_plugin.operations import Other
from celery_plugin.runs import Run

# A counter's name and its labels; the labels that all have: name, host, queue.
Field = tuple[str, ...]
Labels = tuple[str, str, str]

# Task names of one worker; an application that makes names up must not fill Redis.
NAMES_MAX = 1000
EXCEPTIONS_MAX = 200


class _Histogram:
    """Seconds, in buckets of which each has those up to its bound; the last one has the rest."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        seconds = max(0.0, seconds)
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds

    def fields(self, name: str, labels: Labels) -> Iterator[tuple[Field, str]]:
        for bound, number in zip((*map("{:g}".format, self._bounds), "+Inf"), self.counts, strict=True):
            if number:
                yield (f"{name}_bucket", *labels, bound), str(number)
        yield (f"{name}_sum", *labels), f"{self.sum:.6f}"


class _Series:
    """What is counted under the same name, host and queue."""

    __slots__ = ("failures", "labels", "runtime", "totals", "waits")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.totals: defaultdict[str, int] = defaultdict(int)
        self.failures: defaultdict[str, int] = defaultdict(int)  # By exception.
        self.waits: _Histogram | None = None
        self.runtime: _Histogram | None = None

    def fields(self) -> Iterator[tuple[Field, str]]:
        name, host, queue = self.labels
        for total, number in self.totals.items():
            yield (total, *self.labels), str(number)
        for exception, number in self.failures.items():
            yield (FAILED, name, host, exception, queue), str(number)
        if self.waits:
            yield from self.waits.fields(RECEIVED_TO_STARTED, self.labels)
        if self.runtime:
            yield from self.runtime.fields(RUNTIME, self.labels)


class Counts:
    """Adds up until the next batch. Belongs to the writer's thread."""

    def __init__(self, hostname: str) -> None:
        self._host = host_of(hostname)
        self._added: dict[tuple[str, str | None], _Series] = {}  # By name and queue.
        self._names: set[tuple[str, str | None]] = set()
        self._exceptions: set[str] = set()

    def note(self, run: Run) -> None:
        """Count the step that a run has just made."""
        status = run.status
        total = TOTALS.get(status)
        if total is None or (status == "reserved" and run.updated_at != run.received_at):
            return  # a scheduled one whose time has come was received before
        series = self._added.get((run.task_name, run.queue)) or self._begin(run.task_name, run.queue)
        if status == "failed":
            series.failures[self._exception(run.exception)] += 1
            return
        series.totals[total] += 1
        if status == "active" and run.started_at is not None:
            if series.waits is None:
                series.waits = _Histogram(WAIT_BUCKETS)
            series.waits.observe(run.started_at - max(run.received_at, run.eta or 0.0))
        elif status == "completed" and run.runtime is not None:
            if series.runtime is None:
                series.runtime = _Histogram(RUNTIME_BUCKETS)
            series.runtime.observe(run.runtime)

    def take(self) -> Iterator[Other]:
        """Yield what has been added, and begin anew."""
        added, self._added = self._added, {}
        for series in added.values():
            for field, number in series.fields():
                yield Other("", ("count", number, *_json_fields(field)))

    def __bool__(self) -> bool:
        return bool(self._added)

    def _begin(self, name: str, queue: str | None) -> _Series:
        if (name, queue) not in self._names and len(self._names) >= NAMES_MAX:
            name = queue = OTHER
        else:
            self._names.add((name, queue))
        if (name, queue) not in self._added:
            self._added[name, queue] = _Series((name, self._host, queue or ""))
        return self._added[name, queue]

    def _exception(self, exception: str | None) -> str:
        name = (exception and exception_class(exception)) or "Exception"
        if name not in self._exceptions:
            if len(self._exceptions) >= EXCEPTIONS_MAX:
                return OTHER
            self._exceptions.add(name)
        return name


def lost_field(name: str, hostname: str, queue: str | None) -> tuple[str, str]:
    """Where a task is counted that its worker has lost, as the script takes it."""
    return _json_fields((LOST, name, host_of(hostname), queue or ""))


@lru_cache(maxsize=10_000)
def _json_fields(field: Field) -> tuple[str, str]:
    """The field to use where there are too many, and the field itself."""
    name, *labels = field
    bound = labels[-1:] if name.endswith("_bucket") else []
    return _json([name, *[OTHER] * (len(labels) - len(bound)), *bound]), _json(field)


def _json(field: list[str] | Field) -> str:
    return json.dumps(field, ensure_ascii=False, separators=(",", ":"))
