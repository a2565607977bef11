"""What is read once a second, since no event tells of it: leases, failures, depths of other brokers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import anyio

from sidecar.amqp import AmqpWatcher
from sidecar.depths import QueueDepth
from sidecar.feed import Feed, Link
from sidecar.lost import View
from sidecar.queues import names_of, only_in_redis
from sidecar.state import Unreadable, read_object
from sidecar.store import Store, StoreUnavailable

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
# A depth that is older says nothing: workers measure with each renewal of their lease.
DEPTH_MAX_AGE_SECONDS = 30.0
# A worker that goes on would have measured again by then, at the default interval.
DEPTH_RENEWED_SECONDS = 8.0
HOUR_MINUTES = 60


@dataclass
class Measured:
    """What was read last; what could not be read is None, or not there."""

    failed_last_hour: int | None = None
    depths: dict[str, QueueDepth] = field(default_factory=dict)


class Pulse:
    """Reads while `run` runs."""

    def __init__(
        self,
        store: Store,
        feed: Feed,
        view: View,
        measured: Measured,
        queues: tuple[str, ...],
        amqp: AmqpWatcher | None = None,
    ) -> None:
        self._store = store
        self._feed = feed
        self._view = view
        self._measured = measured
        self._always = queues
        self._amqp = amqp

    async def run(self, on_change: Callable[[], None]) -> None:
        """Read for ever."""
        try:
            while True:
                await self.read()
                on_change()
                await anyio.sleep(INTERVAL_SECONDS)
        finally:
            if self._amqp is not None:
                self._amqp.stop()

    async def read(self) -> None:
        """Read once; what cannot be read of leases changes nothing."""
        try:
            leases = await self._store.leases()
        except StoreUnavailable as error:
            logger.debug("leases cannot be read: %s", error)  # the subscriber says it aloud
            self._measured.failed_last_hour, self._measured.depths = None, {}
            return
        if self._feed.link is Link.LIVE:
            await self._view.follow(leases)
        self._measured.failed_last_hour = await self._failures(leases.now)
        self._measured.depths = await self._depths(leases.now)

    async def _failures(self, now: float) -> int | None:
        minute = int(now // 60)
        try:
            return await self._store.failures(range(minute - HOUR_MINUTES + 1, minute + 1))
        except (StoreUnavailable, ValueError) as error:
            logger.debug("failures cannot be counted: %s", error)
            return None

    async def _depths(self, now: float) -> dict[str, QueueDepth]:
        workers = list(self._feed.state.workers.values())
        known = {*self._always, *names_of(workers)}
        try:
            if self._amqp is None:
                return _measured(await self._store.depths(sorted(known)), now)
            told = await self._store.all_depths()
        except StoreUnavailable as error:
            logger.debug("depths cannot be read: %s", error)
            return {}
        if self._feed.link is Link.LIVE:
            in_redis = only_in_redis(workers)
            self._amqp.watch(known - in_redis, told.keys() - in_redis)
        return _join(_measured(told, now), self._amqp.depths(), now)


def _measured(told: Mapping[str, bytes], now: float) -> dict[str, QueueDepth]:
    found = {queue: _depth(text, now) for queue, text in told.items()}
    return {queue: depth for queue, depth in found.items() if depth is not None}


def _join(
    told: Mapping[str, QueueDepth], asked: Mapping[str, QueueDepth], now: float
) -> dict[str, QueueDepth]:
    """A living worker knows its own broker; else the newer figure counts."""
    renewed = {
        queue: depth for queue, depth in told.items() if now - depth.measured_at <= DEPTH_RENEWED_SECONDS
    }
    newer = {
        queue: depth
        for queue, depth in asked.items()
        if queue not in told or depth.measured_at >= told[queue].measured_at
    }
    return {**told, **newer, **renewed}


def _depth(text: bytes, now: float) -> QueueDepth | None:
    try:
        depth = read_object(text)
    except Unreadable:
        return None
    pending, measured_at = depth.get("pending"), depth.get("measured_at")
    if not isinstance(pending, int) or not isinstance(measured_at, int | float):
        return None
    if not abs(now - measured_at) <= DEPTH_MAX_AGE_SECONDS:
        return None
    return QueueDepth(pending, None, measured_at)
