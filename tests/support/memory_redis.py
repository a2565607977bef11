"""What a sidecar reads of Redis, in memory: thousands of histories in the time in which Redis serves dozens.

It writes as `record.lua` does, as far as the sidecar can tell: offsets, epochs, records, the log, one message
a batch. That the sidecar reads the real one right is shown elsewhere, with a real one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import anyio.lowlevel

from celery_plugin.contract import JSON, LogEntry, Position, encode, encode_batch
from sidecar.store import NOTHING_YET, HistoryPlace, Leases, Store, StoreUnavailable, Trimmed
from tests.support.asked import HELD
from tests.support.shown import Shown
from tests.support.truth import Truth

EXTRA = b'{"args":"(1,)"}'
STEP = 2
# By Redis's clock: it stands, and leases have ended before or end later.
NOW = 100.0


@dataclass
class Data:
    """What a snapshot of Redis's own would hold."""

    epoch: str = ""
    offset: int = 0
    # Offset → event, extra.
    entries: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    tasks: dict[str, JSON] = field(default_factory=dict)
    finished: dict[str, JSON] = field(default_factory=dict)
    workers: dict[str, JSON] = field(default_factory=dict)


class MemoryRedis:
    """The data, and all that its log has ever said."""

    def __init__(self) -> None:
        self.data = Data()
        self.truth = Truth()
        self.alive: set[str] = set()
        self.available = True
        self._saved = Data()
        self._epochs = 0
        # Another server process than the one that wrote the epoch.
        self._is_new = True

    @property
    def position(self) -> Position:
        """The end of the log."""
        return Position(self.data.epoch, self.data.offset) if self.data.epoch else NOTHING_YET

    def write(self, steps: Sequence[tuple[str, str, str]]) -> bytes:
        """Apply (task, status, worker) of a batch; return the message that tells of it."""
        self._begin_epoch_if_new()
        first, written = self.data.offset + 1, []
        for task_id, status, worker_id in steps:
            written.append(self._step(task_id, status, worker_id))
        return encode_batch(Position(self.data.epoch, first), written)

    def write_worker(self, worker_id: str, status: str) -> bytes:
        """Write the record of a worker."""
        self._begin_epoch_if_new()
        facts = {"worker_id": worker_id, "worker": f"celery@{worker_id}", "status": status}
        record = {"type": "worker_status", "offset": self.data.offset + 1, **facts}
        self.data.workers[worker_id] = record
        return self._alone(encode(record).encode())

    def write_nonsense(self) -> bytes:
        """Write an entry that is no event."""
        self._begin_epoch_if_new()
        return self._alone(b"nonsense")

    def trim(self, left: int) -> None:
        """Let the log have so many entries."""
        for offset in sorted(self.data.entries)[: max(0, len(self.data.entries) - left)]:
            del self.data.entries[offset]

    def save(self) -> None:
        """Keep what there is for `restore`."""
        self._saved = copy.deepcopy(self.data)

    def restore(self) -> None:
        """Be started with what was saved."""
        self.data, self._is_new = copy.deepcopy(self._saved), True

    def restart(self) -> None:
        """Be started with all that there was."""
        self._is_new = True

    def empty(self) -> None:
        """Lose everything."""
        self.data = Data()

    @property
    def shown(self) -> Shown:
        """What a page should show."""
        data = copy.deepcopy(self.data)
        shown = Shown(data.tasks, data.finished, data.workers)
        shown.judge(self.alive)
        return shown

    def _begin_epoch_if_new(self) -> None:
        if self._is_new or not self.data.epoch:
            self._epochs += 1
            self.data.epoch = f"{self._epochs:016x}"
            self.data.entries = {}
            self._is_new = False

    def _alone(self, event: bytes) -> bytes:
        written = self._append(event, b"{}")
        return encode_batch(Position(self.data.epoch, self.data.offset), [written])

    def _append(self, event: bytes, extra: bytes) -> tuple[bytes, bytes]:
        self.data.offset += 1
        self.data.entries[self.data.offset] = (event, extra)
        self.truth.add(self.position, event)
        return event, extra

    def _step(self, task_id: str, status: str, worker_id: str) -> tuple[bytes, bytes]:
        data = self.data
        before = data.tasks.pop(task_id, None) or data.finished.pop(task_id, None)
        previous = before and {name: before[name] for name in ("status", "worker")}
        event = {
            "type": "task_status",
            "status": status,
            "worker": f"celery@{worker_id}",
            "offset": data.offset + 1,
            "previous": previous,
            "message": "…",
            "task_id": task_id,
            "task_name": f"app.{task_id}",
            "queue": "fast" if task_id < "c" else "slow",
            "run": f"{worker_id}/1",
        }
        record = {**event, **json.loads(EXTRA)}
        if status in HELD:
            data.tasks[task_id] = record
        elif status != "pending":
            data.finished[task_id] = record
        return self._append(encode(event).encode(), EXTRA)


class MemoryStore(Store):
    """Reads it as `Store` reads Redis: other things happen before and after each look."""

    def __init__(self, redis: MemoryRedis) -> None:
        self._redis = redis

    async def position(self) -> Position:
        """The end of the log."""
        async with self._look() as redis:
            return redis.position

    async def tasks(self) -> AsyncIterator[bytes]:
        """Those that wait, then those that run, as HSCAN gives them: in steps, what is there all the time."""
        for statuses in (HELD[:2], HELD[2:]):
            names = self._having(statuses)
            for start in range(0, len(names) or 1, STEP):
                async with self._look():
                    pass
                still = self._having(statuses)
                for name in (name for name in names[start : start + STEP] if name in still):
                    yield encode(self._redis.data.tasks[name]).encode()

    def _having(self, statuses: Sequence[str]) -> list[str]:
        return [name for name, task in self._redis.data.tasks.items() if task["status"] in statuses]

    async def workers(self) -> list[bytes]:
        """Their records."""
        async with self._look() as redis:
            return [encode({**record, "batch": 1}).encode() for record in redis.data.workers.values()]

    async def leases(self) -> Leases:
        """Which of them have ended."""
        async with self._look() as redis:
            return Leases(dict.fromkeys(redis.alive, NOW + 1), NOW, redis.position)

    async def ended(self, task_ids: Sequence[str]) -> dict[str, bytes]:
        """Those of these tasks that have ended."""
        async with self._look() as redis:
            finished = redis.data.finished
            return {name: encode(finished[name]).encode() for name in task_ids if name in finished}

    async def entries_after(self, position: Position, until: int) -> list[LogEntry]:
        """Up to STEP entries without a hole."""
        async with self._look() as redis:
            last = min(until, position.offset + STEP)
            wanted = range(position.offset + 1, last + 1)
            found = [
                LogEntry(each, *redis.data.entries[each]) for each in wanted if each in redis.data.entries
            ]
            if not found or found[0].offset != wanted[0] or redis.position.epoch != position.epoch:
                raise Trimmed
            return found

    async def ended_before(self, place: HistoryPlace | None) -> list[HistoryPlace]:
        """No stream asks for it."""
        raise NotImplementedError

    def _look(self) -> _Look:
        return _Look(self._redis)


class _Look:
    """The moment in which Redis answers, with the way there and back."""

    def __init__(self, redis: MemoryRedis) -> None:
        self._redis = redis

    async def __aenter__(self) -> MemoryRedis:
        await anyio.lowlevel.checkpoint()
        if not self._redis.available:
            raise StoreUnavailable("away")
        return self._redis

    async def __aexit__(self, *_: object) -> None:
        await anyio.lowlevel.checkpoint()
