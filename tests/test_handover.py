"""From a snapshot to the log, and from one connection to the next: what a page shows stays right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import pytest

from sidecar import backlog, pump, snapshot
from sidecar.feed import Link
from sidecar.filters import TaskFilter
from sidecar.wanted import Wanted
from tests.support.asked import Asked
from tests.support.examination import faults_of
from tests.support.handover import MemorySidecar, Page, settle, until
from tests.support.memory_redis import MemoryRedis, MemoryStore
from tests.support.viewing import append, live_feed, viewing


@pytest.fixture
def redis() -> MemoryRedis:
    """Three tasks run, on a worker that lives."""
    redis = MemoryRedis()
    redis.alive.add("one")
    redis.write([(task_id, "active", "one") for task_id in "abc"])
    return redis


@asynccontextmanager
async def running(redis: MemoryRedis, store: MemoryStore | None = None) -> AsyncIterator[MemorySidecar]:
    """Run a sidecar that has read Redis."""
    sidecar = MemorySidecar(redis, log_length=1000, store=store)
    async with anyio.create_task_group() as tasks:
        await tasks.start(sidecar.run)
        await until(lambda: sidecar.feed.link is Link.LIVE)
        yield sidecar
        sidecar.kill()


def write(redis: MemoryRedis, sidecar: MemorySidecar, *steps: tuple[str, str]) -> None:
    """Write these steps of tasks on the worker, and tell the sidecar."""
    sidecar.subscriber.hear(redis.write([(task_id, status, "one") for task_id, status in steps]))


def assert_right(redis: MemoryRedis, *pages: Page) -> None:
    """Each page has been told each id once, and shows what Redis has."""
    for page in pages:
        assert [] == faults_of(page.told, redis.truth)
        assert [] == redis.shown.differences(page.told, figures=False)


async def come_back(page: Page, sidecar: MemorySidecar) -> None:
    """Connect again, as a browser does, and take all that comes."""
    page.connect(sidecar)
    await settle(200)


# -- cut off within a snapshot


async def test_cut_off_in_the_first_snapshot(redis: MemoryRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page has of a snapshot that was cut off, it is told to forget: a task may have ended since."""
    monkeypatch.setattr(snapshot, "PART_TASKS", 1)
    monkeypatch.setattr(snapshot, "MAX_AGE_SECONDS", 0)
    async with running(redis) as sidecar:
        page = Page(Asked())
        page.connect(sidecar, fresh=True, pieces=3)
        await until(lambda: page.told.tasks)
        assert ["a"] == list(page.told.tasks)
        write(redis, sidecar, ("a", "completed"))
        await come_back(page, sidecar)
        assert_right(redis, page)


async def test_cut_off_behind_a_reset(redis: MemoryRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was told to forget and got only a part of the snapshot does not go on from its old id."""
    monkeypatch.setattr(snapshot, "PART_TASKS", 1)
    monkeypatch.setattr(backlog, "LAG_SECONDS", 0)
    async with running(redis) as ahead, running(redis) as late:
        page = Page(Asked())
        page.connect(ahead, fresh=True)
        await until(lambda: page.told.last)
        write(redis, ahead, ("a", "completed"))
        await until(lambda: page.told.last == redis.position)
        page.connect(late, pieces=3)
        await until(lambda: not page.connected)
        assert "future" in next(line.text for line in page.told.journal if line.kind == "reset")
        late.subscriber.cut()
        await until(lambda: not late.subscriber.connected)
        late.connect()
        await until(lambda: late.feed.position == redis.position)
        await come_back(page, late)
        assert_right(redis, page)


# -- what is lost by lease


LOST = Asked((("status", "lost"),))


async def test_the_log_goes_on_with_what_was_lost(redis: MemoryRedis) -> None:
    """Who asked for what is lost sees it leave: the event of the log does not say that it was lost."""
    async with running(redis) as sidecar:
        page = Page(LOST)
        page.connect(sidecar, fresh=True)
        await until(lambda: page.told.last == redis.position)
        redis.alive.clear()
        await sidecar.pulse()
        await until(lambda: list(page.told.tasks) == ["a", "b", "c"])
        redis.alive.add("one")
        write(redis, sidecar, ("a", "completed"), ("b", "active"), ("c", "failed"))
        await until(lambda: not page.told.tasks)
        assert_right(redis, page)


async def test_what_was_lost_before(redis: MemoryRedis) -> None:
    """Who comes back and asked for what is lost starts over: that it is so no longer stands in no log."""
    async with running(redis) as killed:
        page = Page(LOST)
        page.connect(killed, fresh=True)
        await until(lambda: page.told.last == redis.position)
        redis.alive.clear()
        await killed.pulse()
        await until(lambda: page.told.tasks)
    redis.alive.add("one")
    async with running(redis) as sidecar:
        await come_back(page, sidecar)
        assert_right(redis, page)


async def test_an_id_after_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose last event had no id is told one in time, as if it had been told nothing."""
    monkeypatch.setattr(pump, "BEAT_SECONDS", 0)
    monkeypatch.setattr(pump, "SILENCE_SECONDS", 1000)
    monkeypatch.setattr(pump, "BOOKMARK_EVENTS", 1)
    feed = live_feed()
    async with viewing(feed, Wanted(TaskFilter(task_ids=frozenset({"a"})))) as viewer:
        await viewer.until(lambda: viewer.events)
        append(feed, 1)
        feed.show("task_status", b'{"type":"task_status","task_id":"a","status":"lost"}', b"{}")
        feed.wake()
        await viewer.until(lambda: viewer.events[-1].event == "task_status")
        await viewer.until(lambda: viewer.parser.last_event_id == str(feed.position))


# -- while it is read


class Meanwhile(MemoryStore):
    """Lets things happen just after a look."""

    def __init__(self, redis: MemoryRedis) -> None:
        super().__init__(redis)
        self.steps: list[tuple[str, str]] = []
        self.sidecar: MemorySidecar

    async def ended(self, task_ids: Sequence[str]) -> dict[str, bytes]:
        """Look, then write the steps."""
        found = await super().ended(task_ids)
        if self.steps:
            write(self._redis, self.sidecar, *self.steps)
            self.steps.clear()
            await settle(20)
        return found


async def test_a_task_that_ends_while_it_is_looked_for(redis: MemoryRedis) -> None:
    """What happens between the look into Redis and the answer is told; an end ends the stream."""
    redis.write([("a", "retrying", "one")])
    store = Meanwhile(redis)
    async with running(redis, store) as store.sidecar:
        store.steps = [("a", "active"), ("a", "completed")]
        page = Page(Asked(task_id="a"))
        page.connect(store.sidecar, fresh=True)
        await until(lambda: page.told.ended)
        assert_right(redis, page)


class Emptied(MemoryStore):
    """A log begins, and Redis is emptied, while an empty Redis is read."""

    async def workers(self) -> list[bytes]:
        """Look in the midst of it."""
        self._redis.write_worker("one", "online")
        found = await super().workers()
        self._redis.empty()
        return found


async def test_emptied_while_it_is_read() -> None:
    """Where there is no log there is nothing, whatever was read before it was gone."""
    redis = MemoryRedis()
    async with running(redis, Emptied(redis)) as sidecar:
        page = Page(Asked())
        page.connect(sidecar, fresh=True)
        await until(lambda: page.told.last)
        assert {} == page.told.workers
