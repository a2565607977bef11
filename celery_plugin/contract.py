"""What the plugin writes and the sidecar reads: keys, channels, positions, statuses, batches.

Standard library only: this module is imported by a Celery worker and by the sidecar, and
neither may pull the other's dependencies in.

An event travels as two JSON objects. The *event* is lean and goes to every viewer as it is;
the *extra* holds what is shown only on request (args, kwargs, result, traceback). A record in
a hash is the two merged into one object.

    P:events (stream)    <offset>-0   event={"type":…,"offset":…}   extra={"args":…}
    P:events (channel)   <epoch>-<first offset> LF event LF extra LF event LF extra …
    P:active_tasks       task id  →   {"type":…,"offset":…,"args":…}
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

JSON = dict[str, Any]

# Of keys, records and messages; another number where who knows this one would read them wrongly.
PROTOCOL: Final = 1

# A record or an event is at most this many bytes of UTF-8: a burst of 10,000 tasks stays 10 MB.
RECORD_MAX_BYTES: Final = 1024

# What may hold a password or personal data, and so is shown only where it is asked for.
EXTRA_FIELDS: Final = ("args", "kwargs", "result", "traceback")

# Fields that every message of the type has; more may come, none is renamed.
QUEUE_STATUS_FIELDS: Final = (
    "type",
    "total_tasks",
    "active_tasks",
    "pending_tasks",
    "workers_online",
)
TASK_STATUS_FIELDS: Final = ("type", "task_id", "task_name", "status", "position", "message")


class EventType:
    """Values of ``type``, which are also the SSE ``event:`` names."""

    TASK_STATUS: Final = "task_status"
    WORKER_STATUS: Final = "worker_status"
    QUEUE_STATUS: Final = "queue_status"
    SNAPSHOT: Final = "snapshot"
    LIVE: Final = "live"
    RESET: Final = "reset"
    STALE: Final = "stale"
    FRESH: Final = "fresh"
    END: Final = "end"
    OVERLOADED: Final = "overloaded"
    DRAIN: Final = "drain"
    UNAUTHORIZED: Final = "unauthorized"


# A run only moves forward in rank. `pending` ends a run that went back to the broker; the task
# itself goes on there. `unknown` has no rank: it is only ever an answer about one task.
RANK_WAITING: Final = 1
RANK_ACTIVE: Final = 2
RANK_ENDED: Final = 3
RANKS: Final = {
    "reserved": RANK_WAITING,
    "scheduled": RANK_WAITING,
    "active": RANK_ACTIVE,
    "pending": RANK_ENDED,
    "retrying": RANK_ENDED,
    "completed": RANK_ENDED,
    "failed": RANK_ENDED,
    "revoked": RANK_ENDED,
    "rejected": RANK_ENDED,
    "lost": RANK_ENDED,
}
# After these nothing more happens to a task: one that is retrying, lost or given back may go on.
END_STATUSES: Final = ("completed", "failed", "revoked", "rejected")
WAITING_STATUSES: Final = ("reserved", "scheduled")
WORKER_STATUSES: Final = ("online", "stopping", "offline")


class Position(NamedTuple):
    """A place in the event log: offsets count from 1 within an epoch, 0 is before the first."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read ``<epoch>-<offset>``; raise ValueError when it is anything else."""
        match = _POSITION.fullmatch(text)
        if match is None:
            raise ValueError(f"a position is <epoch>-<offset>, e.g. 9f86d081884c7d65-42, not {text[:80]!r}")
        return cls(match[1], int(match[2]))


# 18 digits keep an offset inside a 64-bit integer, which is what Redis can hold.
_POSITION = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,17})", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9_.:{}\-]{1,64}", re.ASCII)


def check_prefix(prefix: str) -> str:
    """Return the prefix, or raise ValueError with what is allowed."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("a prefix is 1 to 64 of the characters A-Z a-z 0-9 _ . : - { }")
    return prefix


# What a Redis Cluster makes the slot of a key from, unless it is empty.
_HASH_TAG = re.compile(r"[^{]*\{[^}]+\}")
IN_BRACES: Final = (
    "in a Redis Cluster a prefix has a part in braces, which puts all of its keys on one node, e.g. {queue}"
)


def is_in_one_slot(prefix: str) -> bool:
    """Tell whether a Redis Cluster keeps all keys of a prefix on one node, where a script can write them."""
    return _HASH_TAG.match(prefix) is not None


@dataclass(frozen=True)
class Keys:
    """The names of every key and channel under a prefix.

    Pub/sub ignores the number of the database, so two applications on /0 and /1 would hear
    each other: a channel's name carries the number unless it is 0.
    """

    prefix: str = "queue"
    db: int = 0

    def __post_init__(self) -> None:
        check_prefix(self.prefix)

    @property
    def active_tasks(self) -> str:
        """Hash: task id → record of a task that runs now."""
        return f"{self.prefix}:active_tasks"

    @property
    def waiting_tasks(self) -> str:
        """Hash: task id → record of a task that a worker holds but does not run."""
        return f"{self.prefix}:waiting_tasks"

    @property
    def runs(self) -> str:
        """Hash: task id → its open runs, one a line."""
        return f"{self.prefix}:runs"

    @property
    def progress(self) -> str:
        """Hash: task id → the latest progress of a task that runs now."""
        return f"{self.prefix}:progress"

    @property
    def finished(self) -> str:
        """Sorted set: task id by the time of its end."""
        return f"{self.prefix}:finished"

    @property
    def finished_tasks(self) -> str:
        """Hash: task id → record of a task whose last run has ended."""
        return f"{self.prefix}:finished_tasks"

    @property
    def workers(self) -> str:
        """Hash: worker id → record of the worker."""
        return f"{self.prefix}:workers"

    @property
    def leases(self) -> str:
        """Sorted set: worker id by the end of its lease, in Redis's own time."""
        return f"{self.prefix}:leases"

    @property
    def counters(self) -> str:
        """Hash: counter with its labels → total; see `COUNTERS`."""
        return f"{self.prefix}:counters"

    @property
    def timelines(self) -> str:
        """Hash: task id → ``[{"status":…,"at":…,"worker":…},…]``, kept as long as the task is."""
        return f"{self.prefix}:timelines"

    @property
    def depths(self) -> str:
        """Hash: queue of a broker that is not Redis → ``{"pending":…,"measured_at":…}``, by the workers."""
        return f"{self.prefix}:depths"

    @property
    def log(self) -> str:
        """Hash: ``epoch``, ``offset`` of the last event, ``run_id`` of the server that wrote it."""
        return f"{self.prefix}:log"

    @property
    def events(self) -> str:
        """Stream: the log of events, entry ``<offset>-0``."""
        return f"{self.prefix}:events"

    @property
    def events_channel(self) -> str:
        """Channel: the same events, one message a batch."""
        return self._channel("events")

    @property
    def control_channel(self) -> str:
        """Channel: requests from the sidecar to the workers."""
        return self._channel("control")

    def _channel(self, name: str) -> str:
        database = f"{self.db}." if self.db else ""
        return f"{database}{self.prefix}:{name}"


def encode(value: JSON) -> str:
    """Encode as compact JSON on one line; what UTF-8 cannot hold becomes ``?``."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event of the log, its two JSON objects still as the bytes that the plugin wrote."""

    offset: int
    event: bytes
    extra: bytes


class MalformedBatch(ValueError):
    """Raised when a message on the events channel is not what this contract says."""


def decode_batch(message: bytes) -> tuple[Position, list[LogEntry]]:
    """Split a message of the events channel into its first position and its entries."""
    head, *lines = message.split(b"\n")
    if not lines or len(lines) % 2:
        raise MalformedBatch(f"a batch has two lines an event, this one has {len(lines)}")
    try:
        first = Position.parse(head.decode("ascii"))
    except ValueError as error:
        raise MalformedBatch(str(error)) from error
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return first, [LogEntry(first.offset + n, event, extra) for n, (event, extra) in enumerate(pairs)]


def encode_batch(first: Position, entries: list[tuple[bytes, bytes]]) -> bytes:
    """The message that the script publishes; for tests and other writers."""
    lines = [str(first).encode()]
    for event, extra in entries:
        lines += (event, extra)
    return b"\n".join(lines)


def split_record(record: JSON) -> tuple[JSON, JSON]:
    """Split the record of a hash into its event and its extra."""
    event = {name: value for name, value in record.items() if name not in EXTRA_FIELDS}
    extra: JSON = {name: record[name] for name in EXTRA_FIELDS if name in record}
    return event, extra
