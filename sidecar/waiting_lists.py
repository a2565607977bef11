"""Reads the lists of a Redis broker in the order in which their messages are taken.

Kombu pushes left and takes right, from the list with the lowest priority step that is not empty:

    queue          ──►  …  c  b  a   ─► first
    queue SEP 3    ──►  …  f  e  d   ─► when that one is empty

The lists move while they are read, so a place in one is a message and where it was: what is taken meanwhile
makes it move to the right. Nothing that stays is left out between two readings. What comes meanwhile into a
list that is behind the reader is not seen, and where too much has moved a message may be seen again.

A message may be of any size and Redis does not say of which, so lists are read in slices that grow as long as
messages are small, up to a budget.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from sidecar.problems import Unavailable

SLICE_BYTES = 256 * 1024
# Large messages can follow small ones, so a slice stays short.
SLICE_MESSAGES = 50
# How large a message is before one was seen.
GUESSED_BYTES = 32 * 1024
# How far a message is looked for that was elsewhere before.
MOVED_MESSAGES = 1000
MOVED_BYTES = 4 * 1024 * 1024


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
class Slice:
    """Messages that stand one behind the other in a list, and the index of the first one."""

    waiting: WaitingList
    first: int
    messages: list[bytes]

    def __iter__(self) -> Iterator[Seen]:
        for index, message in enumerate(self.messages, self.first):
            yield Seen(message, self.waiting, index)


@dataclass(frozen=True, slots=True)
class Seen:
    """A message, and where it was."""

    message: bytes
    waiting: WaitingList
    index: int

    @property
    def place(self) -> Place:
        """What is kept of it."""
        return Place(self.waiting.key, self.index, digest_of(self.message))

    @property
    def position(self) -> int:
        """How many are taken before it in its queue."""
        return self.waiting.before + self.index


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


class ListReader:
    """Raises Unavailable while the broker cannot be asked."""

    def __init__(self, client: Redis) -> None:
        self._client: Any = client  # redis-py types one signature for sync and async

    async def lengths(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """How many messages are in each of these lists."""
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.llen(key)
        answers = await _ask(pipeline.execute(raise_on_error=False))
        return {key: _length(answer) for key, answer in zip(keys, answers, strict=True)}

    async def slices(
        self, lists: Iterable[WaitingList], place: Place | None, budget: Budget
    ) -> AsyncIterator[Slice]:
        """Yield the messages behind a place, or from the beginning, while the budget lasts."""
        for waiting in lists:
            if place is not None and waiting.key != place.key:
                continue
            while waiting.length and budget.is_left:
                first, messages = await self._behind(waiting.key, place, budget.slice())
                if not messages:
                    break
                budget.take(messages)
                place = Seen(messages[-1], waiting, first + len(messages) - 1).place
                yield Slice(waiting, first, messages)
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
        budget, index = Budget(MOVED_MESSAGES, MOVED_BYTES), place.index
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
