"""The figures of ``queue_status``: what workers have, from the state; what waits, from the broker."""

from __future__ import annotations

import time

import anyio

from celery_plugin.contract import JSON, EventType
from sidecar.broker import BrokerFacts, BrokerWatcher
from sidecar.feed import Feed, Link
from sidecar.figures import Figures
from sidecar.pulse import Measured
from sidecar.queues import Sources, is_elsewhere, list_queues, names_of, sum_of
from sidecar.scope import Scope
from sidecar.scoped_status import ScopedStatus, count_tasks, narrow_status

# A viewer sees ten figures a second at most; the first of a quiet moment at once.
INTERVAL_SECONDS = 0.1
# What a worker takes from the broker's list it tells of a few ms later; until then the task is nowhere.
SETTLE_SECONDS = 0.01


class StatusBoard:
    """Keeps the current ``queue_status`` and tells the feed when it has changed."""

    def __init__(self, feed: Feed, measured: Measured, extra_queues: tuple[str, ...]) -> None:
        self._feed = feed
        self._measured = measured
        self._extra_queues = extra_queues
        self._broker: BrokerWatcher | None = None
        self._changed = anyio.Event()
        self._latest: JSON | None = None
        self._scoped = ScopedStatus()
        # Those of everybody who may see everything.
        self.figures = Figures()
        # Which have changed and were not told so far.
        self.news: dict[Figures, None] = {}

    def reads(self, broker: BrokerWatcher) -> None:
        """Take the depths of the queues from a broker that can be asked."""
        self._broker = broker

    def note_change(self) -> None:
        """Say that a depth or the state has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the figures up to date."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow_feed)
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                await anyio.sleep(SETTLE_SECONDS)
                await self.refresh()
                await anyio.sleep(INTERVAL_SECONDS - SETTLE_SECONDS)

    async def refresh(self) -> JSON:
        """Read what is known to have changed in the broker, and return the figures of now."""
        # What a worker takes after this reading is counted twice until the next one.
        if self._broker is not None:
            await self._broker.refresh()
        current = self.current()
        if self._feed.link is not Link.STARTING:
            self._note_news(current)
        return current

    def current_of(self, scope: Scope) -> JSON:
        """The figures of now as a scope may see them; depths may be as old as the last reading."""
        if scope.everything:
            return self.current()
        figures = self._latest or self.current()
        seen = count_tasks(self._feed.state, scope)
        return narrow_status(figures, scope, seen) | {"server_time": round(time.time(), 6)}

    def figures_of(self, scope: Scope) -> Figures:
        """The figures that whoever has this scope is told."""
        if scope.everything:
            return self.figures
        figures = self._scoped.figures_of(scope)
        if not figures.version and self._latest is not None:
            figures.take(self.current_of(scope), None)
            figures.told = figures.version
        return figures

    def take_news(self) -> dict[Figures, None]:
        """The figures that have changed, which from now on those in step know."""
        news, self.news = self.news, {}
        for figures in news:
            figures.told = figures.version
        return news

    def _note_news(self, current: JSON) -> None:
        self._latest = current
        if self.figures.take(current, self._oldest_since()):
            self.news[self.figures] = None
        self.news |= dict.fromkeys(self._scoped.refresh(self._feed.state, current))
        if self.news:
            self._feed.wake()

    def current(self) -> JSON:
        """The figures of now, as far as the broker has been read."""
        state, now = self._feed.state, time.time()
        online = [worker for worker in state.shown_workers() if worker["status"] != "offline"]
        queues = list_queues(online, self._extra_queues, self._sources())
        pending = sum_of(queues)
        active, reserved, scheduled = (state.count(status) for status in ("active", "reserved", "scheduled"))
        since = self._oldest_since()
        return {
            "type": EventType.QUEUE_STATUS,
            "total_tasks": None if pending is None else pending + reserved + scheduled + active,
            "active_tasks": active,
            "pending_tasks": pending,
            "reserved_tasks": reserved,
            "scheduled_tasks": scheduled,
            "lost_tasks": state.count("lost"),
            "failed_last_hour": self._measured.failed_last_hour,
            "oldest_waiting_s": None if since is None else round(max(0.0, now - since), 3),
            "workers_online": len(online),
            "queues": queues,
            "server_time": round(now, 6),
        }

    def _sources(self) -> Sources:
        return Sources(self._broker.depths if self._broker is not None else {}, self._measured.depths)

    def _oldest_since(self) -> float | None:
        return self._broker.oldest_since if self._broker is not None else None

    async def _follow_feed(self) -> None:
        seen: tuple[int, int] | None = None
        while True:
            if seen != (now := (id(self._feed.state), self._feed.log.end)):
                seen = now
                self._watch_queues_of(list(self._feed.state.workers.values()))
                self._changed.set()
            await self._feed.wait()

    def _watch_queues_of(self, workers: list[JSON]) -> None:
        if self._broker is None:
            return
        by_facts: dict[BrokerFacts, set[str]] = {}
        for worker in workers:
            if not is_elsewhere(worker):
                by_facts.setdefault(_facts(worker.get("broker") or {}), set()).update(names_of([worker]))
        for facts, queues in by_facts.items():
            self._broker.watch(queues, facts)


def _facts(broker: JSON) -> BrokerFacts:
    default = BrokerFacts()
    return BrokerFacts(
        sep=str(broker.get("sep", default.sep)),
        priority_steps=tuple(int(step) for step in broker.get("priority_steps", default.priority_steps)),
        global_keyprefix=str(broker.get("global_keyprefix", default.global_keyprefix)),
    )
