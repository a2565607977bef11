"""One viewer's stream: a snapshot, then every later event exactly once.

Departures from sse-starlette's response, on purpose: it costs 5 tasks and 44 KiB a viewer and a queue each;
here a viewer is a position in the shared log, and its task sends whatever has come in since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import anyio
from starlette.types import Receive, Scope, Send

from celery_plugin.contract import EventType, Position, encode
from sidecar.backlog import Backlog, rebased
from sidecar.event_log import sse
from sidecar.feed import Feed, Link
from sidecar.lost import View
from sidecar.problems import BadParameter
from sidecar.snapshot import Snapshots
from sidecar.status import StatusBoard
from sidecar.store import StoreUnavailable

# Proxies cut a connection that is silent for 30 to 60 s.
HEARTBEAT_SECONDS = 15.0
HEARTBEAT = b": still here\n\n"
AGAIN_SECONDS = 0.5
# How long an EventSource waits before it comes back.
RETRY = b"retry: 2000\n\n"

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx holds a response back otherwise
]


def read_last_event_id(headers: Mapping[str, str], parameters: Mapping[str, str]) -> Position | None:
    """Parse the id that a viewer saw last; raises BadParameter.

    The header wins: a browser that reconnects keeps the URL with which it began.
    """
    for name, given in (("Last-Event-ID", headers), ("last_event_id", parameters)):
        if value := given.get(name):
            try:
                return Position.parse(value)
            except ValueError as error:
                raise BadParameter(name, "an id that this stream gave out, <epoch>-<offset>") from error
    return None


class EventStream:
    """An ASGI response; ends when the viewer leaves or the sidecar closes."""

    def __init__(
        self,
        feed: Feed,
        status: StatusBoard,
        snapshots: Snapshots,
        backlog: Backlog,
        view: View,
        came_with: Position | None,
    ) -> None:
        self._feed = feed
        self._status = status
        self._snapshots = snapshots
        self._backlog = backlog
        self._view = view
        # The last id of the viewer, until it is known whether the log can be followed from there.
        self._came_with = came_with
        self._resumes_from: Position | None = None
        # Where the viewer is in the log, and under which epoch; None before it has been sent anything.
        self._place: int | None = None
        self._epoch = ""
        self._reset: str | None = None
        self._told_status = 0
        self._told_link = Link.LIVE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until either side ends."""
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send_all, send, tasks.cancel_scope)
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

    async def _send_all(self, send: Send, scope: anyio.CancelScope) -> None:
        await send({"type": "http.response.body", "body": RETRY, "more_body": True})
        while not self._feed.closing:
            chunk = b"".join(self._new_frames())
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            elif not await self._resumes():
                await self._rest(send)
        await send({"type": "http.response.body", "body": b""})
        scope.cancel()

    async def _resumes(self) -> bool:
        """Go on from the id that the viewer came with; False where there is none, or it has to wait."""
        if self._came_with is None or self._feed.link is Link.STARTING:
            return False
        try:
            self._reset = await self._backlog.reach(self._came_with)
        except StoreUnavailable:
            if self._feed.link is not Link.LIVE:
                return False
            # The subscriber has not noticed yet.
            await anyio.sleep(AGAIN_SECONDS)
            return True
        self._resumes_from, self._came_with = self._came_with, None
        return True

    async def _rest(self, send: Send) -> None:
        with anyio.move_on_after(HEARTBEAT_SECONDS) as quiet:
            await self._feed.wait()
        if quiet.cancelled_caught:
            await send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})

    def _new_frames(self) -> Iterator[bytes]:
        yield from self._link_frames()
        if self._feed.link is Link.STARTING or self._came_with is not None:
            return
        reset, self._reset = self._reset or self._obstacle(), None
        if reset:
            yield sse(EventType.RESET, encode({"type": EventType.RESET, "reason": reset}))
        log = self._feed.log
        if self._resumes_from is not None and not reset:
            yield from self._missed(self._resumes_from)
        elif self._place is None or reset:
            snapshot = self._snapshots.latest()
            yield from snapshot.frames
            self._told_status = 0
            yield from (frame.lean for frame in log.since(snapshot.place))
        else:
            yield from (frame.lean for frame in log.since(self._place))
        self._place, self._epoch, self._resumes_from = log.end, log.position.epoch, None
        if self._told_status != self._status.version:
            self._told_status = self._status.version
            yield self._status.frame

    def _link_frames(self) -> Iterator[bytes]:
        link = self._feed.link
        if link is self._told_link:
            return
        self._told_link = link
        kind = EventType.FRESH if link is Link.LIVE else EventType.STALE
        yield sse(kind, encode({"type": kind, "since": round(self._feed.since, 6)}))

    def _missed(self, position: Position) -> Iterator[bytes]:
        offset = rebased(self._feed, position).offset
        yield from (frame.lean for frame in self._feed.log.after(offset))
        yield from self._view.since(position._replace(offset=offset))

    def _obstacle(self) -> str | None:
        """Why the log cannot be followed from the viewer's place; None where it can."""
        if self._place is None or self._feed.log.holds_place(self._place):
            return None
        return "behind" if self._epoch == self._feed.position.epoch else "epoch"
