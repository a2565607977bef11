"""The answer that is a stream: it admits a viewer to the pump and waits until that has gone.

Departures from sse-starlette's response, on purpose: it costs 5 tasks and 44 KiB a viewer and a queue each;
here a viewer is a position in the shared log. What the pump sends goes straight to the server's ``send``,
past what Starlette wraps around it, which looks at the start of an answer alone and costs 2 µs a chunk.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import anyio
from starlette.types import Receive, Scope, Send

from celery_plugin.contract import Position
from sidecar.addresses import Network, client_address
from sidecar.audience import Audiences
from sidecar.collector import allow_for
from sidecar.control import unauthorized
from sidecar.drain import Drain, last_words
from sidecar.headers import raw_send
from sidecar.limits import Limits, overloaded
from sidecar.problems import BadParameter
from sidecar.pump import Pump
from sidecar.snapshot import WAITING_MAX
from sidecar.tally import OPENED, REFUSED, STREAMS, counts
from sidecar.viewer import Sender, Viewer, body
from sidecar.wanted import Wanted

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


class Streams:
    """Opens streams."""

    def __init__(
        self, pump: Pump, audiences: Audiences, limits: Limits, drain: Drain, trusted: Sequence[Network]
    ) -> None:
        self._pump = pump
        self._audiences = audiences
        self._limits = limits
        self._drain = drain
        self._trusted = trusted

    def open(
        self,
        wanted: Wanted,
        came_with: Position | None = None,
        waiting_max: int | None = WAITING_MAX,
        expires_at: float | None = None,
    ) -> EventStream:
        """Make the answer to a request for a stream, which ends at a time in seconds since the epoch."""
        return EventStream(self, self._audiences.shared(wanted), came_with, waiting_max, expires_at)

    def enter(self, address: str) -> bytes | None:
        """Count one more stream; where there may be none, give all that it is answered."""
        if self._drain.has_begun:
            counts().add(REFUSED, value="drain")
            return last_words()
        reason = self._limits.enter(address)
        if reason is not None:
            counts().add(REFUSED, value=reason)
            return overloaded(reason)
        counts().add(OPENED)
        counts().put(STREAMS, self._limits.count)
        allow_for(self._limits.count)
        return None

    def leave(self, address: str) -> None:
        """A stream that was counted has ended."""
        self._limits.leave(address)
        counts().put(STREAMS, self._limits.count)

    def admit(self, stream: EventStream, send: Send) -> Viewer:
        """Let the pump send a stream, until it is told that the viewer has gone."""
        audience = self._audiences.enter(stream.wanted)
        viewer = Viewer(cast(Sender, send), audience, stream.came_with, stream.waiting_max)
        self._pump.admit(viewer)
        return viewer

    def end(self, viewer: Viewer, last_words: bytes) -> None:
        """Let a stream end."""
        self._pump.part_with(viewer, last_words)

    def dismiss(self, viewer: Viewer) -> None:
        """The viewer has gone."""
        self._pump.dismiss(viewer)

    def address_of(self, scope: Scope) -> str:
        """Whose stream it is."""
        return client_address(scope, self._trusted)


@dataclass(frozen=True, slots=True)
class EventStream:
    """An ASGI response; ends when the viewer leaves or the stream does."""

    streams: Streams
    wanted: Wanted
    came_with: Position | None
    waiting_max: int | None
    expires_at: float | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until either side ends."""
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        if scope["method"] == "HEAD":
            await send(body(b"", last=True))
            return
        address = self.streams.address_of(scope)
        refusal = self.streams.enter(address)
        if refusal is not None:
            await send(body(refusal, last=True))
            return
        viewer = self.streams.admit(self, raw_send(scope, send))
        try:
            if not await self._leaves_in_time(receive):
                self.streams.end(viewer, unauthorized())
                await _until_gone(receive)
        finally:
            self.streams.dismiss(viewer)
            self.streams.leave(address)

    async def _leaves_in_time(self, receive: Receive) -> bool:
        """Wait until the viewer has gone, or until it may see nothing more."""
        if self.expires_at is None:
            await _until_gone(receive)
            return True
        with anyio.move_on_after(max(0.0, self.expires_at - time.time())) as allowed:
            await _until_gone(receive)
        return not allowed.cancelled_caught


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
