"""Follows the log: from the channel, and from the stream wherever the channel left something out.

    connecting ─► subscribed ─► (as before? fill : read the whole state) ─► following ─► lost ─► connecting

The connection is a bare one, not redis-py's PubSub: that reconnects without a word, never misses a PONG, and
spins when the network vanishes. Here any silence of 6 s and any error ends the session, and a new one begins
by comparing positions, so that nothing can be missed in between.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

import anyio
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from celery_plugin.contract import JSON, Keys, LogEntry, MalformedBatch, Position, decode_batch
from sidecar.connections import make_dedicated_connection
from sidecar.feed import Feed, Link
from sidecar.lost import View
from sidecar.state import State, Unreadable, read_event
from sidecar.store import NOTHING_YET, Store, StoreUnavailable, Trimmed
from sidecar.tally import BEHIND, DRIFT, EVENTS, LAG, RELOADS, counts

logger = logging.getLogger(__name__)

PING_SECONDS = 2.0
DEAD_SECONDS = 6.0
# A lost tail, after which nothing comes, is found by nothing but comparing positions.
CHECK_SECONDS = 5.0
ON_ITS_WAY_SECONDS = 0.5
FIRST_RETRY_SECONDS = 0.2
LAST_RETRY_SECONDS = 2.0
# It ends each event that a plugin writes; of a batch one is looked at.
_TIMESTAMP = re.compile(rb'"timestamp":([0-9]{1,10}(?:\.[0-9]{1,9})?)\}$')
# Above this much to catch up, the state itself is less to read than the log.
FILL_MAX = 20_000


class SessionLost(Exception):
    """Raised when the subscription has ended; says why."""


_AWAY = (SessionLost, StoreUnavailable, RedisError, OSError, TimeoutError)


class Subscriber:
    """Moves a feed on."""

    def __init__(self, client: Redis, keys: Keys, store: Store, feed: Feed, view: View) -> None:
        self._client = client
        self._keys = keys
        self._store = store
        self._feed = feed
        self._view = view
        self._inbox: deque[bytes] = deque()
        self._arrived = anyio.Event()
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._reason = ""  # why Redis cannot be read, as it was logged; empty while it can

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
        if reason != self._reason:
            logger.warning("cannot read Redis, trying again: %s", reason)
        self._reason = reason
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
        connection.socket_timeout = DEAD_SECONDS
        await connection.connect()
        await connection.send_command("SUBSCRIBE", self._keys.events_channel)
        await _read(connection)

    async def _ping(self, connection: AbstractConnection) -> None:
        while True:
            await anyio.sleep(PING_SECONDS)
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
        self._retry_seconds, self._reason = FIRST_RETRY_SECONDS, ""
        check_at = anyio.current_time() + CHECK_SECONDS
        while True:
            with anyio.move_on_at(check_at):
                await self._next_messages()
                continue
            await self._check()
            check_at = anyio.current_time() + CHECK_SECONDS

    async def _check(self) -> None:
        """Compare positions; what is on its way is waited for a little, so as to count only what was lost."""
        target = await self._store.position()
        counts().put(BEHIND, self._behind(target))
        with anyio.move_on_after(ON_ITS_WAY_SECONDS):
            while self._behind(target):
                await self._next_messages()
        if self._behind(target):
            counts().add(DRIFT, value="log")
        await self._catch_up()

    def _behind(self, target: Position) -> int:
        position = self._feed.position
        return max(0, target.offset - position.offset) if target.epoch == position.epoch else 0

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
            self._feed.pass_over("a message on the channel", error)
            return
        if self._feed.position == NOTHING_YET and first.offset == 1:
            self._feed.log.adopt(first.epoch)
        if first.epoch != self._feed.position.epoch or first.offset > self._feed.position.offset + 1:
            await self._catch_up()
        self._append(entry for entry in entries if first.epoch == self._feed.position.epoch)
        self._note_lag(entries)

    def _note_lag(self, entries: Sequence[LogEntry]) -> None:
        match = _TIMESTAMP.search(entries[-1].event) if entries else None
        if match is not None:
            counts().observe(LAG, max(0.0, time.time() - float(match[1])))

    def _append(self, entries: Iterable[LogEntry]) -> None:
        before = self._feed.position.offset
        for entry in entries:
            if entry.offset == self._feed.position.offset + 1:
                self._feed.append(entry)
        counts().add(EVENTS, max(0, self._feed.position.offset - before))

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
            self._append(await self._store.entries_after(self._feed.position, target.offset))
        self._feed.wake()

    async def _read_all(self) -> None:
        """Read the state, bring it to one offset with what happened meanwhile, and show it."""
        counts().add(RELOADS)
        while True:
            begin, state = await self._store.position(), State()
            async for record in self._store.tasks():
                self._load(state.load_task, record)
            for record in await self._store.workers():
                self._load(state.load_worker, record)
            leases = await self._store.leases()
            end = await self._store.position()
            if end == NOTHING_YET:
                # What was read has been deleted since. If only the log is, the next writer tells all anew.
                state = State()
            if end.epoch == begin.epoch and await self._replay(state, begin, end.offset):
                await self._view.prepare(state, leases)
                self._feed.restart(end, state)
                return

    async def _replay(self, state: State, here: Position, until: int) -> bool:
        """Apply to each task what is later than its record; False where the log was trimmed meanwhile."""
        while here.offset < until:
            try:
                entries = await self._store.entries_after(here, until)
            except Trimmed:
                return False
            for entry in entries:
                self._load(partial(state.apply, entry), entry.event)
            here = Position(here.epoch, entries[-1].offset)
        return True

    def _load(self, take: Callable[[JSON], None], record: bytes) -> None:
        try:
            take(read_event(record))
        except Unreadable as error:
            self._feed.pass_over("a record", error)


async def _read(connection: AbstractConnection) -> Any:
    # With a timeout given here redis-py would answer None, and after a kernel's ETIMEDOUT at once, for ever.
    # It must not disconnect either: a ping that is just being sent would connect anew, behind our back.
    try:
        return await connection.read_response(disconnect_on_error=False)
    except RedisTimeoutError as error:
        raise SessionLost(f"nothing was heard for {DEAD_SECONDS:.0f} s") from error
