"""The server's side of a connection: uvicorn's, with limits to what a client may send.

uvicorn waits for ever for the rest of a head, and takes one of any size; it keeps each header that comes
behind a body, and each request that comes before the last one has been answered. And where a client sends its
next request before the answer to the last one has ended, which a stream's never does, it tells only the
newest one that the client has gone: the stream's task would stay for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sidecar.turns import TurnLoop

HEAD_SECONDS = 15.0
# Cookies and a token have room; a stream keeps its head as long as it is open.
HEAD_MAX_BYTES = 32_768
# A header of four bytes takes 200 in memory.
HEADERS_MAX = 100
# Head and body; no body is wanted that comes near it.
REQUEST_MAX_BYTES = 65_536
# In a turn of the loop; asyncio reads 256 KB, which may be 60,000 chunks of a body, of 0.3 µs each.
READ_BYTES = 16_384
# Requests on one connection that have not been answered; only programs for tests send a second one.
UNANSWERED_MAX = 8
_END_OF_HEAD = b"\r\n\r\n"
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class TooMuch(Exception):
    """Raised into the parser when a client sends what is not taken any more."""


class HttpProtocol(HttpToolsProtocol):
    """Cuts a connection that sends too slowly or too much."""

    # With these in its dict as well, that would be one of its own for each connection, of 1 KB.
    __slots__ = ("_cycles", "_fd", "_head_bytes", "_head_timer", "_request_bytes")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._fd = -1
        self._head_bytes = 0
        self._request_bytes = 0
        # The requests whose answers have not ended.
        self._cycles: list[RequestResponseCycle] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's is
        """Wait for a head."""
        super().connection_made(transport)
        self._fd = transport.get_extra_info("socket").fileno()
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio's own, for each of its sockets
        if isinstance(self.loop, TurnLoop):
            self.loop.turns.add_client(self._fd)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more, and let all who answer know."""
        self._stop_timer()
        if isinstance(self.loop, TurnLoop):
            self.loop.turns.forget_client(self._fd)
        for cycle in self._cycles:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self._cycles.clear()
        super().connection_lost(exc)
        # uvicorn leaves it to run where the client has broken the connection off.
        self._unset_keepalive_if_required()
        # All three refer to themselves: they would stay until the next full collection. A request that
        # waited for the answer to another one refers to this until it has been answered, which it never is.
        self.pipeline.clear()
        self.cycle = None  # type: ignore[assignment]  # as uvicorn has it before the first one
        getattr(self.transport, "__dict__", {}).pop("_read_ready_cb", None)

    def data_received(self, data: bytes) -> None:
        """Take in a piece of a request."""
        if self._head_timer is not None:
            end = data.find(_END_OF_HEAD)
            self._head_bytes += len(data) if end < 0 else end
            if self._head_bytes > HEAD_MAX_BYTES:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
                return
        self._request_bytes += len(data)
        super().data_received(data)
        # What came together with the end of a request is not counted, and is one piece at most.
        if self._request_bytes > REQUEST_MAX_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """The first byte of a head has come."""
        super().on_message_begin()
        if self._head_timer is None:
            self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind a body nobody reads."""
        if self._head_timer is None:
            return
        if len(self.headers) >= HEADERS_MAX:
            raise TooMuch
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._stop_timer()
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        if len(self._cycles) >= UNANSWERED_MAX:
            self.transport.abort()
            raise TooMuch
        super().on_headers_complete()
        self._cycles.append(self.cycle)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._request_bytes = 0
        super().on_message_complete()

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_late(self) -> None:
        self.transport.abort()
