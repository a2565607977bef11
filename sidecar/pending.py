"""Looks into the lists of a Redis broker: what waits in a queue, in the order in which it is taken.

Kombu pushes left and takes right, from the list with the lowest priority step that is not empty:

    queue          ──►  …  c  b  a   ─► first
    queue SEP 3    ──►  …  f  e  d   ─► when that one is empty

The lists move while they are read, so a place in one is a message and where it was: what is taken meanwhile
makes it move to the right. Nothing that stays is left out between two pages. What comes meanwhile into a list
that is behind the reader is not shown, and where too much has moved a message may be shown again.

A message may be of any size and Redis does not say of which, so lists are read in slices that grow as long as
messages are small, up to a budget.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import anyio
import anyio.lowlevel
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from celery_plugin.capture import Capture
from celery_plugin.contract import JSON, encode
from sidecar.broker import BrokerWatcher
from sidecar.messages import read_message
from sidecar.pages import bad_cursor, read_cursor, write_cursor
from sidecar.problems import Unavailable, UnknownQueue

# A page ends where so much has been read; the rest is behind its cursor.
PAGE_BYTES = 4 * 1024 * 1024
# How far a task is looked for in each queue, and how long in all of them.
FIND_MESSAGES = 1000
FIND_BYTES = 4 * 1024 * 1024
FIND_SECONDS = 0.5
SLICE_BYTES = 256 * 1024
# Large messages can follow small ones, so a slice stays short.
SLICE_MESSAGES = 50
# How large a message is before one was seen.
GUESSED_BYTES = 32 * 1024
# How far a message is looked for that was elsewhere before.
MOVED_MAX = 1000
# So many look at a time: each may hold its budget and one slice in memory.
READERS = 2


@dataclass(frozen=True)
class Place:
    """A message that was seen: its list, how many were taken before it there, and what is left of itself."""

    key: bytes
    index: int
    digest: str


@dataclass(frozen=True)
class WaitingList:
    """A list, its priority step, and how many messages are taken before its first one."""

    key: bytes
    step: int
    before: int
    length: int


@dataclass(frozen=True)
class Seen:
    """A message, its place, and how many are taken before it in its queue."""

    message: bytes
    place: Place
    position: int
    step: int


@dataclass(frozen=True)
class Found:
    """A task that waits in the broker; ``entry`` is what is shown of it."""

    queue: str
    position: int
    entry: JSON


class Budget:
    """How much may still be read."""

    def __init__(self, messages: int, size: int) -> None:
        self.messages = messages
        self.size = size
        self._read = self._read_bytes = 0

    @property
    def is_left(self) -> bool:
        """Tell whether there is some of both."""
        return self.messages > 0 and self.size > 0

    def slice(self) -> int:
        """How many messages to read next, as far as can be told from those before."""
        average = self._read_bytes / self._read if self._read else GUESSED_BYTES
        return max(1, min(SLICE_MESSAGES, self.messages, int(SLICE_BYTES / max(average, 1))))

    def take(self, messages: Sequence[bytes]) -> None:
        """Count what has been read."""
        size = sum(map(len, messages))
        self._read, self._read_bytes = self._read + len(messages), self._read_bytes + size
        self.messages, self.size = self.messages - len(messages), self.size - size


class Pending:
    """Raises Unavailable while the broker cannot be asked."""

    def __init__(self, client: Redis, broker: BrokerWatcher, capture: Capture) -> None:
        self._client: Any = client  # redis-py types one signature for sync and async
        self._broker = broker
        self._capture = capture
        self._readers = anyio.CapacityLimiter(READERS)

    async def page(self, queue: str, limit: int, cursor: str | None) -> bytes:
        """A page of what waits in a queue, as JSON; raises UnknownQueue and BadParameter."""
        place = None if cursor is None else _read_place(cursor)
        async with self._readers:
            self._require(queue)
            lists = await self._lists(queue)
            if place is not None and place.key not in {each.key for each in lists}:
                raise bad_cursor()
            seen, ended = await self._first(lists, place, limit)
        entries = []
        for each in seen[:limit]:
            entries.append(self._entry(each))
            await anyio.lowlevel.checkpoint()
        following = write_place(seen[:limit][-1].place) if seen[limit:] or not ended else None
        return encode({"queue": queue, "tasks": entries, "next": following}).encode()

    async def find(self, task_id: str) -> Found | None:
        """Look for a task among the first messages of each queue; None where it is not among them."""
        async with self._readers:
            until = time.monotonic() + FIND_SECONDS
            for queue in self._known():
                if found := await self._find_in(queue, task_id, until):
                    return found
        return None

    async def _first(
        self, lists: Iterable[WaitingList], place: Place | None, limit: int
    ) -> tuple[list[Seen], bool]:
        """The messages behind a place, one more than the limit if there is one, and whether that is all."""
        budget, seen = Budget(limit + 1, PAGE_BYTES), []
        async for each in self._walk(lists, place, budget):
            seen.append(each)
        return seen, budget.is_left

    async def _find_in(self, queue: str, task_id: str, until: float) -> Found | None:
        budget, looks_like = Budget(FIND_MESSAGES, FIND_BYTES), _mentions(task_id)
        async for seen in self._walk(await self._lists(queue), None, budget):
            if any(text in seen.message for text in looks_like):
                entry = self._entry(seen)
                if entry["task_id"] == task_id:
                    return Found(queue, seen.position, entry)
            if time.monotonic() > until:
                break
        return None

    def _entry(self, seen: Seen) -> JSON:
        entry = read_message(seen.message, self._capture)
        if entry["priority"] is None:
            entry["priority"] = seen.step
        return {
            "task_id": entry["task_id"],
            "task_name": entry["task_name"],
            "position": seen.position,
        } | entry

    # -- which lists there are

    def _known(self) -> list[str]:
        if self._broker.depths is None:
            raise Unavailable
        return self._broker.queues()

    def _require(self, queue: str) -> None:
        if queue in self._known():
            return
        if not self._broker.knows_bindings:
            raise Unavailable
        raise UnknownQueue(f"no worker, binding or setting names the queue {queue[:100]}")

    async def _lists(self, queue: str) -> list[WaitingList]:
        """The lists of a queue in the order in which they are taken from."""
        groups = self._broker.lists_of(queue)
        lengths = await self._lengths([key for group in groups for _, key in group])
        lists = []
        for group in groups:
            before = 0
            for step, key in group:
                lists.append(WaitingList(key, step, before, lengths[key]))
                before += lengths[key]
        return lists

    async def _lengths(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.llen(key)
        answers = await _ask(pipeline.execute(raise_on_error=False))
        return {key: _length(answer) for key, answer in zip(keys, answers, strict=True)}

    # -- what is in them

    async def _walk(
        self, lists: Iterable[WaitingList], place: Place | None, budget: Budget
    ) -> AsyncIterator[Seen]:
        """Yield the messages behind a place, or from the beginning, while the budget lasts."""
        for waiting in lists:
            if place is not None and waiting.key != place.key:
                continue
            while waiting.length and budget.is_left:
                first, messages = await self._behind(waiting.key, place, budget.slice())
                if not messages:
                    break
                budget.take(messages)
                for index, message in enumerate(messages, first):
                    place = Place(waiting.key, index, digest_of(message))
                    yield Seen(message, place, waiting.before + index, waiting.step)
            place = None

    async def _behind(self, key: bytes, place: Place | None, count: int) -> tuple[int, list[bytes]]:
        """So many messages behind a place, and the index of the first one."""
        while place is not None:
            messages = await self._read(key, place.index, count + 1)
            if messages and digest_of(messages[0]) == place.digest:
                return place.index + 1, messages[1:]
            place = await self._moved(place)
        return 0, await self._read(key, 0, count)

    async def _moved(self, place: Place) -> Place | None:
        """Where a message is since others were taken; None: nowhere near, so it was taken too."""
        budget, index = Budget(MOVED_MAX, PAGE_BYTES), place.index
        while index > 0 and budget.is_left:
            count = min(budget.slice(), index)
            index -= count
            messages = await self._read(place.key, index, count)
            budget.take(messages)
            for at, message in enumerate(messages, index):
                if digest_of(message) == place.digest:
                    return replace(place, index=at)
        return None

    async def _read(self, key: bytes, index: int, count: int) -> list[bytes]:
        """So many messages from an index on, counted from the end that is taken from."""
        try:
            answer = await _ask(self._client.lrange(key, -(index + count), -(index + 1)))
        except _NotAList:
            return []
        return list(answer[::-1])


class _NotAList(Exception):
    """Raised when a key holds something else."""


async def _ask(question: Any) -> Any:
    try:
        return await question
    except (RedisError, OSError) as error:
        if str(error).startswith("WRONGTYPE"):
            raise _NotAList from error
        raise Unavailable from error


def _length(answer: Any) -> int:
    if isinstance(answer, NoPermissionError):
        raise Unavailable from answer
    # What is no list holds no messages.
    return 0 if isinstance(answer, ResponseError) else answer


def digest_of(message: bytes) -> str:
    """What is kept of a message, to know it again."""
    return blake2b(message, digest_size=9).hexdigest()


def _mentions(task_id: str) -> tuple[bytes, ...]:
    """How an id stands in a message: no message is parsed that does not have it."""
    return tuple(
        json.dumps(task_id, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "replace")
        for ascii_only in (True, False)
    )


def write_place(place: Place) -> str:
    """Encode a place as a cursor."""
    return write_cursor((place.key.decode("latin-1"), place.index, place.digest))


def _read_place(cursor: str) -> Place:
    try:
        key, index, digest = read_cursor(cursor)
        place = Place(str(key).encode("latin-1"), index, str(digest))
    except (ValueError, TypeError) as error:
        raise bad_cursor() from error
    if type(index) is not int or not 0 <= index < 2**53:
        raise bad_cursor()
    return place
