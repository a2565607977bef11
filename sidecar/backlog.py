"""What a viewer that comes back has missed: held by the log in memory, or put back there from Redis's stream.

Put back, not sent to the one who asked: after a restart of the sidecar all viewers come back at once, and
have missed the same.
"""

from __future__ import annotations

import anyio

from celery_plugin.contract import JSON, Position
from sidecar.event_log import Frame, make_frame
from sidecar.feed import Feed, Link
from sidecar.state import Unreadable, read_event
from sidecar.store import NOTHING_YET, Store, StoreUnavailable, Trimmed

# About 12 MB; beyond it a snapshot is less to read.
REPLAY_MAX = 20_000
# How far another sidecar, which gave the id out, may be ahead of this one.
LAG_SECONDS = 2.0


class Backlog:
    """Brings the log back to where a viewer left it."""

    def __init__(self, store: Store, feed: Feed) -> None:
        self._store = store
        self._feed = feed
        # One viewer reads; those that waited for it mostly find in the log what they missed.
        self._reading = anyio.Lock()

    async def reach(self, came_with: Position) -> str | None:
        """Make the log hold everything behind a position; return the reason of a ``reset`` where it cannot.

        Raises StoreUnavailable. The answer holds until the caller next waits for something.
        """
        if obstacle(self._feed, came_with) is None:
            return None
        if self._feed.link is not Link.LIVE:
            raise StoreUnavailable("Redis is away")
        await self._wait_for(came_with)
        if obstacle(self._feed, came_with) != "behind":
            return obstacle(self._feed, came_with)
        async with self._reading:
            try:
                await self._put_back(rebased(self._feed, came_with))
            except Trimmed:
                return "trimmed"
        return obstacle(self._feed, came_with)

    async def _wait_for(self, position: Position) -> None:
        with anyio.move_on_after(LAG_SECONDS):
            while obstacle(self._feed, position) == "future":
                await self._feed.wait()

    async def _put_back(self, position: Position) -> None:
        log, frames, read = self._feed.log, list[Frame](), position
        # The log's own beginning may move on meanwhile, so what is read reaches over it.
        while log.position.epoch == read.epoch and log.first > read.offset + 1:
            if log.first - position.offset > REPLAY_MAX:
                return
            entries = await self._store.entries_after(read, log.position.offset)
            frames += [make_frame(read.epoch, entry, _read(entry.event)) for entry in entries]
            read = Position(read.epoch, entries[-1].offset)
        if log.position.epoch == read.epoch:
            log.put_back([frame for frame in frames if frame.offset < log.first])


def rebased(feed: Feed, position: Position) -> Position:
    """Where nothing had been written yet is the beginning of the epoch that came then."""
    return Position(feed.position.epoch, 0) if position == NOTHING_YET else position


def obstacle(feed: Feed, position: Position) -> str | None:
    """Why the log in memory cannot be followed from a position, as the reason of a ``reset``, or None."""
    position = rebased(feed, position)
    if position.epoch != feed.position.epoch:
        return "epoch"
    if position.offset > feed.position.offset:
        return "future"
    return None if feed.log.holds(position) else "behind"


def _read(event: bytes) -> JSON | None:
    try:
        return read_event(event)
    except Unreadable:
        return None
