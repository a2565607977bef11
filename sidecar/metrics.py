"""What ``/metrics`` answers.

While Redis cannot be read there is nothing of tasks in it, rather than how it was: Prometheus then shows a
gap. The text is made in a thread, as there may be 50,000 lines of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Final

import anyio
import anyio.to_thread
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from sidecar.feed import Feed, Link
from sidecar.status import StatusBoard
from sidecar.store import Store, StoreUnavailable
from sidecar.tally import FIGURES, Figure, Tally, counts
from sidecar.task_metrics import Moment, bound_text, families, moment_of

# Several Prometheus servers, and a curl beside them, share what is made once.
MAX_AGE_SECONDS: Final = 1.0


class Metrics:
    """Makes the text, one at a time."""

    def __init__(self, store: Store, feed: Feed, status: StatusBoard) -> None:
        self._store = store
        self._feed = feed
        self._status = status
        self._making = anyio.Lock()
        self._made_at = -MAX_AGE_SECONDS
        self._latest: list[Metric] = []

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their media type: OpenMetrics where it is asked for."""
        encode, media_type = choose_encoder(accept)
        async with self._making:
            if time.monotonic() - self._made_at >= MAX_AGE_SECONDS:
                self._latest = await self._make()
                self._made_at = time.monotonic()
            return await anyio.to_thread.run_sync(_encoded, encode, self._latest), media_type

    async def _make(self) -> list[Metric]:
        own = [*daemon_families(counts())]
        try:
            counters, moment = await self._tasks()
        except StoreUnavailable:
            return own
        return own + await anyio.to_thread.run_sync(_listed, counters, moment)

    async def _tasks(self) -> tuple[Mapping[bytes, bytes], Moment]:
        counters = await self._store.counters()
        figures = await self._status.refresh()
        if self._feed.link is not Link.LIVE:
            raise StoreUnavailable("what is in memory may not be what Redis says")
        return counters, moment_of(self._feed.state, figures)


def _listed(counters: Mapping[bytes, bytes], moment: Moment) -> list[Metric]:
    return list(families(counters, moment))


def _encoded(encode: Callable[[Collector], bytes], made: list[Metric]) -> bytes:
    return encode(_Made(made))


class _Made(Collector):
    """What an encoder of the client library takes."""

    def __init__(self, made: list[Metric]) -> None:
        self._made = made

    def collect(self) -> Iterable[Metric]:
        return self._made


def daemon_families(tally: Tally) -> Iterator[Metric]:
    """The families `sidecar_…`, over all processes."""
    build = GaugeMetricFamily("sidecar_build_info", "The version that runs", labels=["version"])
    build.add_metric([version("celery-sidecar")], 1)
    yield build
    for figure in FIGURES:
        yield _family(figure, tally.folded(figure))


def _family(figure: Figure, numbers: list[float]) -> Metric:
    if figure.bounds:
        return _histogram(figure, numbers)
    kind = GaugeMetricFamily if figure.is_gauge else CounterMetricFamily
    family = kind(figure.name, figure.text, labels=[figure.label] if figure.label else [])
    for value, number in zip(figure.values, numbers, strict=True):
        family.add_metric([value] if figure.label else [], number)
    return family


def _histogram(figure: Figure, numbers: list[float]) -> HistogramMetricFamily:
    *counts, total = numbers
    family = HistogramMetricFamily(figure.name, figure.text)
    reached, buckets = 0.0, []
    for name, count in zip((*map(bound_text, figure.bounds), "+Inf"), counts, strict=True):
        reached += count
        buckets.append((name, reached))
    family.add_metric([], buckets, total)
    return family
