"""Follows the log: from the channel, and from the stream wherever the channel left something out.

    connecting ─► subscribed ─► (as before? fill : read the whole state) ─► following ─► lost ─► connecting

The connection is a bare one, not redis-py's PubSub: that reconnects without a word, never misses a PONG, and
spins when the network vanishes. Here any silence of 6 s and any error ends the session, and a new one begins
by comparing positions, so that nothing can be missed in between.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from celery_plugin.contract import Keys, LogEntry, MalformedBatch, Position, decode_batch
from sidecar.connections import make_dedicated_connection
from sidecar.feed import Feed, Link
from sidecar.state import State, read_object, read_records
from sidecar.store import NOTHING_YET, Store, StoreUnavailable

logger = logging.getLogger(__name__)

PING_SECONDS = 2.0
DEAD_SECONDS = 6.0
# A lost tail, after which nothing comes, is found by nothing but comparing positions.
CHECK_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.2
LAST_RETRY_SECONDS = 2.0
# Above this much to catch up, the state itself is less to read than the log.
FILL_MAX = 20_000


class SessionLost(Exception):
    """Raised when the subscription has ended; says why."""


class Trimmed(Exception):
    """Raised when the stream no longer holds what is missing."""


_AWAY = (SessionLost, StoreUnavailable, RedisError, OSError, TimeoutError)


class Subscriber:
    """Moves a feed on."""

    def __init__(self, client: Redis, keys: Keys, store: Store, feed: Feed) -> None:
        self._client = client
        self._keys = keys
        self._store = store
        self._feed = feed
        self._inbox: deque[bytes] = deque()
        self._arrived = anyio.Event()
        self._retry_seconds = FIRST_RETRY_SECONDS

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            try:
                await self._session()
            except _AWAY as error:
                self._lost(error)
            await anyio.sleep(self._retry_seconds * random.uniform(0.5, 1.0))
            self._retry_seconds = min(self._retry_seconds * 2, LAST_RETRY_SECONDS)

    def _lost(self, error: BaseException) -> None:
        reason = str(error) or type(error).__name__
        if self._feed.link is Link.LIVE or self._retry_seconds == FIRST_RETRY_SECONDS:
            logger.warning("cannot read Redis, trying again: %s", reason)
        if self._feed.link is Link.LIVE:
            self._feed.mark(Link.STALE, reason)

    async def _session(self) -> None:
        self._inbox.clear()
        connection = make_dedicated_connection(self._client)
        failures: list[Exception] = []

        async def until_failure(part: Callable[..., Awaitable[None]], *args: Any) -> None:
            try:
                await part(*args)
            except _AWAY as error:
                failures.append(error)
                tasks.cancel_scope.cancel()

        try:
            await self._subscribe(connection)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(until_failure, self._ping, connection)
                tasks.start_soon(until_failure, self._listen, connection)
                tasks.start_soon(until_failure, self._follow)
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                await connection.disconnect(nowait=True)
        raise failures[0]

    async def _subscribe(self, connection: AbstractConnection) -> None:
        await connection.connect()
        await connection.send_command("SUBSCRIBE", self._keys.events_channel)
        await _read(connection)

    async def _ping(self, connection: AbstractConnection) -> None:
        while True:
            await anyio.sleep(PING_SECONDS)
            with anyio.fail_after(DEAD_SECONDS):
                await connection.send_command("PING")

    async def _listen(self, connection: AbstractConnection) -> None:
        while True:
            answer = await _read(connection)
            if answer[0] == b"message":
                self._inbox.append(answer[2])
                self._arrived.set()

    async def _follow(self) -> None:
        await self._catch_up()
        if self._feed.link is not Link.LIVE:
            logger.info("following Redis from %s", self._feed.position)
        self._feed.mark(Link.LIVE)
        self._retry_seconds = FIRST_RETRY_SECONDS
        check_at = anyio.current_time() + CHECK_SECONDS
        while True:
            with anyio.move_on_at(check_at):
                await self._next_messages()
                continue
            await self._catch_up()
            check_at = anyio.current_time() + CHECK_SECONDS

    async def _next_messages(self) -> None:
        if not self._inbox:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        # Shielded from the check's timer: a batch is taken whole or not at all.
        with anyio.CancelScope(shield=True):
            while self._inbox:
                await self._take(self._inbox.popleft())
            self._feed.wake()

    async def _take(self, message: bytes) -> None:
        try:
            first, entries = decode_batch(message)
        except MalformedBatch as error:
            logger.warning("a message on the channel is not a batch, passed over: %s", error)
            return
        if self._feed.position == NOTHING_YET and first.offset == 1:
            self._feed.log.adopt(first.epoch)
        if first.epoch != self._feed.position.epoch or first.offset > self._feed.position.offset + 1:
            await self._catch_up()
        self._append(entry for entry in entries if first.epoch == self._feed.position.epoch)

    def _append(self, entries: Any) -> None:
        for entry in entries:
            if entry.offset == self._feed.position.offset + 1:
                self._feed.append(entry)

    async def _catch_up(self) -> None:
        """Bring the feed to Redis's position: by what is missing, or by the whole state."""
        target = await self._store.position()
        here = self._feed.position
        if here == NOTHING_YET and target.offset:
            self._feed.log.adopt(target.epoch)
            here = self._feed.position
        try:
            if self._feed.link is Link.STARTING or here.epoch != target.epoch or here.offset > target.offset:
                raise Trimmed
            await self._fill(target)
        except Trimmed:
            await self._read_all()

    async def _fill(self, target: Position) -> None:
        if target.offset - self._feed.position.offset > FILL_MAX:
            raise Trimmed
        while self._feed.position.offset < target.offset:
            entries = await self._entries_after(self._feed.position.offset, target.offset)
            self._append(entries)
        self._feed.wake()

    async def _entries_after(self, offset: int, until: int) -> list[LogEntry]:
        entries = await self._store.entries_after(offset, until)
        if not entries or entries[0].offset != offset + 1:
            raise Trimmed
        return entries

    async def _read_all(self) -> None:
        """Read the state, bring it to one offset with what happened meanwhile, and show it."""
        while True:
            begin = await self._store.position()
            state = State()
            records, bad = read_records([record async for record in self._store.tasks()])
            for record in records:
                _load(state.load_task, record)
            workers, bad_workers = read_records(await self._store.workers())
            for record in workers:
                _load(state.load_worker, record)
            self._feed.unreadable += bad + bad_workers
            end = await self._store.position()
            if end.epoch == begin.epoch and await self._replay(state, begin.offset, end.offset):
                self._feed.restart(end, state)
                return

    async def _replay(self, state: State, offset: int, until: int) -> bool:
        """Apply to each task what is later than its record; False where the log was trimmed meanwhile."""
        while offset < until:
            try:
                entries = await self._entries_after(offset, until)
            except Trimmed:
                return False
            for entry in entries:
                event = read_object(entry.event)
                if event is not None:
                    _load(lambda event, entry=entry: state.apply(entry, event), event)
            offset = entries[-1].offset
        return True


def _load(take: Any, record: Any) -> None:
    try:
        take(record)
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("a record cannot be read and is passed over: %r", error)


async def _read(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(timeout=DEAD_SECONDS)
    except TimeoutError as error:
        raise SessionLost(f"nothing was heard for {DEAD_SECONDS:.0f} s") from error
