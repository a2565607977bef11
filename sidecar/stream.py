"""The answer that is a stream: it admits a viewer to the pump and waits until that has gone.

Departures from sse-starlette's response, on purpose: it costs 5 tasks and 44 KiB a viewer and a queue each;
here a viewer is a position in the shared log. What the pump sends goes straight to the server's ``send``,
past what Starlette wraps around it, which looks at the start of an answer alone and costs 2 µs a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send

from celery_plugin.contract import Position
from sidecar.addresses import Network, client_address
from sidecar.audience import Audiences
from sidecar.drain import Drain, last_words
from sidecar.limits import Limits, overloaded
from sidecar.problems import BadParameter
from sidecar.pump import Pump
from sidecar.snapshot import WAITING_MAX
from sidecar.viewer import Sender, Viewer, body
from sidecar.wanted import Wanted

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx holds a response back otherwise
]
SERVER_SEND = "sidecar.send"
FOUND = "sidecar.stream"


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
        self, wanted: Wanted, came_with: Position | None = None, waiting_max: int | None = WAITING_MAX
    ) -> EventStream:
        """Make the answer to a request for a stream."""
        return EventStream(self, self._audiences.shared(wanted), came_with, waiting_max)

    def enter(self, address: str) -> bytes | None:
        """Count one more stream; where there may be none, give all that it is answered."""
        if self._drain.has_begun:
            return last_words()
        reason = self._limits.enter(address)
        return None if reason is None else overloaded(reason)

    def leave(self, address: str) -> None:
        """A stream that was counted has ended."""
        self._limits.leave(address)

    def admit(self, stream: EventStream, send: Send) -> Viewer:
        """Let the pump send a stream, until it is told that the viewer has gone."""
        audience = self._audiences.enter(stream.wanted)
        viewer = Viewer(cast(Sender, send), audience, stream.came_with, stream.waiting_max)
        self._pump.admit(viewer)
        return viewer

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
        viewer = self.streams.admit(self, scope.get(SERVER_SEND, send))
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self.streams.dismiss(viewer)
            self.streams.leave(address)


class ServerSend:
    """The outermost part of the application: it keeps the server's own ``send`` for the streams.

    A stream is answered from here, when all that found it has returned: the frames of Starlette's middleware
    and routes would stay in memory as long as it is open, 3 KiB of 19.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and answer a stream that was found."""
        scope[SERVER_SEND] = send
        await self._app(scope, receive, send)
        stream = scope.pop(FOUND, None)
        if stream is not None:
            await stream(scope, receive, send)
