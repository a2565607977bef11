"""A whole sidecar without sockets, and pages that watch it: its own parts, over a Redis in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus
from starlette.datastructures import QueryParams
from starlette.types import Message

from celery_plugin.contract import Keys, Position
from deploy.demo.ports import HOST
from sidecar.audience import Audiences
from sidecar.backlog import Backlog
from sidecar.beginning import Beginnings
from sidecar.catching_up import CatchingUp
from sidecar.connections import make_client
from sidecar.drain import Drain
from sidecar.event_log import EventLog
from sidecar.feed import Feed
from sidecar.front import Front
from sidecar.limits import Limits
from sidecar.lost import View
from sidecar.parameters import read_wanted, read_wanted_of_task
from sidecar.pulse import Measured
from sidecar.pump import Pump
from sidecar.snapshot import Snapshots
from sidecar.status import StatusBoard
from sidecar.store import StoreUnavailable
from sidecar.stream import EventStream, Streams
from sidecar.subscriber import Subscriber
from sidecar.task_beginning import TaskBeginnings
from tests.support.asked import Asked
from tests.support.memory_redis import MemoryRedis, MemoryStore
from tests.support.told import IdParser, Told


class MemorySubscriber(Subscriber):
    """Hears what it is given while it is connected; all else is the subscriber's own."""

    def __init__(self, store: MemoryStore, feed: Feed, view: View) -> None:
        # Nothing is connected to: a session is begun and ended by `connect` and `cut`.
        super().__init__(make_client(f"redis://{HOST}:1"), Keys(), store, feed, view)
        self._session_scope: anyio.CancelScope | None = None

    @property
    def connected(self) -> bool:
        """Whether a session has begun and not ended."""
        return self._session_scope is not None

    async def session(self) -> None:
        """Follow, until it is cut or Redis is away."""
        self._inbox.clear()
        with anyio.CancelScope() as self._session_scope:
            try:
                await self._follow()
            except StoreUnavailable as error:
                self._lost(error)
        self._session_scope = None

    def hear(self, message: bytes) -> None:
        """A message has come from the channel."""
        if self.connected:
            self._inbox.append(message)
            self._arrived.set()

    def cut(self) -> None:
        """The connection has ended."""
        if self._session_scope is not None:
            self._session_scope.cancel()
            self._lost(StoreUnavailable("cut"))


class MemorySidecar:
    """The parts as `server` wires them; its figures are not kept up to date, which takes time."""

    def __init__(self, redis: MemoryRedis, log_length: int, store: MemoryStore | None = None) -> None:
        feed, front, store = Feed(), Front(), store or MemoryStore(redis)
        feed.log = EventLog(log_length)
        self._view, self._store = View(feed), store
        board = StatusBoard(feed, Measured(), ())
        backlog = Backlog(store, feed)
        beginnings = Beginnings(Snapshots(feed, board), TaskBeginnings(feed, store, backlog))
        catching_up = CatchingUp(feed, front, beginnings, backlog, self._view)
        self.feed, audiences = feed, Audiences(board)
        self._pump = Pump(feed, front, board, audiences, catching_up, rest=0)
        self._streams = Streams(self._pump, audiences, Limits(1000, 1000), Drain(self._pump, 0), ())
        self.subscriber = MemorySubscriber(store, feed, self._view)
        # Whatever runs in it.
        self.tasks: TaskGroup

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Run until it is killed."""
        async with anyio.create_task_group() as self.tasks:
            self.tasks.start_soon(self._pump.run)
            self.connect()
            task_status.started()

    def kill(self) -> None:
        """End at once, with all connections."""
        self.tasks.cancel_scope.cancel()

    def connect(self) -> None:
        """Begin to follow Redis, unless it does."""
        if not self.subscriber.connected:
            self.tasks.start_soon(self.subscriber.session)

    async def pulse(self) -> None:
        """Look at the leases once, as `Pulse` does."""
        try:
            leases = await self._store.leases()
        except StoreUnavailable:
            return
        if self.feed.link.value == "live":
            await self._view.follow(leases)

    def open(self, asked: Asked, came_with: Position | None) -> EventStream:
        """Make the answer to a request."""
        given = QueryParams(asked.parameters)
        if asked.task_id:
            return self._streams.open(read_wanted_of_task(asked.task_id, given), came_with)
        wanted, waiting_max = read_wanted(given)
        return self._streams.open(wanted, came_with, waiting_max)


class Page:
    """A page that watches, and connects again when it is told to."""

    def __init__(self, asked: Asked) -> None:
        self.told = Told(asked)
        # Set when the connection has ended, by whichever side.
        self._gone = anyio.Event()
        self._gone.set()
        self._may_take = anyio.Event()
        self._may_take.set()
        # How many the connection will take.
        self._pieces: int | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return not self._gone.is_set()

    def connect(self, sidecar: MemorySidecar, *, fresh: bool = False, pieces: int | None = None) -> None:
        """Hang up, and open the stream with the last id, or as a page that is loaded anew.

        It is cut off behind so many pieces, where that is said.
        """
        self.hang_up()
        if self.told.ended:
            return
        last = self.told.connect(fresh=fresh)
        response = sidecar.open(self.told.asked, Position.parse(last) if last else None)
        self._gone = anyio.Event()
        sidecar.tasks.start_soon(self._watch, response, self._gone)
        self._pieces = pieces

    def hang_up(self) -> None:
        """Leave, whatever is on its way."""
        self._gone.set()

    def block(self) -> None:
        """Take nothing any more."""
        if self._may_take.is_set():
            self._may_take = anyio.Event()

    def unblock(self) -> None:
        """Take what comes, at once."""
        self._may_take.set()

    def keep(self) -> None:
        """Have a connection that works."""
        self._pieces = None
        self.unblock()

    def _is_cut(self) -> bool:
        if self._pieces is not None:
            self._pieces -= 1
        return self._pieces == -1

    async def _watch(self, response: EventStream, gone: anyio.Event) -> None:
        parser = IdParser()

        async def send(message: Message) -> None:
            if not self._may_take.is_set():
                await self._may_take.wait()
            if gone.is_set() or self._is_cut():
                gone.set()
                return
            for event in parser.feed(message.get("body", b"")):
                self.told.take(event)
            if not message.get("more_body", True):
                gone.set()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": []}
        try:
            await response(scope, receive, send)
        finally:
            gone.set()


async def settle(turns: int) -> None:
    """Let everything go on for so many turns of the loop."""
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()


async def until(condition: Callable[[], object]) -> None:
    """Let everything go on until it holds."""
    for _ in range(10_000):
        if condition():
            return
        await anyio.lowlevel.checkpoint()
    raise AssertionError("it never holds")
