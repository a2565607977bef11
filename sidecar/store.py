"""Everything that the sidecar reads of what the plugin wrote. No other module knows the keys."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from celery_plugin.contract import Keys, LogEntry, Position
from celery_plugin.redis_servers import read_moved

# One HSCAN step; 110,000 records in one go would stall Redis and the loop.
SCAN_COUNT = 500
FILL_COUNT = 1000
HISTORY_COUNT = 200

_UNSAID = "it is a Redis Cluster: its URL must begin with redis+cluster://"

# What stands for the log where no plugin has ever written.
NOTHING_YET = Position("0" * 16, 0)


class StoreUnavailable(Exception):
    """Raised when Redis cannot be asked; says why in words for a log."""


class Trimmed(Exception):
    """Raised when the stream no longer holds what is asked for."""


@dataclass(frozen=True)
class Leases:
    """Worker id → when its lease ends, the time of reading, and the end of the log just after it.

    All by Redis's clock. What is behind that position is newer than the reading.
    """

    ends: dict[str, float]
    now: float
    position: Position

    def run(self, worker_id: str) -> bool:
        """Tell whether the worker's lease still runs."""
        return self.ends.get(worker_id, -math.inf) > self.now


# A place in the history: the end of a task, and its id as Redis orders it.
HistoryPlace = tuple[float, bytes]


class Store:
    """Reads under one prefix; raises StoreUnavailable where Redis does not answer."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client: Any = client  # redis-py types one signature for sync and async
        self._keys = keys

    async def position(self) -> Position:
        """The end of the log."""
        return self._position(*await self._ask(self._client.hmget(self._keys.log, "epoch", "offset")))

    def _position(self, epoch: bytes | None, offset: bytes | None) -> Position:
        if not (epoch and offset):
            return NOTHING_YET
        try:
            return Position.parse(f"{epoch.decode()}-{offset.decode()}")
        except ValueError as error:
            raise StoreUnavailable(f"{self._keys.log} is not what a plugin writes") from error

    async def tasks(self) -> AsyncIterator[bytes]:
        """Yield the record of each task that a worker has, some twice.

        The waiting ones come first: a task that starts meanwhile is then met again as active.
        """
        for key in (self._keys.waiting_tasks, self._keys.active_tasks):
            cursor = 0
            while True:
                cursor, records = await self._ask(self._client.hscan(key, cursor, count=SCAN_COUNT))
                for record in records.values():
                    yield record
                if not cursor:
                    break

    async def workers(self) -> list[bytes]:
        """The record of each worker; read as a worker's own user may, too."""
        return list((await self._scan(self._keys.workers)).values())

    async def leases(self) -> Leases:
        """Read every lease and the clock that it goes by."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.time()
        pipeline.zrange(self._keys.leases, 0, -1, withscores=True)
        # Last: what was written before the leases were read is then before this.
        pipeline.hmget(self._keys.log, "epoch", "offset")
        (seconds, micros), ends, log = await self._ask(pipeline.execute())
        by_worker = {worker.decode("utf-8", "replace"): end for worker, end in ends}
        return Leases(by_worker, seconds + micros / 1e6, self._position(*log))

    async def counters(self) -> dict[bytes, bytes]:
        """Every counter by its field."""
        return await self._scan(self._keys.counters)

    async def _scan(self, key: str) -> dict[bytes, bytes]:
        """A whole hash, read in steps, so that Redis is not held up."""
        whole: dict[bytes, bytes] = {}
        cursor = 0
        while True:
            cursor, found = await self._ask(self._client.hscan(key, cursor, count=SCAN_COUNT))
            whole |= found
            if not cursor:
                return whole

    async def failures(self, minutes: range) -> int:
        """How many tasks failed in these minutes since the epoch; raises ValueError if that is no number."""
        fields = [f'["failed",{minute}]' for minute in minutes]
        return sum(
            int(each) for each in await self._ask(self._client.hmget(self._keys.counters, fields)) if each
        )

    async def depths(self, queues: Sequence[str]) -> dict[str, bytes]:
        """What workers measured of these queues, as far as they did."""
        names = [queue.encode("utf-8", "replace") for queue in queues]
        read = await self._ask(self._client.hmget(self._keys.depths, names)) if names else []
        return {queue: text for queue, text in zip(queues, read, strict=True) if text}

    async def all_depths(self) -> dict[str, bytes]:
        """What workers measured of all the queues that they know, or knew."""
        found = await self._scan(self._keys.depths)
        return {queue.decode("utf-8", "replace"): text for queue, text in found.items()}

    async def kept(self, task_id: str) -> tuple[bytes | None, bytes | None]:
        """The record of a task that has ended, and the timeline of any task, while they are kept."""
        key = task_id.encode("utf-8", "replace")
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hget(self._keys.finished_tasks, key)
        pipeline.hget(self._keys.timelines, key)
        record, timeline = await self._ask(pipeline.execute())
        return record, timeline

    async def ended_before(self, place: HistoryPlace | None) -> list[HistoryPlace]:
        """Up to HISTORY_COUNT finished tasks behind a place, the one that ended last first; empty at the end.

        By the time of an end, not by its number: tasks end and are forgotten while somebody turns pages.
        """
        latest = "+inf" if place is None else repr(place[0])
        skip = 0
        while True:
            found = await self._ask(
                self._client.zrange(
                    self._keys.finished,
                    latest,
                    "-inf",
                    desc=True,
                    byscore=True,
                    withscores=True,
                    offset=skip,
                    num=HISTORY_COUNT,
                )
            )
            behind = [(end, member) for member, end in found if place is None or (end, member) < place]
            if behind or len(found) < HISTORY_COUNT:
                return behind
            # So many ended at this very moment that they fill the answer.
            skip += HISTORY_COUNT

    async def finished(self, places: Sequence[HistoryPlace]) -> list[bytes | None]:
        """The records of finished tasks; None where one was forgotten meanwhile."""
        members = [member for _, member in places]
        return (
            list(await self._ask(self._client.hmget(self._keys.finished_tasks, members))) if members else []
        )

    async def ended(self, task_ids: Sequence[str]) -> dict[str, bytes]:
        """The records of those of these tasks that have ended and are still kept."""
        members = [task_id.encode("utf-8", "replace") for task_id in task_ids]
        records = await self._ask(self._client.hmget(self._keys.finished_tasks, members))
        return {task_id: record for task_id, record in zip(task_ids, records, strict=True) if record}

    async def entries_after(self, position: Position, until: int) -> list[LogEntry]:
        """From 1 to FILL_COUNT entries behind a position, without a hole; raises Trimmed.

        The epoch is asked for last: as it stands then, it stood while the entries were read.
        """
        start, end = f"{position.offset + 1}-0", f"{until}-0"
        pipeline = self._client.pipeline(transaction=False)
        pipeline.xrange(self._keys.events, start, end, count=FILL_COUNT)
        pipeline.hget(self._keys.log, "epoch")
        found, epoch = await self._ask(pipeline.execute())
        entries = _without_hole(position.offset, [_entry(key, fields) for key, fields in found])
        if not entries or epoch != position.epoch.encode():
            raise Trimmed(f"{position} is not in the stream any more")
        return entries

    async def ping(self) -> None:
        """Make a real round trip."""
        await self._ask(self._client.ping())

    async def _ask(self, question: Any) -> Any:
        try:
            return await question
        except (RedisError, OSError) as error:
            # Who is told to be a Cluster is asked where to, and never answers this.
            moved = read_moved(error) is not None
            raise StoreUnavailable(_UNSAID if moved else str(error) or type(error).__name__) from error


def _entry(key: bytes, fields: dict[bytes, bytes]) -> LogEntry:
    # An entry of somebody else's has other fields; it is no event, but it has its place.
    return LogEntry(int(key.partition(b"-")[0]), fields.get(b"event", b""), fields.get(b"extra", b"{}"))


def _without_hole(offset: int, entries: list[LogEntry]) -> list[LogEntry]:
    expected = enumerate(entries, offset + 1)
    return [entry for _, entry in takewhile(lambda numbered: numbered[0] == numbered[1].offset, expected)]
