"""A client that comes back as an `EventSource` does: after the time it was told, with the last id."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import anyio
import httpx

from celery_plugin.contract import Position
from tests.support.sse import Event, Parser

# Made once: each would take 20 ms.
_TLS = ssl.create_default_context()


class Refused(AssertionError):
    """Raised on any answer but 200, at which a browser gives up."""


@dataclass
class Returning:
    """Keeps what it has seen; run it in a task group and cancel it."""

    url: str
    # One of this machine's addresses (127.0.0.0/8), so that clients can be told apart.
    address: str
    seen: list[Event] = field(default_factory=list)
    # What it saw last, and how long it was to wait, each time a stream ended.
    partings: list[tuple[str, int]] = field(default_factory=list)
    # Streams that broke off instead of coming to their end.
    broken: int = 0
    _parser: Parser = field(default_factory=Parser)

    async def run(self) -> None:
        """Come, and come back."""
        transport = httpx.AsyncHTTPTransport(verify=_TLS, local_address=self.address)
        async with httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(None, connect=10)) as client:
            while True:
                async for event in self._stream(client):
                    self.seen.append(event)
                retry = self._parser.retry_ms or 3000
                self.partings.append((self.seen[-1].event if self.seen else "", retry))
                await anyio.sleep(retry / 1000)  # as it was told

    async def _stream(self, client: httpx.AsyncClient) -> AsyncIterator[Event]:
        last = self._parser.last_event_id
        # What a cut has left over belongs to nothing.
        self._parser = Parser(last, self._parser.retry_ms)
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        try:
            async with client.stream("GET", self.url, headers=headers) as response:
                if response.status_code != 200:
                    raise Refused(f"{response.status_code}")
                async for chunk in response.aiter_bytes():
                    for event in self._parser.feed(chunk):
                        yield event
        except httpx.TransportError:
            self.broken += 1

    @property
    def is_live(self) -> bool:
        """Whether it has seen where the snapshot ends."""
        return any(event.event == "live" for event in self.seen)

    @property
    def offsets(self) -> list[int]:
        """The offsets of the events that it has seen, after the one of the snapshot."""
        return [Position.parse(event.id).offset for event in self.seen if event.own_id]

    def count(self, kind: str) -> int:
        """How many events of a type it has seen."""
        return sum(event.event == kind for event in self.seen)
