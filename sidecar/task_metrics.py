"""The families `celery_…`: what tasks did, from the counters in Redis, and how it is, from the state.

Their names, types, labels and buckets are those of celery-exporter, so that its dashboards and alerts go on.
The counters are the same whichever sidecar is asked, and survive the restart of it and of every worker. Two
workers of one host, which have one `hostname`, are added up.

Two of its families say what nobody is told. How many tasks were sent: `celery_task_sent_total` is how many
were received, which dashboards list their tasks by. How long one waited in the broker: there is no
`celery_task_queue_wait_time` as long as no message says when it was sent.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from celery_plugin.contract import JSON
from celery_plugin.counter_names import (
    FAILED,
    FAILED_LABELS,
    LABELS,
    LOST,
    RECEIVED,
    RECEIVED_TO_STARTED,
    RUNTIME,
    RUNTIME_BUCKETS,
    WAIT_BUCKETS,
    host_of,
)
from sidecar.state import State

SENT: Final = "celery_task_sent_total"
# A worker that has ended as it should is shown as down for so long, and then no more.
GONE_SECONDS: Final = 240.0
COUNTED: Final = {
    SENT: "Tasks that were sent, as far as that is known: those that workers have received",
    RECEIVED: "Tasks that workers have received",
    "celery_task_started_total": "Tasks that were started",
    "celery_task_succeeded_total": "Tasks that have ended well",
    FAILED: "Tasks that have ended with an exception",
    "celery_task_rejected_total": "Tasks that were rejected",
    "celery_task_revoked_total": "Tasks that were revoked, expired or terminated",
    "celery_task_retried_total": "Tasks that have asked for a retry",
    LOST: "Tasks that were held by a worker that ended without an end of the task",
}
HISTOGRAMS: Final = {
    RUNTIME: (RUNTIME_BUCKETS, "How long tasks ran that have ended well, in seconds"),
    RECEIVED_TO_STARTED: (WAIT_BUCKETS, "How long tasks waited in a worker, or past their ETA, in seconds"),
}
GAUGES: Final = {
    "celery_worker_up": ("Whether a worker of the host is alive", ("hostname",)),
    "celery_worker_tasks_active": ("Tasks that run on the host", ("hostname",)),
    "celery_worker_events_given_up": (
        "What the workers of the host could not tell, since Redis was away too long",
        ("hostname",),
    ),
    "celery_queue_length": ("Messages that wait in the broker's queue", ("queue_name",)),
    "celery_active_worker_count": ("Workers that take from the queue", ("queue_name",)),
    "celery_active_process_count": ("Tasks that those workers can run at a time", ("queue_name",)),
    "celery_tasks": ("Tasks that workers have, or have lost, and those that wait", ("status",)),
    "celery_oldest_waiting_seconds": ("How long a task waits at least that is taken next", ()),
}


@dataclass(frozen=True)
class Moment:
    """What there is to show, taken at one moment."""

    figures: JSON
    workers: list[JSON]
    # Host → how many tasks run there.
    active: Mapping[str, int]


def moment_of(state: State, figures: JSON) -> Moment:
    """Take what gauges are made of."""
    active = Counter(host_of(task.worker) for task in state.active.values())
    return Moment(figures, state.shown_workers(), active)


def families(counters: Mapping[bytes, bytes], moment: Moment) -> Iterator[Metric]:
    """Make every family that has something to show."""
    yield from counted(counters)
    for name, values in _gauges(moment).items():
        text, labels = GAUGES[name]
        family = GaugeMetricFamily(name, text, labels=labels)
        for value_of_label, number in sorted(values.items()):
            family.add_metric([value_of_label] if labels else [], number)
        if values:
            yield family


# -- counters


def counted(counters: Mapping[bytes, bytes]) -> Iterator[Metric]:
    """Make the counters and histograms; what is no counter of a plugin is passed over."""
    totals: dict[str, CounterMetricFamily] = {}
    buckets: dict[str, _Series] = {name: defaultdict(dict) for name in HISTOGRAMS}
    for name, labels, number in _read(counters):
        histogram, _, part = name.rpartition("_")
        if name in COUNTED and len(labels) == len(_labels_of(name)):
            _family(totals, name).add_metric(labels, number)
            if name == RECEIVED:
                _family(totals, SENT).add_metric(labels, number)
        elif histogram in HISTOGRAMS and len(labels) >= len(LABELS):
            place = (part, *labels[len(LABELS) :])
            buckets[histogram][tuple(labels[: len(LABELS)])][place] = number
    yield from totals.values()
    for name, series in buckets.items():
        if series:
            yield _histogram(name, series)


# Labels → what is counted there: ("bucket", bound) or ("sum",) → number.
_Series = dict[tuple[str, ...], dict[tuple[str, ...], float]]


def _read(counters: Mapping[bytes, bytes]) -> Iterator[tuple[str, list[str], float]]:
    for field, value in counters.items():
        try:
            name, *labels = json.loads(field)
            number = float(value)
        except (ValueError, TypeError, RecursionError):
            continue
        if isinstance(name, str) and all(isinstance(label, str) for label in labels):
            yield name, labels, number


def _family(families: dict[str, CounterMetricFamily], name: str) -> CounterMetricFamily:
    if name not in families:
        families[name] = CounterMetricFamily(name, COUNTED[name], labels=_labels_of(name))
    return families[name]


def _labels_of(name: str) -> tuple[str, ...]:
    return FAILED_LABELS if name == FAILED else LABELS


def bound_text(bound: float) -> str:
    """An upper bound as the client library writes it, which a query finds it by."""
    return repr(float(bound))


def _histogram(name: str, series: _Series) -> HistogramMetricFamily:
    bounds, text = HISTOGRAMS[name]
    family = HistogramMetricFamily(name, text, labels=LABELS)
    # As the plugin writes a bound, and as the client library does.
    names = [(f"{bound:g}", bound_text(bound)) for bound in bounds] + [("+Inf", "+Inf")]
    for labels, numbers in series.items():
        reached, cumulated = 0.0, []
        for written, shown in names:
            reached += numbers.get(("bucket", written), 0.0)
            cumulated.append((shown, reached))
        family.add_metric(labels, cumulated, numbers.get(("sum",), 0.0))
    return family


# -- gauges


def _gauges(moment: Moment) -> dict[str, Mapping[str, float]]:
    figures, online = moment.figures, [each for each in moment.workers if each["status"] != "offline"]
    oldest = figures["oldest_waiting_s"]
    return {
        "celery_worker_up": _up(moment.workers),
        "celery_worker_tasks_active": {host: moment.active.get(host, 0) for host in _up(moment.workers)},
        "celery_worker_events_given_up": _sums(
            (host_of(each["worker"]), each.get("gave_up")) for each in moment.workers
        ),
        "celery_queue_length": {
            each["name"]: each["pending"] for each in figures["queues"] if each["pending"] is not None
        },
        "celery_active_worker_count": {each["name"]: each["consumers"] for each in figures["queues"]},
        "celery_active_process_count": _sums(
            [(each["name"], 0) for each in figures["queues"]]
            + [(queue, each.get("concurrency")) for each in online for queue in each.get("queues") or ()]
        ),
        "celery_tasks": {
            name.removesuffix("_tasks"): figures[name]
            for name in ("pending_tasks", "reserved_tasks", "scheduled_tasks", "active_tasks", "lost_tasks")
            if figures[name] is not None
        },
        "celery_oldest_waiting_seconds": {} if oldest is None else {"": oldest},
    }


def _up(workers: Iterable[JSON]) -> dict[str, float]:
    """Host → 1 where a worker is alive there, 0 where one was until lately."""
    up: dict[str, float] = {}
    for worker in workers:
        host, is_up = host_of(worker["worker"]), worker["status"] != "offline"
        if is_up or not _left_long_ago(worker):
            up[host] = max(up.get(host, 0.0), float(is_up))
    return up


def _left_long_ago(worker: JSON) -> bool:
    """Tell a worker that ended as it should, and not just now: scaling down is no outage."""
    told_at = worker.get("timestamp")
    is_lost = worker.get("reason") == "worker_lost" or "lost_at" in worker
    return not is_lost and isinstance(told_at, int | float) and time.time() - told_at > GONE_SECONDS


def _sums(numbers: Iterable[tuple[str, Any]]) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for name, number in numbers:
        if isinstance(number, int | float):
            sums[name] += number
    return dict(sums)
