"""The figures of ``queue_status``: what workers have, from the state; what waits, from the broker."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import anyio

from celery_plugin.contract import JSON, EventType, encode
from sidecar.broker import BrokerFacts, BrokerWatcher, QueueDepth
from sidecar.event_log import sse
from sidecar.feed import Feed, Link
from sidecar.store import Leases, Store, StoreUnavailable

logger = logging.getLogger(__name__)

# A viewer sees ten figures a second at most; the first of a quiet moment at once.
INTERVAL_SECONDS = 0.1
LEASES_SECONDS = 1.0
# What a worker takes from the broker's list it tells of a few ms later; until then the task is nowhere.
SETTLE_SECONDS = 0.01


class StatusBoard:
    """Keeps the current ``queue_status`` and tells the feed when it has changed."""

    def __init__(self, store: Store, feed: Feed, extra_queues: tuple[str, ...]) -> None:
        self._store = store
        self._feed = feed
        self._extra_queues = extra_queues
        self._broker: BrokerWatcher | None = None
        self._leases = Leases({})
        self._changed = anyio.Event()
        self._shown: JSON = {}
        self.version = 0
        self.frame = b""

    def reads(self, broker: BrokerWatcher) -> None:
        """Take the depths of the queues from a broker that can be asked."""
        self._broker = broker

    def note_change(self) -> None:
        """Say that a depth or the state has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the figures up to date."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read_leases)
            tasks.start_soon(self._follow_feed)
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                await anyio.sleep(SETTLE_SECONDS)
                await self.refresh()
                await anyio.sleep(INTERVAL_SECONDS - SETTLE_SECONDS)

    async def refresh(self) -> JSON:
        """Read what is known to have changed in the broker, and return the figures of now."""
        if any(self._lease_unknown(worker) for worker in self._feed.state.workers.values()):
            await self._load_leases()
        # Last: what a worker takes after this reading is counted twice until the next one.
        if self._broker is not None:
            await self._broker.refresh()
        current = self.current()
        shown = _shown(current)
        if shown != self._shown and self._feed.link is not Link.STARTING:
            self._shown = shown
            self.version += 1
            self.frame = sse(EventType.QUEUE_STATUS, encode(current))
            self._feed.wake()
        return current

    def alive(self, worker: JSON) -> bool:
        """Tell whether a worker has not said that it ended and its lease runs."""
        return worker["status"] != "offline" and self._leases.alive(worker["worker_id"])

    def current(self) -> JSON:
        """The figures of now, as far as the broker has been read."""
        state = self._feed.state
        alive = [worker for worker in state.workers.values() if self.alive(worker)]
        depths = self._broker.depths if self._broker is not None else None
        pending = None if depths is None else sum(depth.pending for depth in depths.values())
        active, reserved, scheduled = (state.count(status) for status in ("active", "reserved", "scheduled"))
        return {
            "type": EventType.QUEUE_STATUS,
            "total_tasks": None if pending is None else pending + reserved + scheduled + active,
            "active_tasks": active,
            "pending_tasks": pending,
            "reserved_tasks": reserved,
            "scheduled_tasks": scheduled,
            "workers_online": len(alive),
            "queues": self._queues(depths, alive),
            "server_time": round(time.time(), 6),
        }

    def _queues(self, depths: Mapping[str, QueueDepth] | None, alive: list[JSON]) -> list[JSON]:
        consumed = [queue for worker in alive for queue in worker.get("queues") or ()]
        names = {*consumed, *self._extra_queues, *(depths or ())}
        return [_queue(name, (depths or {}).get(name), consumed.count(name)) for name in sorted(names)]

    async def _read_leases(self) -> None:
        while True:
            await self._load_leases()
            self._changed.set()
            await anyio.sleep(LEASES_SECONDS)

    async def _load_leases(self) -> None:
        try:
            self._leases = await self._store.leases()
        except StoreUnavailable as error:
            logger.debug("leases cannot be read: %s", error)  # the subscriber says it aloud

    def _lease_unknown(self, worker: JSON) -> bool:
        return worker["status"] != "offline" and worker["worker_id"] not in self._leases.seconds_left

    async def _follow_feed(self) -> None:
        seen: tuple[int, int] | None = None
        while True:
            workers = self._feed.state.workers
            if seen != (now := (id(self._feed.state), self._feed.position.offset)):
                seen = now
                self._watch_queues_of(list(workers.values()))
                self._changed.set()
            await self._feed.wait()

    def _watch_queues_of(self, workers: list[JSON]) -> None:
        if self._broker is None:
            return
        by_facts: dict[BrokerFacts, set[str]] = {}
        for worker in workers:
            facts = _facts(worker.get("broker") or {})
            by_facts.setdefault(facts, set()).update(worker.get("queues") or ())
        for facts, queues in by_facts.items():
            self._broker.watch(queues, facts)


def _queue(name: str, depth: QueueDepth | None, consumers: int) -> JSON:
    return {
        "name": name,
        "pending": depth.pending if depth else None,
        "by_priority": {str(priority): count for priority, count in depth.by_priority.items()}
        if depth
        else None,
        "consumers": consumers,
        "measured_at": round(depth.measured_at, 6) if depth else None,
    }


def _shown(figures: JSON) -> JSON:
    """What a viewer would see change: everything but the times of measuring."""
    queues = [
        {name: value for name, value in queue.items() if name != "measured_at"} for queue in figures["queues"]
    ]
    return {**figures, "queues": queues, "server_time": None}


def _facts(broker: JSON) -> BrokerFacts:
    default = BrokerFacts()
    return BrokerFacts(
        sep=str(broker.get("sep", default.sep)),
        priority_steps=tuple(int(step) for step in broker.get("priority_steps", default.priority_steps)),
        global_keyprefix=str(broker.get("global_keyprefix", default.global_keyprefix)),
    )
