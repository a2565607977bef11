"""Follows a stream of events for ever: reads it, comes back with the last id, and says how it stands.

Message   an event, with the object in its data
Sign      the sidecar is there; nothing has happened
Link      the connection has changed: what it is now, and why
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Final
from urllib.parse import urlencode

from celery_plugin.contract import JSON, EventType
from sidecar.terminal.asking import EVENTS, NoAnswer, open_answer
from sidecar.terminal.target import Target

# The sidecar gives a sign of life every 15 s.
SILENCE_SECONDS: Final = 35.0
FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 30.0
# What `retry:` of a stream may ask for at most.
RETRY_MAX_SECONDS: Final = 300.0
# An event beyond this is none of a sidecar's: whatever sends it must not fill the memory.
EVENT_MAX_BYTES: Final = 64 * 1024 * 1024
READ_BYTES: Final = 65_536

# What a stream says before it ends.
_LAST_WORDS: Final = {
    EventType.DRAIN: "this sidecar goes away",
    EventType.OVERLOADED: "the sidecar has too many streams",
    EventType.UNAUTHORIZED: "the token has expired",
}

CONNECTING: Final = "connecting"
OPEN: Final = "open"
WAITING: Final = "reconnecting"


@dataclass(frozen=True)
class Message:
    """An event of the stream."""

    event: str
    data: JSON


@dataclass(frozen=True)
class Sign:
    """Something came, if only a comment."""


@dataclass(frozen=True)
class Link:
    """How the connection stands; while it waits, why, and when it tries again (by `time.monotonic`)."""

    state: str
    words: str = ""
    retry_at: float = 0.0


Item = Message | Sign | Link


class Follower:
    """Iterate over it; raises NoAnswer where coming back is of no use."""

    def __init__(
        self,
        target: Target,
        parameters: list[tuple[str, str]],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._target = target
        self._path = f"{EVENTS}?{urlencode(parameters)}" if parameters else EVENTS
        self._sleep = sleep
        self._last_id = ""
        # What the sidecar asked for; otherwise the waits grow.
        self._asked_retry: float | None = None
        self._failures = 0
        self._last_words = ""

    def __iter__(self) -> Iterator[Item]:
        while True:
            yield Link(CONNECTING)
            words = self._last_words = ""
            try:
                with self._open() as response:
                    yield Link(OPEN)
                    yield from self._read(response)
            except NoAnswer as error:
                if error.final:
                    raise
                words = str(error)
            except TimeoutError:
                words = f"nothing came for {SILENCE_SECONDS:g} s"
            except (OSError, HTTPException, ValueError):
                words = "the connection broke"
            delay = self._delay()
            yield Link(WAITING, self._last_words or words or "the stream has ended", time.monotonic() + delay)
            self._sleep(delay)

    def _open(self) -> HTTPResponse:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        response = open_answer(self._target, self._path, headers, seconds=SILENCE_SECONDS)
        if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
            response.close()
            raise NoAnswer("what answers there is no stream of a sidecar", final=True)
        return response

    def _read(self, response: HTTPResponse) -> Iterator[Item]:
        reader = Reader()
        while piece := response.read1(READ_BYTES):
            yield Sign()
            for field in reader.feed(piece):
                if isinstance(field, Message):
                    self._failures = 0
                    self._last_words = _LAST_WORDS.get(field.event, self._last_words)
                    yield field
                elif field.name == "retry":
                    self._asked_retry = min(int(field.value) / 1000, RETRY_MAX_SECONDS)
                else:
                    self._last_id = field.value

    def _delay(self) -> float:
        self._failures += 1
        grown = FIRST_RETRY_SECONDS * float(2 ** min(self._failures - 1, 10))
        # All terminals that were cut at once must not come back at once.
        delay = min(grown, LAST_RETRY_SECONDS) * random.uniform(0.5, 1.0)
        asked, self._asked_retry = self._asked_retry, None
        return max(delay, asked or 0.0)


@dataclass(frozen=True)
class Field:
    """What a stream says beside its events: ``id`` or ``retry``."""

    name: str
    value: str


class Reader:
    """Takes a stream apart, piece by piece; raises ValueError where it is none.

    An event whose data is no JSON object is passed over, as is a field that is not known.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[Message | Field]:
        """Take a piece in; yield what is complete."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self._size += len(piece)
        if self._size > EVENT_MAX_BYTES:
            raise ValueError("an event without an end")
        for line in lines:
            found = self._line(line.removesuffix(b"\r"))
            if found is not None:
                yield found

    def _line(self, line: bytes) -> Message | Field | None:
        if not line:
            return self._message()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif (name == b"id" and _is_id(value)) or (name == b"retry" and value.isdigit() and len(value) < 10):
            return Field(name.decode(), value.decode())
        return None

    def _message(self) -> Message | None:
        event, data = self._event, b"\n".join(self._data)
        self._event, self._data, self._size = "", [], 0
        try:
            found = json.loads(data) if data else None
        except (ValueError, RecursionError):
            return None
        return Message(event, found) if isinstance(found, dict) else None


def _is_id(value: bytes) -> bool:
    # It goes into a header.
    return len(value) <= 100 and value.isascii() and value.decode("ascii").isprintable()
