"""The depths of the broker's queues, read from real servers and real producers."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from anyio.abc import ByteStream, TaskGroup
from celery import Celery
from redis import Redis

from deploy.demo.redis_server import RedisServer
from sidecar.broker import COALESCE_SECONDS, BrokerFacts, BrokerWatcher, QueueDepth
from sidecar.connections import make_client
from tests.support.deadline import PATIENCE_SECONDS, eventually_async
from tests.support.starters import StartRedis
from tests.support.tasks_app import make_app

# A dead broker is noticed within 6 s of silence, counted from its last answer.
NOTICED_SECONDS = 8.0
KOMBU = BrokerFacts()
# What a reader needs; +client|setinfo would be one more from Redis 7.2 on, its refusal does no harm.
READER = (
    *("+hello", "+auth", "+select", "+ping", "+client|setname", "+client|tracking"),
    *("+llen", "+scan", "+smembers"),
)


class Watched:
    """A watcher that runs, and a test that waits for what it shows."""

    def __init__(self, url: str, extra_queues: Iterable[str] = ()) -> None:
        self._changed = anyio.Event()
        self.client = make_client(url)
        self.watcher = BrokerWatcher(self.client, extra_queues, self._on_change)

    def _on_change(self) -> None:
        self._changed.set()

    @property
    def pending(self) -> dict[str, int] | None:
        depths = self.watcher.depths
        return None if depths is None else {queue: depth.pending for queue, depth in depths.items()}

    def of(self, queue: str) -> QueueDepth | None:
        return (self.watcher.depths or {}).get(queue)

    def shows(self, **pending: int) -> bool:
        return self.pending is not None and pending.items() <= self.pending.items()

    async def until(self, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> float:
        """Wait until the condition holds after a change; return after how many seconds."""
        started = time.monotonic()
        with anyio.move_on_after(seconds):
            while not condition():
                self._changed = anyio.Event()
                await self._changed.wait()
            return time.monotonic() - started
        raise AssertionError(f"not within {seconds:g} s; it shows {self.watcher.depths}")

    async def until_shows(self, seconds: float = PATIENCE_SECONDS, **pending: int) -> float:
        return await self.until(partial(self.shows, **pending), seconds)


@asynccontextmanager
async def watching(url: str, extra_queues: Iterable[str] = ()) -> AsyncIterator[Watched]:
    """Run a watcher; at the end it is cancelled."""
    watched = Watched(url, extra_queues)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watched.watcher.run)
        yield watched
        tasks.cancel_scope.cancel()
    await watched.client.aclose()


def calls(client: Redis, command: str) -> int:
    """How often this server was asked for it; it names only commands that it was asked for."""
    stats = client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


async def send(app: Celery, count: int = 1, **options: object) -> None:
    def produce() -> None:
        for _ in range(count):
            app.send_task("tests.add", (1, 2), **options)

    await anyio.to_thread.run_sync(produce)


async def test_a_depth_is_seen_at_once(redis_server: RedisServer, redis_client: Redis) -> None:
    """A message is seen within 100 ms, each of twenty times, which no poll could do."""
    async with watching(redis_server.url) as watched:
        await watched.until_shows(celery=0)
        for count in range(1, 21):
            await pause_is_over()
            redis_client.lpush("celery", "message")
            await watched.until_shows(celery=count, seconds=0.1)


async def pause_is_over() -> None:
    """Let the watcher's pause between two rounds pass: the next message is to meet it at rest."""
    end = time.monotonic() + 0.12

    async def over() -> bool:
        return time.monotonic() > end

    await eventually_async(over)


async def test_nothing_is_read_while_nothing_changes(redis_server: RedisServer, redis_client: Redis) -> None:
    """One changed list is one LLEN: the lists that did not change are not read again."""
    async with watching(redis_server.url) as watched:
        await watched.until_shows(celery=0)
        before = calls(redis_client, "llen")
        redis_client.lpush("celery", "message")
        await watched.until_shows(celery=1)
        assert 1 == calls(redis_client, "llen") - before


async def test_messages_that_no_worker_ever_saw_are_seen(
    redis_server: RedisServer, celery_app: Celery
) -> None:
    """Twenty tasks sent where no worker has ever run are twenty pending in the default queue."""
    async with watching(redis_server.url) as watched:
        await watched.until_shows(celery=0)
        await send(celery_app, 20)
        await watched.until_shows(celery=20, seconds=1)
        assert {0: 20} == watched.watcher.depths["celery"].by_priority  # type: ignore[index]  # it shows 20


async def test_priorities_are_counted_apart(redis_server: RedisServer, celery_app: Celery) -> None:
    """Each message counts under the priority step in whose list kombu puts it."""
    async with watching(redis_server.url) as watched:
        for priority in (0, 1, 4, 9, 9):
            await send(celery_app, priority=priority)
        await watched.until_shows(celery=5)
        depth = watched.of("celery")
        assert depth is not None
        assert {0: 2, 3: 1, 9: 2} == depth.by_priority
        assert abs(time.time() - depth.measured_at) < 10


async def test_facts_name_the_lists(redis_server: RedisServer) -> None:
    """A worker's key prefix, separator and steps are followed; other applications' lists are not."""
    options = {"global_keyprefix": "shop:", "sep": "|", "priority_steps": [0, 5]}
    shop = make_app(redis_server.url, broker_transport_options=options)
    other = make_app(redis_server.url)
    async with watching(redis_server.url) as watched:
        watched.watcher.watch(["orders"], BrokerFacts("|", (0, 5), "shop:"))
        await send(shop, 2, queue="orders", priority=7)
        await send(shop, 3, queue="unconsumed")
        await send(shop, 4)
        await send(other, 5)
        await watched.until_shows(orders=2, unconsumed=3, celery=4)
        assert {5: 2} == watched.of("orders").by_priority  # type: ignore[union-attr]  # it shows 2
    shop.close()
    other.close()


async def test_a_name_under_two_prefixes_is_added_up(redis_server: RedisServer, redis_client: Redis) -> None:
    """Two applications that share a broker and a queue's name are shown as one queue."""
    async with watching(redis_server.url) as watched:
        watched.watcher.watch(["q"], BrokerFacts(global_keyprefix="a:"))
        watched.watcher.watch(["q"], BrokerFacts(global_keyprefix="b:"))
        redis_client.lpush("a:q", 1)
        redis_client.lpush("b:q", 1, 2)
        await watched.until_shows(q=3)


async def test_a_queue_declared_later_is_found(redis_server: RedisServer, celery_app: Celery) -> None:
    """A queue that nobody consumes shows as soon as a producer declares it, and found at start too."""
    async with watching(redis_server.url) as watched:
        await watched.until_shows(celery=0)
        await send(celery_app, 3, queue="later")
        await watched.until_shows(later=3, seconds=1)
    async with watching(redis_server.url) as watched:
        await watched.until_shows(later=3)


async def test_queues_of_celery_itself_are_no_queues(redis_server: RedisServer, redis_client: Redis) -> None:
    """Remote control, its replies and events are left out; a queue named almost like them is not."""
    for exchange, queue in {
        "celery.pidbox": "celery@host.celery.pidbox",
        "reply.celery.pidbox": "0b5e.reply.celery.pidbox",
        "celeryev": "celeryev.0b5e",
        "celeryevents": "celeryevents",
    }.items():
        redis_client.sadd(f"_kombu.binding.{exchange}", f"\x06\x16\x06\x16{queue}")
    async with watching(redis_server.url) as watched:
        await watched.until_shows(celeryevents=0)
        assert {"celery": 0, "celeryevents": 0} == watched.pending


async def test_a_queue_goes_when_nobody_names_it(redis_server: RedisServer, redis_client: Redis) -> None:
    """A queue that is neither bound nor named any more is not shown."""
    redis_client.sadd("_kombu.binding.bound", "\x06\x16\x06\x16bound")
    async with watching(redis_server.url, ["extra"]) as watched:
        watched.watcher.watch(["named"], KOMBU)
        await watched.until_shows(named=0, bound=0, extra=0)
        watched.watcher.watch([], KOMBU)
        redis_client.delete("_kombu.binding.bound")
        await watched.until(lambda: {"celery": 0, "extra": 0} == watched.pending, seconds=1)


async def test_flushall(redis_server: RedisServer, redis_client: Redis) -> None:
    """A flush, which names no keys, is everything that changes: depths are 0, bound queues gone."""
    redis_client.sadd("_kombu.binding.bound", "\x06\x16\x06\x16bound")
    redis_client.lpush("bound", 1)
    redis_client.lpush("celery", 1)
    async with watching(redis_server.url) as watched:
        await watched.until_shows(celery=1, bound=1)
        redis_client.flushall()
        await watched.until(lambda: {"celery": 0} == watched.pending, seconds=1)
        redis_client.lpush("celery", 1, 2)
        await watched.until_shows(celery=2, seconds=1)


async def test_a_flood_is_read_in_rounds(redis_server: RedisServer, redis_client: Redis) -> None:
    """Five thousand messages make at most twenty reads a second, and the last one is counted."""

    def flood() -> None:
        for _ in range(500):
            with redis_client.pipeline(transaction=False) as pipe:
                for _ in range(10):
                    pipe.lpush("celery", "message")
                pipe.execute()

    async with watching(redis_server.url) as watched:
        await watched.until_shows(celery=0)
        before, started = calls(redis_client, "llen"), time.monotonic()
        await anyio.to_thread.run_sync(flood)
        await watched.until_shows(celery=5000)
        rounds = (time.monotonic() - started) / COALESCE_SECONDS + 2
        checks = 4 * ((time.monotonic() - started) // 5 + 1)
        assert 1 <= calls(redis_client, "llen") - before <= rounds + checks


async def test_refresh_does_not_wait_for_the_pause(redis_server: RedisServer, redis_client: Redis) -> None:
    """Whoever answers a question can have the latest without waiting for the next round."""
    async with watching(redis_server.url) as watched:
        await watched.until_shows(celery=0)
        waited = []
        for count in range(1, 11):
            redis_client.lpush("celery", "message")
            started = time.monotonic()

            async def shows_after_refresh(count: int = count) -> bool:
                await watched.watcher.refresh()
                return watched.shows(celery=count)

            await eventually_async(shows_after_refresh)
            waited.append(time.monotonic() - started)
        assert sorted(waited)[5] < 0.05


async def test_a_frozen_server_is_not_an_empty_one(redis_server: RedisServer, redis_client: Redis) -> None:
    """A server that keeps its connections and says nothing is None in time, burns no CPU, and comes back."""
    redis_client.lpush("celery", 1, 2, 3)
    async with watching(redis_server.url) as watched:
        await watched.until_shows(celery=3)
        redis_server.pause()
        cpu = time.process_time()
        await watched.until(lambda: watched.watcher.depths is None, NOTICED_SECONDS)
        await watched.watcher.refresh()
        assert time.process_time() - cpu < 1
        redis_server.resume()
        await watched.until_shows(celery=3, seconds=NOTICED_SECONDS)


async def test_a_restarted_server_is_watched_again(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that goes is None at once, and is tracked again when it is back; each is logged once."""
    caplog.set_level(logging.INFO, "sidecar")
    async with watching(redis_server.url) as watched:
        await watched.until_shows(celery=0)
        redis_server.kill()
        await watched.until(lambda: watched.watcher.depths is None, seconds=1)
        await eventually_async(partial(is_logged, caplog, "depths of the queues: Error"))
        redis_server.start()
        await watched.until_shows(celery=0)
        with Redis.from_url(redis_server.url) as client:
            client.lpush("celery", 1)
        await watched.until_shows(celery=1, seconds=1)
    answers = [record for record in caplog.records if "depths of the queues: answers" in record.message]
    assert 1 == len(answers)


async def is_logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


async def test_a_server_that_is_not_there_yet(start_redis: StartRedis, free_port: Callable[[], int]) -> None:
    """Before the first answer nothing is known, which is None; a refresh then changes nothing."""
    port = free_port()
    async with watching(f"redis://127.0.0.1:{port}/0") as watched:
        await watched.watcher.refresh()
        assert watched.watcher.depths is None
        start_redis(port=port)
        await watched.until_shows(celery=0)


def make_reader(server: RedisServer, *without: str) -> str:
    """Make a user who may do what the watcher needs, except some of it; return the URL to log in with."""
    with Redis.from_url(server.url) as admin:
        allowed = [rule for rule in READER if rule not in without]
        admin.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "-@all", *allowed)
    return server.url_db(3, "reader", "pw")


async def test_a_reader_is_enough(redis_server: RedisServer) -> None:
    """A user who may only track, read lengths and bindings has everything at once, on any database."""
    url = make_reader(redis_server)
    app = make_app(redis_server.url_db(3))
    async with watching(url) as watched:
        await watched.until_shows(celery=0)
        await send(app, 2, queue="later")
        await watched.until_shows(later=2, seconds=1)
    app.close()


async def test_where_tracking_is_refused_it_polls(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An ACL without CLIENT TRACKING costs a second of delay and one line in the log."""
    url = make_reader(redis_server, "+client|tracking")
    await assert_polls(url, redis_server.url_db(3), caplog, "CLIENT TRACKING is refused")


async def test_where_resp3_is_refused_it_polls(
    start_redis: StartRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """A server without HELLO is read with RESP2."""
    server = start_redis("--rename-command", "HELLO", "")
    await assert_polls(server.url, server.url, caplog, "CLIENT TRACKING is refused")


async def test_where_tracking_is_silent_it_polls(
    redis_server: RedisServer, free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy that accepts tracking and pushes nothing is found out by the first change that a check sees."""
    port = free_port()
    async with proxy(port, redis_server.port):
        await assert_polls(f"redis://127.0.0.1:{port}/0", redis_server.url, caplog, "no push said so", 7)


async def assert_polls(
    url: str, producer_url: str, caplog: pytest.LogCaptureFixture, why: str, first_seconds: float = 1.5
) -> None:
    with Redis.from_url(producer_url, protocol=2) as producer:
        async with watching(url) as watched:
            await watched.until_shows(celery=0)
            producer.lpush("celery", 1)
            await watched.until_shows(celery=1, seconds=first_seconds)
            for count in (2, 3):
                producer.lpush("celery", 1)
                await watched.until_shows(celery=count, seconds=1.5)
    assert 1 == len(re.findall(f"{why}, so its queues are read every", caplog.text))


@asynccontextmanager
async def proxy(port: int, server_port: int) -> AsyncIterator[None]:
    """Forward to a server, and turn tracking off where the client turns it on: the answer is OK just so."""

    async def pump(source: ByteStream, target: ByteStream, tasks: TaskGroup) -> None:
        async for data in source:
            await target.send(data.replace(b"TRACKING\r\n$2\r\nON\r\n", b"TRACKING\r\n$3\r\nOFF\r\n"))
        tasks.cancel_scope.cancel()

    async def serve(client: ByteStream) -> None:
        server = await anyio.connect_tcp("127.0.0.1", server_port)
        async with client, server, anyio.create_task_group() as tasks:
            tasks.start_soon(pump, client, server, tasks)
            tasks.start_soon(pump, server, client, tasks)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield
        tasks.cancel_scope.cancel()


async def test_a_key_that_is_no_list_hides_no_other(
    redis_server: RedisServer, redis_client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A queue whose name is taken by something else is left out and logged once; it returns with its list."""
    redis_client.set("strange", "no list")
    async with watching(redis_server.url, ["strange"]) as watched:
        await watched.until_shows(celery=0)
        redis_client.set("strange", "still no list")
        redis_client.lpush("celery", 1)
        await watched.until_shows(celery=1)
        assert watched.of("strange") is None
        redis_client.delete("strange")
        redis_client.lpush("strange", 1)
        await watched.until_shows(strange=1, seconds=6)
    assert 1 == caplog.text.count("'strange' is left out")


async def test_a_reader_without_llen_knows_nothing(redis_server: RedisServer) -> None:
    """Where not one list may be read the depths are None, not empty."""
    seen = []
    url = make_reader(redis_server, "+llen")
    async with watching(url) as watched:

        async def refused() -> bool:
            seen.append(watched.watcher.depths)
            with Redis.from_url(redis_server.url) as admin:
                return any(entry["object"] == "llen" for entry in admin.acl_log())

        await eventually_async(refused)
        await eventually_async(refused)
    assert {None} == set(seen)


async def test_cancelling_leaves_no_connection(redis_server: RedisServer, redis_client: Redis) -> None:
    """The watcher's two connections go with it."""

    def connections() -> int:
        return sum(client["name"] == "celery-sidecar" for client in redis_client.client_list())

    async with watching(redis_server.url) as watched:
        await watched.until_shows(celery=0)

        async def both() -> bool:
            return connections() == 2

        await eventually_async(both)
    assert watched.watcher.depths is None

    async def none() -> bool:
        return connections() == 0

    await eventually_async(none)
