"""What a stream says of itself: none of it stands in the log, and no filter keeps it back."""

from __future__ import annotations

import time
from typing import Final

from celery_plugin.contract import EventType, Position, encode
from sidecar.denials import TokenExpired
from sidecar.event_log import bare_id, sse
from sidecar.feed import Feed, Link
from sidecar.subjects import Facts

# How long an EventSource waits before it comes back.
RETRY: Final = b"retry: 2000\n\n"
HEARTBEAT: Final = b": still here\n\n"
# The id of a client that has a part of a snapshot, or a `reset` and no snapshot yet: it is of no epoch.
STARTING_OVER: Final = Position("f" * 16, 0)


def live(position: Position) -> bytes:
    """The snapshot is complete; what is behind this position follows.

    Clocks of a page need the time here, and a stream of one task has no figures that bring it.
    """
    told = {"type": EventType.LIVE, "position": str(position), "server_time": round(time.time(), 6)}
    return sse(EventType.LIVE, encode(told), position)


def reset(reason: str) -> bytes:
    """The log cannot go on from where the client was."""
    return sse(EventType.RESET, encode({"type": EventType.RESET, "reason": reason}))


def starting_over(reason: str | None) -> bytes:
    """What comes before a snapshot; with a reason where the client has something to forget.

    Cut off within it, a client that kept its old id would be sent what follows that, and lack the rest.
    """
    return bare_id(STARTING_OVER) + (reset(reason) if reason else b"")


def link(feed: Feed) -> bytes:
    """Redis cannot be read since then, or can be again."""
    kind = EventType.FRESH if feed.link is Link.LIVE else EventType.STALE
    return sse(kind, encode({"type": kind, "since": round(feed.since, 6)}))


def unauthorized() -> bytes:
    """The token of this stream has expired, and so the stream ends."""
    told = {"type": EventType.UNAUTHORIZED, "code": TokenExpired.code}
    return sse(EventType.UNAUTHORIZED, encode(told))


def end(task: Facts) -> bytes:
    """The task has ended, and so does its stream."""
    told = {"type": EventType.END, "task_id": task.task_id, "status": task.status}
    return sse(EventType.END, encode(told))
