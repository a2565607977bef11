"""A viewer's side of a stream, without a server: what takes long, and what seldom happens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
from starlette.types import Message

from celery_plugin.contract import Keys, LogEntry, Position
from deploy.demo.ports import HOST
from sidecar.audience import Audiences
from sidecar.backlog import Backlog
from sidecar.beginning import Beginnings
from sidecar.catching_up import CatchingUp
from sidecar.connections import make_client
from sidecar.drain import Drain
from sidecar.feed import Feed, Link
from sidecar.front import Front
from sidecar.limits import Limits
from sidecar.lost import View
from sidecar.pulse import Measured
from sidecar.pump import Pump
from sidecar.snapshot import Snapshots
from sidecar.state import State
from sidecar.status import StatusBoard
from sidecar.store import Store
from sidecar.stream import EventStream as Response
from sidecar.stream import Streams
from sidecar.task_beginning import TaskBeginnings
from sidecar.wanted import Wanted
from tests.support.sse import Event, Parser

EPOCH = "0123456789abcdef"
EVERYTHING = Wanted()


class NoBacklog(Backlog):
    """Has nothing but what is in memory."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def reach(self, came_with: Position) -> str | None:
        """Nothing was missed."""
        return None


class Service:
    """What streams viewers from a feed, without a server; run it beside them."""

    def __init__(self, feed: Feed, view: View | None = None, snapshots: Snapshots | None = None) -> None:
        board = StatusBoard(feed, Measured(), ())
        front = Front()
        backlog = NoBacklog(feed)
        store = Store(make_client(f"redis://{HOST}:1"), Keys())  # no stream of one task asks it
        beginnings = Beginnings(snapshots or Snapshots(feed, board), TaskBeginnings(feed, store, backlog))
        catching_up = CatchingUp(feed, front, beginnings, backlog, view or View(feed))
        self.audiences = Audiences(board)
        self.pump = Pump(feed, front, board, self.audiences, catching_up, rest=0)
        self.streams = Streams(self.pump, self.audiences, Limits(1000, 1000), Drain(self.pump, 0), ())

    def open(self, wanted: Wanted = EVERYTHING, came_with: Position | None = None) -> Response:
        """Make the answer to a request."""
        return self.streams.open(wanted, came_with)


@asynccontextmanager
async def serving(
    feed: Feed, view: View | None = None, snapshots: Snapshots | None = None
) -> AsyncIterator[Service]:
    """Run a service."""
    service = Service(feed, view, snapshots)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.pump.run)
        await anyio.lowlevel.checkpoint()
        yield service
        tasks.cancel_scope.cancel()


class Viewer:
    """Receives what an `EventStream` sends."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.parser = Parser()
        self.events: list[Event] = []
        self.messages: list[Message] = []
        self.may_send = anyio.Event()
        self.may_send.set()
        self._gone = anyio.Event()
        self._sent = anyio.Event()

    async def run(self) -> None:
        """Be the server's side of the connection."""
        await self.response({"type": "http", "method": "GET", "headers": []}, self._receive, self._send)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds."""
        with anyio.fail_after(5):
            while not condition():
                self._sent = anyio.Event()
                await self._sent.wait()

    def leave(self) -> None:
        """Hang up."""
        self._gone.set()

    async def _receive(self) -> Message:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        # Like a server's, it waits only where it must.
        if not self.may_send.is_set():
            await self.may_send.wait()
        self.messages.append(message)
        self.events += self.parser.feed(message.get("body", b""))
        if not message.get("more_body", True):
            self._gone.set()
        self._sent.set()


@asynccontextmanager
async def watching(
    service: Service, wanted: Wanted = EVERYTHING, came_with: Position | None = None
) -> AsyncIterator[Viewer]:
    """Run a viewer; it has left at the end."""
    viewer = Viewer(service.open(wanted, came_with))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(viewer.run)
        yield viewer
        viewer.may_send.set()
        viewer.leave()


@asynccontextmanager
async def viewing(feed: Feed, wanted: Wanted = EVERYTHING) -> AsyncIterator[Viewer]:
    """Run a viewer of a feed that nobody else watches."""
    async with serving(feed) as service, watching(service, wanted) as viewer:
        yield viewer


def live_feed(length: int = 100) -> Feed:
    """A feed that has been read, at offset 0."""
    feed = Feed()
    feed.log = type(feed.log)(length)
    feed.restart(Position(EPOCH, 0), State())
    feed.mark(Link.LIVE)
    return feed


def append(feed: Feed, count: int, **facts: Any) -> None:
    """Let so many events come."""
    for _ in range(count):
        offset = feed.position.offset + 1
        event = {"type": "task_status", "task_id": f"t{offset}", "status": "active", **facts}
        feed.append(LogEntry(offset, json.dumps(event).encode(), b"{}"))
    feed.wake()
