"""A client of Server-Sent Events, after the HTML standard, that fails a test instead of hanging.

Not httpx's own line iterator: it also splits at U+2028 and other characters that stand inside JSON.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import anyio
import httpx

_CONNECT_SECONDS = 10.0
_EVENT_SECONDS = 15.0


@dataclass(frozen=True)
class Event:
    """One event as a browser would dispatch it."""

    event: str
    id: str  # The last id that the stream has named, here or before; "" for none.
    text: str
    own_id: bool = False  # Whether the id stood in this event.

    @property
    def data(self) -> Any:
        """The data as JSON."""
        return json.loads(self.text)


@dataclass
class Parser:
    """Bytes in, events out; remembers id, retry and comments as a browser does."""

    last_event_id: str = ""
    retry_ms: int | None = None
    comments: list[str] = field(default_factory=list)
    _rest: bytes = b""
    _lines: list[str] = field(default_factory=list)

    def feed(self, chunk: bytes) -> list[Event]:
        """Take in a piece of the body and return the events that it completes."""
        *lines, self._rest = _END_OF_LINE.split(self._rest + chunk)
        return [event for line in lines if (event := self._take(line.decode())) is not None]

    def _take(self, line: str) -> Event | None:
        if line.startswith(":"):
            self.comments.append(line[1:].strip())
        elif line:
            self._lines.append(line)
        else:
            return self._dispatch()
        return None

    def _dispatch(self) -> Event | None:
        fields = [_split(line) for line in self._lines]
        self._lines = []
        ids = [value for name, value in fields if name == "id" and "\0" not in value]
        self.last_event_id = ids[-1] if ids else self.last_event_id
        retries = [value for name, value in fields if name == "retry" and value.isdigit()]
        self.retry_ms = int(retries[-1]) if retries else self.retry_ms
        data = [value for name, value in fields if name == "data"]
        kinds = [value for name, value in fields if name == "event"]
        if not data:
            return None
        return Event(kinds[-1] if kinds else "message", self.last_event_id, "\n".join(data), bool(ids))


# A CR at the very end may be the first half of a CRLF, so it waits for the next piece.
_END_OF_LINE = re.compile(rb"\r\n|\n|\r(?!\Z)")


def _split(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.removeprefix(" ")


def _headers(last_event_id: str, headers: Mapping[str, str] | None) -> dict[str, str]:
    resume = {"Last-Event-ID": last_event_id} if last_event_id else {}
    return {"Accept": "text/event-stream", **resume, **(headers or {})}


class StreamEnded(AssertionError):
    """Raised when the server has closed the stream and the test still wants an event."""


class EventStream:
    """A stream that a thread reads, so that a test can wait for the next event with a deadline.

    `seen` holds every event so far; the thread goes on reading while the test does other things.
    """

    def __init__(
        self,
        url: str,
        *,
        last_event_id: str = "",
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._parser = Parser(last_event_id)
        self._url, self._params, self._headers = url, params, headers
        self.seen: list[Event] = []
        self.ended = False
        self._taken = 0
        self._changed = threading.Condition()  # Protects seen, ended and the parser.

    def __enter__(self) -> EventStream:
        # Nothing but the test's own deadlines ends a quiet stream.
        timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
        self._client = httpx.Client(timeout=timeout, trust_env=False)
        try:
            headers = _headers(self._parser.last_event_id, self._headers)
            request = self._client.build_request("GET", self._url, params=self._params, headers=headers)
            self.response = self._client.send(request, stream=True)
        except BaseException:
            self._client.close()
            raise
        self._thread = threading.Thread(target=self._read, name=f"stream {self._url}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status_code

    @property
    def last_event_id(self) -> str:
        """What a browser would send when it reconnects now."""
        with self._changed:
            return self._parser.last_event_id

    @property
    def retry_ms(self) -> int | None:
        """How long the server asked to wait before a reconnect."""
        with self._changed:
            return self._parser.retry_ms

    @property
    def comments(self) -> list[str]:
        """The comments so far; heartbeats are such."""
        with self._changed:
            return list(self._parser.comments)

    def next(self, seconds: float = _EVENT_SECONDS) -> Event:
        """Take the next event."""
        deadline = monotonic() + seconds
        with self._changed:
            while self._taken == len(self.seen):
                if self.ended:
                    raise StreamEnded(f"the stream ended after {self._summary()}")
                if not self._changed.wait(deadline - monotonic()):
                    raise AssertionError(f"no event within {seconds:g} s after {self._summary()}")
            self._taken += 1
            return self.seen[self._taken - 1]

    def until(self, wanted: Callable[[Event], object], seconds: float = _EVENT_SECONDS) -> Event:
        """Take events until one is wanted, and return that one."""
        deadline = monotonic() + seconds
        while not wanted(event := self.next(max(0.0, deadline - monotonic()))):
            pass
        return event

    def until_type(self, kind: str, seconds: float = _EVENT_SECONDS) -> Event:
        """Take events until one of this type."""
        return self.until(lambda event: event.event == kind, seconds)

    def until_task(self, task_id: str, status: str, seconds: float = _EVENT_SECONDS) -> Event:
        """Take events until this task has this status."""
        return self.until(
            lambda event: (
                event.event == "task_status"
                and event.data["task_id"] == task_id
                and event.data["status"] == status
            ),
            seconds,
        )

    def wait_for_end(self, seconds: float = _EVENT_SECONDS) -> None:
        """Wait until the server closes the stream."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.ended, seconds):
                raise AssertionError(f"the stream is still open after {seconds:g} s")

    def __iter__(self) -> Iterator[Event]:
        """Take events until the server closes the stream; fail when it is quiet for too long."""
        try:
            while True:
                yield self.next()
        except StreamEnded:
            return

    def reconnect(self, *, last_event_id: str | None = None) -> EventStream:
        """Make the stream that a browser would open next, with the last id; use it in a `with`."""
        resume = self.last_event_id if last_event_id is None else last_event_id
        return EventStream(self._url, last_event_id=resume, params=self._params, headers=self._headers)

    def close(self) -> None:
        """Hang up."""
        # Closing a socket does not wake the thread that reads it; shutting it down does.
        stream = self.response.extensions.get("network_stream")
        connection = stream.get_extra_info("socket") if stream is not None else None
        if connection is not None and connection.fileno() >= 0:
            with suppress(OSError, httpx.TransportError, httpx.StreamError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._client.close()

    def _read(self) -> None:
        with suppress(OSError, httpx.TransportError, httpx.StreamError):
            for chunk in self.response.iter_bytes():
                with self._changed:
                    self.seen += self._parser.feed(chunk)
                    self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _summary(self) -> str:
        tail = [f"{event.event} {event.text[:300]}" for event in self.seen[-5:]]
        return f"{len(self.seen)} events, the last of them:\n" + "\n".join(tail)


@asynccontextmanager
async def async_events(
    url: str,
    *,
    client: httpx.AsyncClient | None = None,
    last_event_id: str = "",
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = _EVENT_SECONDS,
) -> AsyncIterator[AsyncIterator[Event]]:
    """Open a stream and iterate it; each event must come within `seconds`."""
    timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
    async with client or httpx.AsyncClient(timeout=timeout, trust_env=False) as opened:
        sent = _headers(last_event_id, headers)
        async with opened.stream("GET", url, params=params, headers=sent) as response:
            yield _iterate(response, Parser(last_event_id), seconds)


async def _iterate(response: httpx.Response, parser: Parser, seconds: float) -> AsyncIterator[Event]:
    chunks = response.aiter_bytes().__aiter__()
    pending: list[Event] = []
    while True:
        while pending:
            yield pending.pop(0)
        # The limit covers the wait alone, never the time in which the test holds the event.
        with anyio.fail_after(seconds):
            chunk = await anext(chunks, b"")
        if not chunk:
            return
        pending = parser.feed(chunk)
