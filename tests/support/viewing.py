"""A viewer's side of a stream, without a server: what takes long, and what seldom happens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from starlette.types import Message

from celery_plugin.contract import LogEntry, Position
from sidecar.backlog import Backlog
from sidecar.feed import Feed, Link
from sidecar.lost import View
from sidecar.pulse import Measured
from sidecar.snapshot import Snapshots
from sidecar.state import State
from sidecar.status import StatusBoard
from sidecar.stream import EventStream as Response
from tests.support.sse import Event, Parser

EPOCH = "0123456789abcdef"


class NoBacklog(Backlog):
    """Has nothing but what is in memory."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def reach(self, came_with: Position) -> str | None:
        """Nothing was missed."""
        return None


class Viewer:
    """Receives what an `EventStream` sends."""

    def __init__(
        self, feed: Feed, came_with: Position | None, view: View | None, snapshots: Snapshots | None
    ) -> None:
        board = StatusBoard(feed, Measured(), ())
        self.response = Response(
            feed, board, snapshots or Snapshots(feed, board), NoBacklog(feed), view or View(feed), came_with
        )
        self.parser = Parser()
        self.events: list[Event] = []
        self.messages: list[Message] = []
        self.may_send = anyio.Event()
        self.may_send.set()
        self._gone = anyio.Event()
        self._sent = anyio.Event()

    async def run(self) -> None:
        """Be the server's side of the connection."""
        await self.response({"type": "http", "method": "GET"}, self._receive, self._send)

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
        await self.may_send.wait()
        self.messages.append(message)
        self.events += self.parser.feed(message.get("body", b""))
        self._sent.set()


@asynccontextmanager
async def viewing(
    feed: Feed,
    came_with: Position | None = None,
    view: View | None = None,
    snapshots: Snapshots | None = None,
) -> AsyncIterator[Viewer]:
    """Run a viewer; it has left at the end."""
    viewer = Viewer(feed, came_with, view, snapshots)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(viewer.run)
        yield viewer
        viewer.may_send.set()
        viewer.leave()


def live_feed(length: int = 100) -> Feed:
    """A feed that has been read, at offset 0."""
    feed = Feed()
    feed.log = type(feed.log)(length)
    feed.restart(Position(EPOCH, 0), State())
    feed.mark(Link.LIVE)
    return feed


def append(feed: Feed, count: int) -> None:
    """Let so many events come."""
    for _ in range(count):
        offset = feed.position.offset + 1
        event = {"type": "task_status", "task_id": f"t{offset}", "status": "active"}
        feed.append(LogEntry(offset, json.dumps(event).encode(), b"{}"))
    feed.wake()
