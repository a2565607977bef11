"""The subscriber follows Redis: nothing is left out, nothing taken twice, and nothing foreign ends it."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from redis import Redis

from celery_plugin.contract import Keys, Position, encode_batch
from deploy.demo.redis_server import RedisServer
from sidecar import subscriber as subscriber_module
from sidecar.connections import make_client
from sidecar.feed import Feed, Link
from sidecar.lost import View
from sidecar.store import NOTHING_YET, Store
from sidecar.subscriber import Subscriber
from tests.support import acl
from tests.support.batches import Stored
from tests.support.deadline import PATIENCE_SECONDS
from tests.support.starters import StartSidecar
from tests.support.writing import life, many, task, worker, writing

KEYS = Keys()


class Followed:
    """A feed that a subscriber moves on."""

    def __init__(self) -> None:
        self.feed = Feed()
        self.links: list[Link] = []

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while not condition():
                await self.feed.wait()

    async def reach(self, position: Position) -> None:
        """Wait until the feed is there."""
        await self.until(lambda: self.feed.position == position and self.feed.link is Link.LIVE)

    def agrees_with(self, client: Redis) -> bool:
        """Tell whether the state is what Redis's hashes say."""
        state, stored = self.feed.state, Stored(client)
        return {
            task_id: json.loads(each.record) for task_id, each in state.active.items()
        } == stored.active and {
            task_id: json.loads(each.record) for task_id, each in state.waiting.items()
        } == stored.waiting

    @property
    def offsets(self) -> list[int]:
        """What the log in memory holds."""
        return [frame.offset for frame in self.feed.log.after(self.feed.log.first - 1)]


@asynccontextmanager
async def following(server: RedisServer) -> AsyncIterator[Followed]:
    """Run a subscriber under the sidecar's user."""
    followed = Followed()
    url = acl.as_user(server.url)
    client, subscriptions = make_client(url), make_client(url, protocol=2)
    subscriber = Subscriber(subscriptions, KEYS, Store(client, KEYS), followed.feed, View(followed.feed))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(subscriber.run)
        yield followed
        tasks.cancel_scope.cancel()
    await client.aclose()
    await subscriptions.aclose()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what takes seconds."""
    monkeypatch.setattr(subscriber_module, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(subscriber_module, "PING_SECONDS", 0.1)
    monkeypatch.setattr(subscriber_module, "DEAD_SECONDS", 0.5)


async def test_follows(redis_server: RedisServer, redis_client: Redis) -> None:
    """State and log move on with each batch."""
    with writing(redis_server.url) as sender, Redis.from_url(redis_server.url) as client:
        sender.send(worker(), task("a", "active"), task("b", "scheduled"))
        async with following(redis_server) as followed:
            await followed.reach(Position(Stored(client).log["epoch"], 3))
            assert followed.agrees_with(client)
            position = sender.send(*life("c"), task("b", "active"), task("a", "completed")).position
            await followed.reach(position)
            assert followed.agrees_with(client)
            assert [4, 5, 6, 7, 8] == followed.offsets
            assert ["one"] == list(followed.feed.state.workers)


async def test_bootstrap_while_tasks_run(redis_server: RedisServer) -> None:
    """A state that is read while it changes ends up as Redis's."""
    with writing(redis_server.url) as sender, Redis.from_url(redis_server.url) as client:
        sender.send(worker())
        for start in range(0, 3000, 500):
            sender.send(*(task(f"t{number}", "reserved") for number in range(start, start + 500)))
        for _ in range(3):
            async with following(redis_server) as followed:
                for batch in many(600, prefix="x"):
                    await anyio.to_thread.run_sync(lambda batch=batch: sender.send(*batch))
                position = sender.send(task(f"t{sender.number}", "active")).position
                await followed.reach(position)
                assert followed.agrees_with(client)


async def test_a_message_that_was_not_published(redis_server: RedisServer, redis_client: Redis) -> None:
    """A hole is filled from the stream before anything later is shown."""
    with writing(redis_server.url) as sender:
        position = sender.send(worker()).position
        async with following(redis_server) as followed:
            await followed.reach(position)
            add_unpublished(redis_client, 2)
            last = sender.send(task("b", "active")).position
            await followed.reach(last)
            assert [2, 3] == followed.offsets
            assert ["lost2", "b"] == list(followed.feed.state.active)


def add_unpublished(client: Redis, offset: int) -> None:
    """Write an event that no message tells of, as when Redis cut the subscriber."""
    event = {"type": "task_status", "task_id": f"lost{offset}", "status": "active", "offset": offset}
    client.xadd(KEYS.events, {"event": json.dumps(event), "extra": "{}"}, id=f"{offset}-0")
    client.hset(KEYS.log, "offset", offset)


@pytest.mark.usefixtures("quick")
async def test_a_lost_tail(redis_server: RedisServer, redis_client: Redis) -> None:
    """What no message tells of is found although nothing follows."""
    with writing(redis_server.url) as sender:
        position = sender.send(worker()).position
        async with following(redis_server) as followed:
            await followed.reach(position)
            add_unpublished(redis_client, 2)
            await followed.reach(position._replace(offset=2))
            assert [2] == followed.offsets


@pytest.mark.usefixtures("quick")
async def test_silence(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that says nothing is given up; afterwards comes what was missed, and only that."""
    with writing(redis_server.url) as sender:
        position = sender.send(worker()).position
        async with following(redis_server) as followed:
            await followed.reach(position)
            redis_server.pause()
            await followed.until(lambda: followed.feed.link is Link.STALE)
            redis_server.resume()
            last = sender.send(*life("a")).position
            await followed.reach(last)
            assert [2, 3, 4] == followed.offsets
    assert "nothing was heard for" in caplog.text


async def test_a_new_epoch(redis_server: RedisServer, redis_client: Redis) -> None:
    """When the log begins anew, so does the feed."""
    with writing(redis_server.url) as sender:
        position = sender.send(worker(), task("a", "active")).position
        async with following(redis_server) as followed:
            await followed.reach(position)
            redis_client.flushall()
            sender.number = 0
            last = sender.send(worker(), task("b", "active")).position
            await followed.reach(last)
            assert ["b"] == list(followed.feed.state.active)
            assert last.epoch != position.epoch


async def test_the_first_epoch(redis_server: RedisServer) -> None:
    """A feed that began with an empty Redis has everything from the first event on."""
    with writing(redis_server.url) as sender:
        async with following(redis_server) as followed:
            await followed.reach(NOTHING_YET)
            await followed.reach(sender.send(worker(), *life("a")).position)
            assert [1, 2, 3, 4] == followed.offsets


FOREIGN = [
    b"",
    b"hello",
    b"\n\n",
    b"\xff\x00\n{}\n{}",
    b"0123456789abcdef-1\n{}",
    b"0123456789abcdef-x\n{}\n{}",
    b"0123456789abcdef-5\n{}\n{}",
    b"0" * 100_000,
    encode_batch(Position("0123456789abcdef", 2), [(b"{}", b"{}")]),
    encode_batch(Position("0123456789abcdef", 999), [(b"nonsense", b"nonsense")] * 3),
]


async def test_foreign_messages(redis_server: RedisServer, redis_client: Redis) -> None:
    """What others publish on the channel is counted and passed over; what is ours goes on."""
    with writing(redis_server.url) as sender:
        position = sender.send(worker()).position
        async with following(redis_server) as followed:
            await followed.reach(position)
            for message in FOREIGN:
                redis_client.publish(KEYS.events_channel, message)
            await followed.reach(sender.send(*life("a")).position)
            assert [2, 3, 4] == followed.offsets
            assert 7 == followed.feed.unreadable


async def test_a_forged_batch(redis_server: RedisServer, redis_client: Redis) -> None:
    """Batches that are ahead of Redis, or of another epoch, are not believed."""
    with writing(redis_server.url) as sender:
        position = sender.send(worker()).position
        event = b'{"type":"task_status","task_id":"forged","status":"active"}'
        async with following(redis_server) as followed:
            await followed.reach(position)
            for forged in (position._replace(offset=50), Position("f" * 16, 2), Position("f" * 16, 1)):
                redis_client.publish(KEYS.events_channel, encode_batch(forged, [(event, b"{}")]))
            await followed.reach(sender.send(task("a", "active")).position)
            assert ["a"] == list(followed.feed.state.active)


async def test_foreign_entries_in_the_log(redis_server: RedisServer, redis_client: Redis) -> None:
    """An entry of the stream that is no event keeps its place; viewers get its id alone."""
    with writing(redis_server.url) as sender:
        position = sender.send(worker()).position
        async with following(redis_server) as followed:
            await followed.reach(position)
            redis_client.xadd(KEYS.events, {"note": "hello"}, id="2-0")
            redis_client.xadd(KEYS.events, {"event": "nonsense", "extra": "{}"}, id="3-0")
            redis_client.xadd(KEYS.events, {"event": "{}"}, id="4-0")
            redis_client.xadd(KEYS.events, {"event": "{}"}, id="4-1")
            redis_client.hset(KEYS.log, "offset", 4)
            await followed.reach(sender.send(task("a", "active")).position)
            assert [2, 3, 4, 5] == followed.offsets
            frames = [frame.lean for frame in followed.feed.log.after(1)]
            assert [f"id: {position.epoch}-{n}\n\n".encode() for n in (2, 3, 4)] == frames[:3]
            assert ["a"] == list(followed.feed.state.active)
            assert 3 == followed.feed.unreadable


GARBAGE: dict[str, Any] = {
    "empty": "",
    "text": "nonsense",
    "list": "[]",
    "deep": "[" * 50_000,
    "fields": "{}",
    "types": '{"type":"task_status","task_id":5,"status":7,"offset":"x"}',
    "number": '{"type":"task_status","task_id":"n","status":"active","offset":1,"received_at":1'
    + "0" * 400
    + "}",
    "worker": '{"type":"worker_status","worker_id":"w"}',
    "facts": '{"type":"worker_status","worker_id":"w","worker":"w","status":"online","queues":7}',
    "binary": b"\xff\x00\r\n",
}


def test_garbage_in_the_hashes(
    redis_server: RedisServer, redis_client: Redis, start_sidecar: StartSidecar
) -> None:
    """Records that cannot be read hide nothing else, and end neither the sidecar nor a question to it."""
    with writing(redis_server.url) as sender:
        sender.send(worker(), task("a", "active"), task("b", "reserved"))
        for key in (KEYS.active_tasks, KEYS.waiting_tasks, KEYS.workers):
            redis_client.hset(key, mapping=GARBAGE)
        redis_client.zadd(KEYS.leases, {b"\xff": 1e300, "nobody": float("inf")})
        sidecar = start_sidecar()
        with sidecar.events() as stream:
            shown = stream.until_type("snapshot").data["tasks"]
            assert {"a", "b"} == {each["task_id"] for each in shown}
            last = sender.send(task("a", "completed"))
            stream.until(lambda event: event.id == str(last.position))
    for path in ("status", "tasks", "workers", "tasks/b"):
        assert 200 == sidecar.get(f"/api/v1/queue/{path}").status_code
    assert ["one"] == [each["worker_id"] for each in sidecar.get("/api/v1/queue/workers").json()["workers"]]
    sidecar.wait_for_line("WARNING.*a record cannot be read")
    assert "Traceback" not in sidecar.output
    # 30 of them, and yet not 30 lines.
    assert sidecar.output.count("cannot be read") < 10


def test_keys_of_other_types(
    redis_server: RedisServer, redis_client: Redis, start_sidecar: StartSidecar
) -> None:
    """Where somebody else uses our keys, that is said, and the sidecar waits until they are ours again."""
    redis_client.set(KEYS.active_tasks, "somebody else's")
    sidecar = start_sidecar()
    sidecar.wait_for_line("WARNING.*cannot read Redis.*WRONGTYPE")
    assert 503 == sidecar.get("/api/v1/queue/tasks").status_code
    redis_client.delete(KEYS.active_tasks)
    redis_client.hset(KEYS.log, mapping={"epoch": "x", "offset": "nonsense"})
    sidecar.wait_for_line("WARNING.*cannot read Redis.*queue:log is not what a plugin writes")
    redis_client.delete(KEYS.log)
    with sidecar.events() as stream:
        stream.until_type("live")
    assert "Traceback" not in sidecar.output


async def test_warnings_are_few(caplog: pytest.LogCaptureFixture) -> None:
    """A flood of what cannot be read is counted, and logged ever less often."""
    feed = Feed()
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            feed.pass_over("a message", ValueError("no batch"))
    assert (1000, 10) == (feed.unreadable, len(caplog.records))
