"""Who comes back gets exactly what it missed, from memory or from Redis's stream, or is told why not."""

from __future__ import annotations

import itertools
import json

import anyio
import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from celery_plugin.contract import LogEntry, Position
from deploy.demo.redis_server import RedisServer
from sidecar import backlog as backlog_module
from sidecar.backlog import Backlog, obstacle
from sidecar.event_log import EventLog
from sidecar.feed import Feed, Link
from sidecar.state import State
from sidecar.store import NOTHING_YET, Store, StoreUnavailable, Trimmed
from tests.support.deadline import eventually
from tests.support.sse import Event
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import Gate
from tests.support.writing import life, many, worker, writing

EPOCH, OTHER = "0123456789abcdef", "fedcba9876543210"


def from_log(events: list[Event]) -> list[int]:
    """The offsets of what came from the log."""
    return [
        Position.parse(event.id).offset for event in events if event.event in ("task_status", "worker_status")
    ]


def test_after_a_restart_of_the_sidecar(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """A sidecar that has just started replays from Redis's stream what happened before it."""
    with writing(redis_server.url) as sender:
        sender.send(worker())
        first = start_sidecar()
        with first.events() as stream:
            last = stream.until_type("live").id
        first.kill()
        for batch in many(400):
            position = sender.send(*batch).position
    with start_sidecar(port=first.port).events(last_event_id=last) as again:
        again.until(lambda event: event.id == str(position))
    assert list(range(2, 1202)) == from_log(again.seen)
    assert not [event for event in again.seen if event.event in ("reset", "snapshot", "live")]


def test_older_than_memory(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """What memory has let go is replayed from Redis's stream, without a seam."""
    with writing(redis_server.url) as sender:
        sender.send(worker())
        sidecar = start_sidecar()
        with sidecar.events() as stream:
            last = stream.until_type("live").id
        for batch in many(3600):
            position = sender.send(*batch).position
        with sidecar.events() as stream:
            eventually(lambda: stream.next().id == str(position))
    with sidecar.events(last_event_id=last) as again:
        again.until(lambda event: event.id == str(position))
    assert list(range(2, 10_802)) == from_log(again.seen)
    assert not [event for event in again.seen if event.event == "reset"]


def test_killed_in_the_middle_of_a_burst(
    redis_server: RedisServer, start_sidecar: StartSidecar, start_worker: StartWorker, celery_app: Celery
) -> None:
    """A client that reconnects to a sidecar that was killed and started again has each event exactly once."""
    start_worker()
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        stream.until_type("live")
        ids = [celery_app.send_task("tests.sleep_for", [0.02]).id for _ in range(60)]
        stream.until(lambda event: event.event == "task_status" and event.data["status"] == "completed")
        sidecar.kill()
        stream.wait_for_end()
    start_sidecar(port=sidecar.port)
    ended: set[str] = set()
    with stream.reconnect() as again:
        seen = [*stream.seen]
        ended |= {event.data["task_id"] for event in seen if _is_end(event)}
        while ended != set(ids):
            event = again.next()
            ended |= {event.data["task_id"]} if _is_end(event) else set()
    seen += again.seen
    offsets = from_log(seen)
    assert list(range(offsets[0], offsets[0] + len(offsets))) == offsets
    assert not [event for event in again.seen if event.event in ("reset", "snapshot")]
    for task_id in ids:
        statuses = [event.data["status"] for event in seen if _is_about(event, task_id)]
        assert ["reserved", "active", "completed"] == statuses


def _is_about(event: Event, task_id: str) -> bool:
    return event.event == "task_status" and event.data["task_id"] == task_id


def _is_end(event: Event) -> bool:
    return event.event == "task_status" and event.data["status"] == "completed"


def test_a_client_that_comes_and_goes(
    redis_server: RedisServer,
    start_sidecar: StartSidecar,
    start_worker: StartWorker,
    celery_app: Celery,
    gate: Gate,
) -> None:
    """However often a client reconnects, it sees each event once."""
    start_worker()
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        stream.until_type("live")
        first = Position.parse(stream.last_event_id).offset
    last = stream.last_event_id
    seen: list[Event] = []
    ids = [celery_app.send_task("tests.add", [1, 2]).id for _ in range(30)]
    ended: set[str] = set()
    for take in itertools.cycle([1, 2, 5]):
        with sidecar.events(last_event_id=last) as again:
            while take and ended != set(ids):
                event = again.next()
                if event.own_id:
                    seen.append(event)
                    last, take = event.id, take - 1  # noqa: PLW2901 – counts down
                    ended |= {event.data["task_id"]} if _is_end(event) else set()
        if ended == set(ids):
            break
    offsets = [Position.parse(event.id).offset for event in seen]
    assert list(range(first + 1, first + 1 + len(seen))) == offsets


# -- the backlog itself


class FakeStore(Store):
    """A stream in memory: the entries that there are, and the epoch under which they stand."""

    def __init__(self, first: int, last: int, epoch: str = EPOCH) -> None:
        self.first, self.last, self.epoch = first, last, epoch
        self.asked = 0
        self.between = lambda: None  # called after each answer was made
        self.available = True

    async def entries_after(self, position: Position, until: int) -> list[LogEntry]:
        """At most seven at once."""
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        if not self.available:
            raise StoreUnavailable("away")
        offset = position.offset + 1
        if not self.first <= offset <= self.last or position.epoch != self.epoch:
            raise Trimmed
        entries = [entry(number) for number in range(offset, min(offset + 7, until + 1))]
        self.between()
        return entries


def entry(offset: int) -> LogEntry:
    """An event with this offset."""
    event = {"type": "task_status", "task_id": f"t{offset}", "status": "active", "offset": offset}
    return LogEntry(offset, json.dumps(event).encode(), b"{}")


def feed_at(offset: int, appended: int = 0, length: int = 1000) -> Feed:
    """A live feed that began at an offset, and got so many events since."""
    feed = Feed()
    feed.log = EventLog(length)
    feed.restart(Position(EPOCH, offset), State())
    feed.mark(Link.LIVE)
    for number in range(offset + 1, offset + 1 + appended):
        feed.append(entry(number))
    return feed


def offsets_after(feed: Feed, offset: int) -> list[int]:
    """What a viewer at an offset would be sent."""
    return [frame.offset for frame in feed.log.after(offset)]


async def test_the_missed_is_put_back_once_for_all() -> None:
    """A hundred viewers that come back together cost Redis what one of them costs."""
    feed, store = feed_at(100, appended=5), FakeStore(1, 105)
    backlog = Backlog(store, feed)
    reasons: list[str | None] = []

    async def come_back(offset: int) -> None:
        reasons.append(await backlog.reach(Position(EPOCH, offset)))

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(come_back, 30)
    assert [None] * 100 == reasons
    assert 10 == store.asked
    assert list(range(31, 106)) == offsets_after(feed, 30)


async def test_replayed_and_live_events_are_the_same_bytes() -> None:
    """It cannot be told from an event whether it was replayed."""
    live, replayed = feed_at(0, appended=20), feed_at(20)
    assert None is await Backlog(FakeStore(1, 20), replayed).reach(Position(EPOCH, 0))
    assert list(live.log.after(0)) == list(replayed.log.after(0))


async def test_events_that_come_while_the_missed_are_read() -> None:
    """They follow without a seam."""
    feed, store = feed_at(100), FakeStore(1, 100)
    store.between = lambda: feed.append(entry(feed.position.offset + 1))
    assert None is await Backlog(store, feed).reach(Position(EPOCH, 50))
    assert list(range(51, feed.position.offset + 1)) == offsets_after(feed, 50)
    assert feed.position.offset > 100


async def test_memory_that_moves_on_while_the_missed_are_read() -> None:
    """What memory lets go meanwhile is read from the stream as well."""
    feed, store = feed_at(100, length=5), FakeStore(1, 10_000)
    store.between = lambda: [feed.append(entry(feed.position.offset + 1)) for _ in range(3)] and None
    assert None is await Backlog(store, feed).reach(Position(EPOCH, 50))
    assert list(range(51, feed.position.offset + 1)) == offsets_after(feed, 50)


async def test_the_log_shrinks_again() -> None:
    """What was put back for one viewer does not stay in memory."""
    feed = feed_at(100, length=5)
    assert None is await Backlog(FakeStore(1, 100), feed).reach(Position(EPOCH, 0))
    for _ in range(100):
        feed.append(entry(feed.position.offset + 1))
    assert 5 == len(offsets_after(feed, feed.log.first - 1))


async def test_trimmed_in_the_middle() -> None:
    """If the stream loses what is being read, nothing of it is replayed."""
    feed, store = feed_at(100), FakeStore(1, 100)
    store.between = lambda: setattr(store, "first", 90)
    assert "trimmed" == await Backlog(store, feed).reach(Position(EPOCH, 50))
    assert [] == offsets_after(feed, 100)
    assert 101 == feed.log.first


async def test_a_new_epoch_in_the_middle() -> None:
    """Entries of another epoch are never taken for the missed ones."""
    feed, store = feed_at(100), FakeStore(1, 100)
    store.between = lambda: feed.restart(Position(OTHER, 100), State())
    assert "epoch" == await Backlog(store, feed).reach(Position(EPOCH, 50))
    assert 101 == feed.log.first


async def test_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has missed more than a snapshot is to read gets the snapshot."""
    monkeypatch.setattr(backlog_module, "REPLAY_MAX", 40)
    feed, store = feed_at(100), FakeStore(1, 100)
    assert "behind" == await Backlog(store, feed).reach(Position(EPOCH, 50))
    assert 0 == store.asked


async def test_while_redis_is_away() -> None:
    """What is in memory is replayed; for the rest, and for a verdict, the viewer waits for Redis."""
    feed, store = feed_at(100, appended=5), FakeStore(1, 100)
    feed.mark(Link.STALE, "away")
    backlog = Backlog(store, feed)
    assert None is await backlog.reach(Position(EPOCH, 100))
    for position in (Position(EPOCH, 99), Position(EPOCH, 106), Position(OTHER, 100)):
        with pytest.raises(StoreUnavailable):
            await backlog.reach(position)
    assert 0 == store.asked


async def test_before_the_first_epoch() -> None:
    """Who saw an empty Redis is at the beginning of what came then."""
    feed = feed_at(20)
    assert None is await Backlog(FakeStore(1, 20), feed).reach(NOTHING_YET)
    assert list(range(1, 21)) == offsets_after(feed, 0)


@given(
    began=st.integers(0, 60),
    appended=st.integers(0, 60),
    length=st.integers(1, 60),
    trimmed=st.integers(0, 120),
    came_with=st.integers(0, 125),
)
def test_all_or_a_reset(began: int, appended: int, length: int, trimmed: int, came_with: int) -> None:
    """Wherever a viewer, memory and stream stand, it gets each missed event once, or a reset."""
    feed = feed_at(began, appended, length)
    store = FakeStore(min(trimmed, began + appended) + 1, began + appended)
    position = Position(EPOCH, came_with)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backlog_module, "LAG_SECONDS", 0)
        reason = anyio.run(Backlog(store, feed).reach, position)
    if reason is None:
        assert list(range(came_with + 1, began + appended + 1)) == offsets_after(feed, came_with)
        assert None is obstacle(feed, position)
    elif reason == "future":
        assert came_with > began + appended
    else:
        assert "trimmed" == reason
        assert came_with + 1 < store.first


def test_a_life_is_whole_after_a_resume(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """An id in the middle of a batch resumes in the middle of it."""
    with writing(redis_server.url) as sender:
        position = sender.send(worker(), *life("a"), *life("b")).position
    sidecar = start_sidecar()
    for offset in range(1, position.offset):
        with sidecar.events(last_event_id=str(position._replace(offset=offset))) as stream:
            stream.until(lambda event: event.id == str(position))
            assert list(range(offset + 1, position.offset + 1)) == from_log(stream.seen)
