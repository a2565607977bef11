"""What a worker has whose lease has ended is lost, wherever it is shown, until the lease runs again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx
import pytest
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from celery_plugin.contract import JSON, Keys, LogEntry, Position, encode
from deploy.demo.redis_server import RedisServer
from sidecar import lost as lost_module
from sidecar.connections import make_client
from sidecar.feed import Feed
from sidecar.lost import MESSAGE, STEP_CHANGES, View
from sidecar.pulse import Measured, Pulse
from sidecar.snapshot import Snapshots
from sidecar.status import StatusBoard
from sidecar.store import Leases, Store
from tests.support import acl
from tests.support.batches import Sender, step
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.sse import Event, EventStream
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import Gate
from tests.support.viewing import EPOCH, Viewer, live_feed, serving, viewing, watching
from tests.support.writing import task, worker, writing

QUEUE = "/api/v1/queue"
LEASE_SECONDS = 1.5
SHORT_LEASE = {"SIDECAR_LEASE_SECONDS": str(LEASE_SECONDS), "SIDECAR_LEASE_RENEW_SECONDS": "0.3"}


@pytest.fixture
def sender(redis_server: RedisServer) -> Iterator[Sender]:
    """A worker of `redis_server`, not announced yet."""
    with writing(redis_server.url) as sender:
        yield sender


def ask(sidecar: Sidecar, path: str) -> Any:
    """Ask below the queue's path; one that has just begun has not read Redis yet."""
    return eventually(lambda: _unless_away(sidecar.get(QUEUE + path)))


def _unless_away(answer: httpx.Response) -> Any:
    return None if answer.status_code == 503 else answer.json()


def told(stream: EventStream, task_id: str) -> list[Event]:
    """What a stream told of a task so far."""
    events = [event for event in list(stream.seen) if event.event == "task_status"]
    return [event for event in events if event.data["task_id"] == task_id]


# -- real workers ----------------------------------------------------------------------------------------


def test_killed_without_a_peer(
    start_sidecar: StartSidecar, start_worker: StartWorker, celery_app: Celery, gate: Gate
) -> None:
    """SIGKILL of the only worker: within a moment of the lease's end stream, figures, lists and single tasks
    show what it had as lost, and the worker as offline."""
    real = start_worker(env=SHORT_LEASE)
    sidecar = start_sidecar()
    runs = celery_app.send_task("tests.wait_for_file", [str(gate)]).id
    waits = celery_app.send_task("tests.add", [1, 2], countdown=3600).id
    with sidecar.events() as stream:
        eventually(lambda: _statuses(sidecar) == {runs: "active", waits: "scheduled"})
        real.kill()
        killed = time.monotonic()
        shown = stream.until_task(runs, "lost")
        assert time.monotonic() - killed < LEASE_SECONDS + 5
        stream.until(lambda event: event.event == "queue_status" and event.data["lost_tasks"] == 2)
    assert ("worker_lost", MESSAGE, "active") == (
        shown.data["reason"],
        shown.data["message"],
        shown.data["previous"]["status"],
    )
    assert not shown.own_id
    assert shown.data["started_at"] <= shown.data["lost_at"] <= time.time()
    assert {runs: "lost", waits: "lost"} == _statuses(sidecar)
    alone = ask(sidecar, f"/tasks/{waits}")
    assert ("lost", "worker_lost", "scheduled") == (
        alone["status"],
        alone["reason"],
        alone["previous"]["status"],
    )
    figures = ask(sidecar, "/status")
    names = ("lost_tasks", "active_tasks", "reserved_tasks", "scheduled_tasks", "total_tasks")
    assert [2, 0, 0, 0, 0, 0] == [figures[name] for name in (*names, "workers_online")]
    assert [0] == [queue["consumers"] for queue in figures["queues"]]
    [record] = ask(sidecar, "/workers")["workers"]
    assert (False, "offline") == (record["alive"], record["status"])
    with sidecar.events() as late:
        assert {"lost"} == {each["status"] for each in late.until_type("snapshot").data["tasks"]}


def _statuses(sidecar: Sidecar) -> dict[str, str]:
    return {each["task_id"]: each["status"] for each in ask(sidecar, "/tasks")["tasks"]}


def test_stopped_and_continued(
    start_sidecar: StartSidecar, start_worker: StartWorker, celery_app: Celery, gate: Gate
) -> None:
    """SIGSTOP, then SIGCONT: lost, then active again and completed; each is told once."""
    real = start_worker(env=SHORT_LEASE)
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        runs = celery_app.send_task("tests.wait_for_file", [str(gate)]).id
        stream.until_task(runs, "active")
        real.pause()
        stream.until_task(runs, "lost")
        eventually(lambda: ask(sidecar, "/status")["workers_online"] == 0)
        real.resume()
        back = stream.until_task(runs, "active")
        assert ("lost", False) == (back.data["previous"]["status"], back.own_id)
        eventually(lambda: ask(sidecar, "/status")["workers_online"] == 1)
        assert {runs: "active"} == _statuses(sidecar)
        gate.open()
        stream.until_task(runs, "completed")
        statuses = [event.data["status"] for event in told(stream, runs)]
    assert ["reserved", "active", "lost", "active", "completed"] == statuses
    workers = [event.data["status"] for event in stream.seen if event.event == "worker_status"]
    assert ["offline", "online"] == workers[:2]


# -- what is in Redis ------------------------------------------------------------------------------------


def test_the_clock_stands(sender: Sender, start_sidecar: StartSidecar) -> None:
    """It says when the lease was renewed last: by the length that the worker gives it."""
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        stream.until_type("live")
        before = time.time()
        sender.send(worker(lease_seconds=0.5), task("a", "active"), lease=0.5)
        after = time.time()
        lost_at = stream.until_task("a", "lost").data["lost_at"]
    assert before - 0.01 <= lost_at <= after + 0.01
    assert lost_at == ask(sidecar, "/tasks/a")["lost_at"]


def test_every_sidecar_says_the_same(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Also one that has started since: the record of the task is the same to the byte."""
    first = start_sidecar()
    sender.send(worker(), task("a", "active"), task("b", "reserved"), lease=0.3)
    eventually(lambda: ask(first, "/status")["lost_tasks"] == 2)
    second = start_sidecar()
    with second.events() as stream:
        shown = stream.until_type("snapshot").data
    assert (2, {"lost"}) == (len(shown["tasks"]), {each["status"] for each in shown["tasks"]})
    assert (2, 0) == (shown["queue_status"]["lost_tasks"], shown["queue_status"]["active_tasks"])
    assert ["offline"] == [each["status"] for each in shown["workers"]]
    for path in ("/tasks", "/tasks/a", "/workers"):
        assert first.get(QUEUE + path).content == second.get(QUEUE + path).content


def test_who_gave_up_its_lease_or_is_not_known(
    sender: Sender, redis_client: Redis, redis_server: RedisServer, start_sidecar: StartSidecar
) -> None:
    """What an offline worker still has is lost, and so is what a worker has of whom nothing is known."""
    sender.send(worker(), task("a", "active"))
    sender.send(worker(status="offline", timestamp=1_700_000_000.5), lease=0)
    with writing(redis_server.url, "two") as other:
        other.send(worker("two"), step("b", "active", "two/1"))
    redis_client.hdel("queue:workers", "two")
    redis_client.zrem("queue:leases", "two")
    with start_sidecar().events() as stream:
        tasks = {each["task_id"]: each for each in stream.until_type("snapshot").data["tasks"]}
    assert {"a": "lost", "b": "lost"} == {task_id: each["status"] for task_id, each in tasks.items()}
    assert (1_700_000_000.5, None) == (tasks["a"]["lost_at"], tasks["b"]["lost_at"])


def test_what_the_log_says_later(
    sender: Sender, redis_server: RedisServer, start_sidecar: StartSidecar
) -> None:
    """The end that a peer writes passes as any event does; then the task is in the history."""
    sidecar = start_sidecar()
    sender.send(worker(), step("a", "active", "one/1"), lease=0.3)
    with sidecar.events() as stream:
        stream.until(lambda event: event.event == "queue_status" and event.data["lost_tasks"] == 1)
        with writing(redis_server.url, "two") as peer:
            members = {"reason": "worker_lost", "finished_at": time.time()}
            last = peer.send(worker("two"), step("a", "lost", "one/1", kind="lost", **members))
        ended = stream.until(lambda event: event.id == str(last.position))
        assert ("lost", "active") == (ended.data["status"], ended.data["previous"]["status"])
        stream.until(lambda event: event.event == "queue_status" and event.data["lost_tasks"] == 0)
    assert [] == ask(sidecar, "/tasks")["tasks"]
    assert "finished_at" in ask(sidecar, "/tasks/a")


def test_who_comes_back(sender: Sender, start_sidecar: StartSidecar) -> None:
    """A viewer that was away while a lease ended, or began again, is told so behind what it missed."""
    sidecar = start_sidecar()
    position = sender.send(worker(), task("a", "active"), task("b", "active")).position
    eventually(lambda: len(ask(sidecar, "/tasks")["tasks"]) == 2)
    sender.send(task("c", "active"), task("b", "completed"), lease=0.3)
    eventually(lambda: ask(sidecar, "/status")["lost_tasks"] == 2)
    with sidecar.events(last_event_id=str(position)) as again:
        shown = [again.until_task("a", "lost"), again.until_task("c", "lost")]
        assert [False, False] == [event.own_id for event in shown]
        assert ["completed"] == [event.data["status"] for event in told(again, "b")]
        last = again.last_event_id
    sender.send(worker())
    eventually(lambda: ask(sidecar, "/status")["lost_tasks"] == 0)
    with sidecar.events(last_event_id=last) as again:
        assert "lost" == again.until_task("a", "active").data["previous"]["status"]
        assert ["active"] == [event.data["status"] for event in told(again, "a")]


async def test_leases_that_cannot_be_read(redis_server: RedisServer) -> None:
    """They change nothing: what is shown stays, and is stale."""
    client = make_client(acl.as_user(redis_server.url))
    feed = feed_with({"a": "one"}, leases=())
    view = View(feed)
    pulse = Pulse(Store(client, Keys()), feed, view, Measured(), ())
    redis_server.kill()
    await pulse.read()
    assert ["a"] == list(feed.state.active)
    await client.aclose()


# -- without Redis ---------------------------------------------------------------------------------------


def event_of(offset: int, task_id: str, status: str, worker_id: str) -> LogEntry:
    """An event of a task as a worker tells it."""
    event = {"type": "task_status", "status": status, "worker": f"celery@{worker_id}", "offset": offset}
    event |= {"previous": None, "task_id": task_id, "run": f"{worker_id}/{task_id}", "message": "…"}
    return LogEntry(offset, encode(event).encode(), b"{}")


def tell(feed: Feed, task_id: str, status: str, worker_id: str = "one") -> None:
    """Let an event come."""
    feed.append(event_of(feed.position.offset + 1, task_id, status, worker_id))
    feed.wake()


def feed_with(tasks: dict[str, str], leases: tuple[str, ...] = (), length: int = 1000) -> Feed:
    """A live feed whose tasks run on these workers."""
    feed = live_feed(length)
    for task_id, worker_id in tasks.items():
        tell(feed, task_id, "active", worker_id)
    return feed


def reading(feed: Feed, *running: str, offset: int | None = None) -> Leases:
    """A reading in which the leases of these workers run, made at this offset, or now."""
    position = feed.position if offset is None else Position(EPOCH, offset)
    return Leases(dict.fromkeys(running, 200.0) | {"ended": 50.0}, 100.0, position)


def shown(feed: Feed) -> dict[str, str]:
    """The status of each task as it is shown."""
    state = feed.state
    return {
        name: each.status
        for group in (state.active, state.waiting, state.lost)
        for name, each in group.items()
    }


async def test_newer_than_the_reading() -> None:
    """What a worker told after the leases were read shows that it was alive then."""
    feed = feed_with({"a": "one", "b": "one"})
    await View(feed).follow(reading(feed, offset=1))
    assert {"a": "lost", "b": "active"} == shown(feed)


async def test_a_reading_that_is_ahead() -> None:
    """A reading waits for the events before it: a worker that has just ended well has lost nothing."""
    feed = feed_with({"a": "one"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(View(feed).follow, reading(feed, offset=2))
        await anyio.wait_all_tasks_blocked()
        tell(feed, "a", "completed")
    assert {} == shown(feed)
    assert [1, 2] == [frame.offset for frame in feed.log.since(1)]


async def test_a_reading_that_is_never_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the feed does not get to, or of another epoch, is passed over."""
    monkeypatch.setattr(lost_module, "PATIENCE_SECONDS", 0)
    feed = feed_with({"a": "one"})
    for position in (Position(EPOCH, 2), Position("f" * 16, 1)):
        await View(feed).follow(Leases({}, 100.0, position))
    assert {"a": "active"} == shown(feed)


async def test_what_the_log_says_counts() -> None:
    """An event shows the task as it is, whatever the leases said before; the next reading judges it anew."""
    feed = feed_with({"a": "one"})
    view = View(feed)
    await view.follow(reading(feed))
    assert {"a": "lost"} == shown(feed)
    tell(feed, "a", "active")
    assert {"a": "active"} == shown(feed)
    await view.follow(reading(feed))
    assert {"a": "lost"} == shown(feed)
    tell(feed, "a", "completed")
    await view.follow(reading(feed, "one"))
    assert {} == shown(feed)
    assert [] == list(view.since(Position(EPOCH, 0)))


async def test_counts() -> None:
    """A lost task is counted as lost and as nothing else, and what a worker has is counted back."""
    feed = feed_with({"a": "one", "b": "two"})
    tell(feed, "c", "reserved")
    view = View(feed)
    for running, expected in (((), [0, 0, 3]), (("one",), [1, 1, 1]), (("one", "two"), [2, 1, 0])):
        await view.follow(reading(feed, *running))
        assert expected == [feed.state.count(status) for status in ("active", "reserved", "lost")]
    assert {"one": 2, "two": 1} == dict(feed.state.held)


async def test_who_says_nothing_of_its_worker() -> None:
    """A task whose record does not name its worker is left alone: nobody knows whose lease to look at."""
    feed = live_feed()
    feed.append(LogEntry(1, b'{"type":"task_status","task_id":"a","status":"active"}', b"{}"))
    await View(feed).follow(reading(feed))
    assert {"a": "active"} == shown(feed)


async def test_very_many() -> None:
    """A worker with many tasks does not hold up the loop when it goes: it is done in steps, all of it."""
    feed = feed_with({f"t{number}": "one" for number in range(3 * STEP_CHANGES)}, length=10_000)
    steps = 0

    async def count_steps() -> None:
        nonlocal steps
        while len(feed.state.lost) < 3 * STEP_CHANGES:
            steps += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count_steps)
        tasks.start_soon(View(feed).follow, reading(feed))
    assert steps >= 3


ODD: list[JSON] = [
    {"lease_seconds": "x"},
    {"lease_seconds": None},
    {"lease_seconds": float("nan")},
    {"lease_seconds": 10**400},
    {"offset": "x"},
    {"timestamp": [5]},
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("end", [None, -float("inf"), -1e300, 50.0])
async def test_odd_records(odd: JSON, end: float | None) -> None:
    """Whatever stands in a record or as the end of a lease, the event is JSON, and a time or null."""
    feed = feed_with({"a": "one"})
    feed.state.workers["one"] = {"worker_id": "one", "worker": "w", "status": "online"} | odd
    await View(feed).follow(Leases({} if end is None else {"one": end}, 100.0, feed.position))
    async with viewing(feed) as viewer:
        await viewer.until(lambda: viewer.events and viewer.events[-1].event == "live")
    [task] = viewer.events[0].data["tasks"]
    assert task["lost_at"] is None or abs(task["lost_at"]) < 1e12


async def test_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was here when all had been told since long is not told again; who was not, is."""
    monkeypatch.setattr(lost_module, "AGREED_SECONDS", 0)
    feed = feed_with({"a": "one", "b": "two"})
    view = View(feed)
    await view.follow(reading(feed, "two"))
    tell(feed, "b", "completed", "two")
    await view.follow(reading(feed, "two"))
    assert 1 == len(list(view.since(Position(EPOCH, 3))))
    tell(feed, "c", "active", "two")
    assert [1, 0] == [len(list(view.since(Position(EPOCH, offset)))) for offset in (3, 4)]


class Client:
    """A viewer that keeps what it was told, as a page does."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.tasks: dict[str, str] = {}
        self._taken = 0

    def take(self) -> None:
        """Take what has come; a view event must say what is new, and what was there before."""
        for event in self.viewer.events[self._taken :]:
            if event.event == "reset":
                self.tasks.clear()
            elif event.event == "snapshot":
                self.tasks |= {each["task_id"]: each["status"] for each in event.data["tasks"]}
            elif event.event == "task_status":
                self._take_task(event)
        self._taken = len(self.viewer.events)

    def _take_task(self, event: Event) -> None:
        task_id, status = event.data["task_id"], event.data["status"]
        if not event.own_id:
            assert self.tasks.get(task_id) == event.data["previous"]["status"]
            assert self.tasks.get(task_id) != status
        if status in ("active", "reserved", "lost"):
            self.tasks[task_id] = status
        else:
            self.tasks.pop(task_id, None)


who = st.sampled_from(("one", "two"))
running = st.sampled_from(((), (), ("one",), ("one", "two")))
operations = st.one_of(
    st.tuples(
        st.just("event"), st.sampled_from("ab"), st.sampled_from(("reserved", "active", "failed")), who
    ),
    st.tuples(st.just("event"), st.sampled_from("ab"), st.just("active"), st.just("one")),
    st.tuples(st.just("leases"), running),
    st.tuples(st.just("leases"), running),
    st.tuples(st.just("connect")),
    st.tuples(st.sampled_from(("block", "unblock")), st.integers(0, 2)),
)


@settings(deadline=None)
@given(st.lists(operations, min_size=4, max_size=20), st.sampled_from((3, 1000)))
def test_slow_and_new_viewers(history: list[tuple[Any, ...]], length: int) -> None:
    """Whenever a viewer comes, and however slowly it reads: it is told each change once, and is right."""
    anyio.run(_watch, history, length)


async def _watch(history: list[tuple[Any, ...]], length: int) -> None:
    feed = live_feed(length)
    view, snapshots = View(feed), Snapshots(feed, StatusBoard(feed, Measured(), ()))
    clients: list[Client] = []
    async with serving(feed, view, snapshots) as service, AsyncExitStack() as stack:

        async def connect() -> None:
            viewer = await stack.enter_async_context(watching(service))
            clients.append(Client(viewer))

        for operation, *arguments in history:
            if operation == "event":
                tell(feed, *arguments)
            elif operation == "leases":
                await view.follow(reading(feed, *arguments[0]))
            elif operation == "connect":
                await connect()
            elif arguments[0] < len(clients):
                _let_send(clients[arguments[0]].viewer, operation == "unblock")
            await _settle()
        for client in clients:
            _let_send(client.viewer, True)
        await _settle()
        for client in clients:
            client.take()
            assert shown(feed) == client.tasks


async def _settle() -> None:
    """Let every viewer take what it can take now."""
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


def _let_send(viewer: Viewer, may: bool) -> None:
    if may:
        viewer.may_send.set()
    elif viewer.may_send.is_set():
        viewer.may_send = anyio.Event()
