"""One viewer's stream: a snapshot, then every later event exactly once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import pytest
from redis import Redis

from celery_plugin.contract import Position
from deploy.demo.redis_server import RedisServer
from sidecar import catching_up as catching_up_module
from sidecar import pump as pump_module
from sidecar.feed import Feed, Link
from tests.support.batches import Sender
from tests.support.sidecar_process import Sidecar
from tests.support.sse import Event, EventStream
from tests.support.starters import StartRedis, StartSidecar
from tests.support.viewing import EPOCH, append, live_feed, viewing
from tests.support.writing import life, task, worker, writing

EVENTS = "/api/v1/queue/events"


@pytest.fixture
def sender(redis_server: RedisServer) -> Iterator[Sender]:
    """A worker of `redis_server`, not announced yet."""
    with writing(redis_server.url) as sender:
        yield sender


def begin(stream: EventStream) -> Event:
    """Take the snapshot and what ends it."""
    stream.until_type("snapshot")
    return stream.until_type("live")


def take_events(stream: EventStream, last: str) -> list[Event]:
    """Take events until the one with this id; those of the log are returned."""
    stream.until(lambda event: event.id == last)
    return [event for event in stream.seen if event.own_id and event.event != "live"]


def offsets(events: list[Event]) -> list[int]:
    """The offsets of events, after their ids."""
    return [Position.parse(event.id).offset for event in events]


def test_order_and_ids(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Snapshot, live, queue_status, deltas; only live and deltas have ids, which rise by one."""
    sender.send(worker(), task("a", "active"))
    with start_sidecar().events() as stream:
        live = begin(stream)
        assert str(live.data["position"]) == live.id
        assert "queue_status" == stream.next().event
        after = sender.send(*life("b"), task("a", "completed"))
        deltas = take_events(stream, str(after.position))
        assert 2000 == stream.retry_ms
    assert list(range(3, 7)) == offsets(deltas)
    assert {"task_status"} == {event.event for event in deltas}
    without_id = {event.event for event in stream.seen if not event.own_id}
    assert {"snapshot", "queue_status"} == without_id - {"stale", "fresh"}


def test_snapshot(sender: Sender, start_sidecar: StartSidecar) -> None:
    """The snapshot has figures, workers and tasks, and no arguments."""
    sender.send(worker(), task("a", "active"), task("b", "reserved"))
    with start_sidecar().events() as stream:
        stream.until_type("live")
    [snapshot] = [event.data for event in stream.seen if event.event == "snapshot"]
    assert {"a": "active", "b": "reserved"} == {t["task_id"]: t["status"] for t in snapshot["tasks"]}
    assert (1, 1) == (
        snapshot["queue_status"]["active_tasks"],
        snapshot["queue_status"]["reserved_tasks"],
    )
    assert ["one"] == [each["worker_id"] for each in snapshot["workers"]]
    assert not any("args" in each for each in snapshot["tasks"])


def test_previous(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Each event of a task says what viewers saw of it before."""
    sender.send(worker())
    with start_sidecar().events() as stream:
        begin(stream)
        after = sender.send(*life("a"))
        deltas = [event.data for event in take_events(stream, str(after.position))]
    assert ["reserved", "active", "completed"] == [delta["status"] for delta in deltas]
    assert [None, "reserved", "active"] == [(delta["previous"] or {}).get("status") for delta in deltas]


@pytest.mark.parametrize("by", ["header", "query"])
def test_resume_from_memory(sender: Sender, start_sidecar: StartSidecar, by: str) -> None:
    """With its last id a viewer gets exactly what it missed, no snapshot and no reset."""
    sender.send(worker())
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        last = begin(stream).id
    after = sender.send(*life("a"), *life("b"))
    given: dict[str, Any] = {"last_event_id": last} if by == "header" else {"params": {"last_event_id": last}}
    with sidecar.events(**given) as again:
        missed = take_events(again, str(after.position))
        assert list(range(2, 8)) == offsets(missed)
        later = sender.send(task("c", "active"))
        again.until(lambda event: event.id == str(later.position))
    assert {"task_status", "queue_status"} >= {event.event for event in again.seen}


def test_the_header_wins(sender: Sender, start_sidecar: StartSidecar) -> None:
    """A browser reconnects with the URL of its first request, whose id is old by then."""
    after = sender.send(worker(), *life("a"))
    sidecar = start_sidecar()
    old, new = (str(after.position._replace(offset=offset)) for offset in (1, 3))
    with sidecar.events(last_event_id=new, params={"last_event_id": old}) as stream:
        assert [4] == offsets(take_events(stream, str(after.position)))


def test_nothing_missed(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Who comes back with the newest id gets the figures and waits."""
    after = sender.send(worker(), *life("a"))
    with start_sidecar().events(last_event_id=str(after.position)) as stream:
        assert "queue_status" == stream.until(lambda event: event.event not in ("stale", "fresh")).event


def test_reset_of_another_epoch(sender: Sender, start_sidecar: StartSidecar) -> None:
    """An id of another epoch is told to be one, in band, with a snapshot behind it."""
    after = sender.send(worker())
    with start_sidecar().events(last_event_id=f"{EPOCH}-1") as stream:
        assert 200 == stream.status
        assert {"type": "reset", "reason": "epoch"} == stream.until_type("reset").data
        assert "snapshot" == stream.next().event
        assert str(after.position) == stream.until_type("live").id


def test_reset_of_what_was_trimmed(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """What neither memory nor Redis's stream has is a reset, and nothing is replayed before it."""
    with writing(redis_server.url, log_max=100) as sender:
        first = sender.send(worker())
        for _ in range(5):
            last = sender.send(*(step for number in range(100) for step in life(f"t{number}")))
    with start_sidecar().events(last_event_id=str(first.position)) as stream:
        assert {"type": "reset", "reason": "trimmed"} == stream.until_type("reset").data
        assert str(last.position) == begin(stream).id
    assert not [event for event in stream.seen if event.event == "task_status"]


def test_reset_of_the_future(sender: Sender, start_sidecar: StartSidecar) -> None:
    """An id that Redis never reaches is a reset, after a moment for a sidecar that lags."""
    after = sender.send(worker())
    ahead = str(after.position._replace(offset=1000))
    sidecar = start_sidecar()
    with sidecar.events() as ready:
        begin(ready)
    started = time.monotonic()
    with sidecar.events(last_event_id=ahead) as stream:
        assert {"type": "reset", "reason": "future"} == stream.until_type("reset").data
        assert 1.9 < time.monotonic() - started < 6
        assert str(after.position) == begin(stream).id


def test_the_future_comes(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Who comes from a sidecar that was ahead of this one goes on without a reset."""
    after = sender.send(worker())
    ahead = str(after.position._replace(offset=2))
    sidecar = start_sidecar()
    with sidecar.events() as ready:
        begin(ready)
        with sidecar.events(last_event_id=ahead) as stream:
            sender.send(task("a", "reserved"))
            last = sender.send(task("a", "active"))
            assert [3] == offsets(take_events(stream, str(last.position)))
    assert not [event for event in stream.seen if event.event in ("reset", "snapshot")]


@pytest.mark.parametrize("given", ["nonsense", "5", f"{EPOCH}-", f"{EPOCH}-01", f"{EPOCH}:1", "é-1"])
def test_malformed_id(start_sidecar: StartSidecar, given: str) -> None:
    """An id that was never given out is a mistake of the client, told with the parameter's name."""
    sidecar = start_sidecar()
    by_query = sidecar.get(EVENTS, params={"last_event_id": given})
    by_header = sidecar.get(EVENTS, headers={"Last-Event-ID": given.encode()})
    for name, answer in (("last_event_id", by_query), ("Last-Event-ID", by_header)):
        assert (400, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
        assert (400, name) == (answer.json()["status"], answer.json()["parameter"])


def test_other_requests(start_sidecar: StartSidecar) -> None:
    """HEAD has the headers and no body; an unknown parameter and a POST are refused."""
    sidecar = start_sidecar()
    with httpx.Client(base_url=sidecar.url, trust_env=False) as client:
        head = client.head(EVENTS)
        assert (200, b"") == (head.status_code, head.content)
        assert "text/event-stream; charset=utf-8" == head.headers["content-type"]
        assert "no-store" == head.headers["cache-control"]
        unknown = client.get(EVENTS, params={"task": "a"})
        assert (400, "task") == (unknown.status_code, unknown.json()["parameter"])
        post = client.post(EVENTS)
        assert (405, "application/problem+json") == (post.status_code, post.headers["content-type"])
        assert "GET" in post.headers["allow"]


def test_before_the_first_worker(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Where no plugin ever wrote there is a snapshot; the first worker's events follow without a reset."""
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        empty = begin(stream)
        after = sender.send(worker(), *life("a"))
        assert [1, 2, 3, 4] == offsets(take_events(stream, str(after.position)))
    assert not [event for event in stream.seen if event.event == "reset"]
    with sidecar.events(last_event_id=empty.id) as again:
        assert [1, 2, 3, 4] == offsets(take_events(again, str(after.position)))
    assert not [event for event in again.seen if event.event in ("reset", "snapshot")]


NASTY = "x\r\n\r\nevent: reset\ndata: {}\rid: 9\x00\u2028\u2029\x85</script><!--\ud800"


def test_names_cannot_inject_fields(sender: Sender, start_sidecar: StartSidecar) -> None:
    """No name, message or argument of a task can begin a field or an event of its own."""
    sender.send(worker())
    extra = {"args": NASTY, "kwargs": NASTY}
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        begin(stream)
        after = sender.send(task("a\r\nid: 1", "active", task_name=NASTY, message=NASTY, extra=extra))
        [event] = take_events(stream, str(after.position))
        assert NASTY.replace("\ud800", "?") == event.data["task_name"]
    sidecar = start_sidecar()
    with sidecar.events() as again:
        [shown] = again.until_type("snapshot").data["tasks"]
        again.until_type("live")
    assert ("a\r\nid: 1", NASTY.replace("\ud800", "?")) == (shown["task_id"], shown["message"])
    assert {"snapshot", "live", "queue_status", "task_status"} >= {
        event.event for event in [*stream.seen, *again.seen] if event.event not in ("stale", "fresh")
    }
    [listed] = sidecar.get("/api/v1/queue/tasks").json()["tasks"]
    assert NASTY.replace("\ud800", "?") == listed["args"]


def test_raw_bytes(sender: Sender, start_sidecar: StartSidecar) -> None:
    """On the wire an event is one line for each of id, event and data, and an empty one."""
    sender.send(worker())
    lines = []
    with httpx.stream("GET", start_sidecar().url + EVENTS, trust_env=False, timeout=15) as response:
        for line in _lines(response):
            lines.append(line)
            if line.startswith("event: live"):
                sender.send(task("a", "active", task_name=NASTY))
            if line.startswith("data: ") and '"task_id":"a"' in line:
                break
    assert {"", "id", "event", "data", "retry"} >= {line.partition(":")[0] for line in lines}
    assert ["id", "event", "data"] == [line.partition(":")[0] for line in lines[-3:]]


def _lines(response: httpx.Response) -> Iterator[str]:
    rest = b""
    for chunk in response.iter_bytes():
        *lines, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        yield from (line.decode() for line in lines)


# -- without a server: what takes long, and what seldom happens


async def test_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet stream says now and then that it is there, below the time after which proxies cut it."""
    assert pump_module.BEAT_SECONDS + pump_module.SILENCE_SECONDS <= 20
    monkeypatch.setattr(pump_module, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(pump_module, "SILENCE_SECONDS", 0)
    async with viewing(live_feed()) as viewer:
        await viewer.until(lambda: len(viewer.parser.comments) >= 3)


async def test_heartbeat_of_one_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """So does one that has nothing to begin with, while Redis has never been read."""
    assert catching_up_module.HEARTBEAT_SECONDS <= 20
    monkeypatch.setattr(catching_up_module, "HEARTBEAT_SECONDS", 0.01)
    async with viewing(Feed()) as viewer:
        await viewer.until(lambda: len(viewer.parser.comments) >= 3)
    assert ["stale"] == [event.event for event in viewer.events]


async def test_a_viewer_that_falls_behind() -> None:
    """Who reads more slowly than the log moves on is told so and starts over."""
    feed = live_feed(length=10)
    async with viewing(feed) as viewer:
        await viewer.until(lambda: viewer.parser.last_event_id == f"{EPOCH}-0")
        viewer.may_send = anyio.Event()
        append(feed, 5)
        await anyio.lowlevel.checkpoint()
        append(feed, 30)
        viewer.may_send.set()
        await viewer.until(lambda: viewer.parser.last_event_id == f"{EPOCH}-35")
    reasons = [event.data["reason"] for event in viewer.events if event.event == "reset"]
    assert ["behind"] == reasons
    told = [event.data["task_id"] for event in viewer.events if event.event == "task_status"]
    assert told == [f"t{number}" for number in range(1, len(told) + 1)]


async def test_a_slow_viewer_misses_nothing() -> None:
    """What came while a viewer did not read is sent in one piece afterwards."""
    feed = live_feed()
    async with viewing(feed) as viewer:
        await viewer.until(lambda: viewer.parser.last_event_id == f"{EPOCH}-0")
        viewer.may_send = anyio.Event()
        append(feed, 50)
        await anyio.lowlevel.checkpoint()
        append(feed, 50)
        viewer.may_send.set()
        await viewer.until(lambda: viewer.parser.last_event_id == f"{EPOCH}-100")
    deltas = [event for event in viewer.events if event.event == "task_status"]
    assert list(range(1, 101)) == offsets(deltas)


async def test_stale_and_fresh() -> None:
    """An outage is told when it begins and when it ends, once each."""
    feed = live_feed()
    async with viewing(feed) as viewer:
        await viewer.until(lambda: viewer.events)
        feed.mark(Link.STALE, "away")
        feed.mark(Link.STALE, "away")
        await viewer.until(lambda: viewer.events[-1].event == "stale")
        feed.mark(Link.LIVE)
        await viewer.until(lambda: viewer.events[-1].event == "fresh")
    assert ["stale", "fresh"] == [event.event for event in viewer.events[-2:]]


def test_many_viewers_see_the_same(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Viewers that came at different times all see each event once."""
    sender.send(worker())
    sidecar = start_sidecar()
    with sidecar.events() as one:
        begin(one)
        sender.send(*life("a"))
        with sidecar.events() as two:
            snapshot = begin(two)
            last = sender.send(*life("b"))
            assert list(range(2, 8)) == offsets(take_events(one, str(last.position)))
            # It shares a snapshot that is up to 1 s old, and goes on from there.
            first = offsets([snapshot])[0] + 1
            assert list(range(first, 8)) == offsets(take_events(two, str(last.position)))


def test_closed_streams_leave_nothing(
    redis_client: Redis, sender: Sender, start_sidecar: StartSidecar
) -> None:
    """However many viewers come and go, the connections to Redis stay as many as before."""
    sender.send(worker())
    sidecar = start_sidecar()
    _watch_once(sidecar)
    before = len(redis_client.client_list())
    for _ in range(30):
        _watch_once(sidecar)
    assert before + 2 >= len(redis_client.client_list())


def _watch_once(sidecar: Sidecar) -> None:
    with sidecar.events() as stream:
        begin(stream)


def test_two_sidecars(start_redis: StartRedis, start_sidecar: StartSidecar) -> None:
    """Two sidecars on one Redis tell the same story under the same ids."""
    server = start_redis()
    first, second = start_sidecar(server.url), start_sidecar(server.url)
    with writing(server.url) as sender, first.events() as one:
        begin(one)
        middle = sender.send(worker(), *life("a"))
        seen = take_events(one, str(middle.position))
        with second.events(last_event_id=seen[1].id) as two:
            last = sender.send(*life("b"))
            assert list(range(3, 8)) == offsets(take_events(two, str(last.position)))
