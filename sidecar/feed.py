"""What the viewers look at: the state, the log behind it, and whether both are fresh.

The subscriber moves it on, the streams follow it. Everything here happens in one step of the event loop, so
that whoever reads state and position together reads one moment.
"""

from __future__ import annotations

import logging
import time
from enum import Enum

import anyio

from celery_plugin.contract import EventType, LogEntry, Position
from sidecar.event_log import EventLog
from sidecar.state import State, Unreadable, read_event, read_object
from sidecar.tally import REDIS_UP, UNREADABLE, counts

logger = logging.getLogger(__name__)


class Link(Enum):
    """Whether what is shown is what Redis says."""

    STARTING = "starting"  # never read so far: there is nothing to show
    LIVE = "live"
    STALE = "stale"


class Feed:
    """State, log and link; ``wait`` returns when any of them has moved on."""

    def __init__(self) -> None:
        self.state = State()
        self.log = EventLog()
        self.link = Link.STARTING
        self.since = time.time()
        self.reason = "Redis has not been read yet"
        self.unreadable = 0
        self._moved = anyio.Event()

    @property
    def position(self) -> Position:
        """The offset that the state is at."""
        return self.log.position

    def restart(self, position: Position, state: State) -> None:
        """Replace everything: another epoch, or a hole that cannot be filled."""
        self.state = state
        self.log.restart(position)
        self.wake()

    def append(self, entry: LogEntry) -> None:
        """Apply the next event; one that cannot be read still takes its place in the log."""
        try:
            event = read_event(entry.event)
        except Unreadable as error:
            self.pass_over(f"event {entry.offset}", error)
            self.log.append(entry, None)
            return
        lost = self.state.lost.get(event["task_id"]) if event["type"] == EventType.TASK_STATUS else None
        entry = self._joinable(entry)
        self.state.apply(entry, event)
        self.log.append(entry, event, lost.worker if lost is not None else None)

    def _joinable(self, entry: LogEntry) -> LogEntry:
        """An event and its extra without what would stand in between when they become one record."""
        event, extra = entry.event.strip(), entry.extra.strip()
        if extra != b"{}":
            try:
                read_object(extra)
            except Unreadable as error:
                self.pass_over(f"what is kept beside event {entry.offset}", error)
                extra = b"{}"
        return LogEntry(entry.offset, event, extra)

    def show(self, event_type: str, event: bytes, extra: bytes) -> None:
        """Tell those who watch what no event of the log says; whoever calls it wakes them."""
        self.log.append_view(event_type, event, extra)

    def pass_over(self, what: str, error: Exception) -> None:
        """Count what cannot be read; it is logged ever less often, as there may be a flood of it."""
        self.unreadable += 1
        counts().add(UNREADABLE)
        if self.unreadable.bit_count() == 1:
            logger.warning("%s cannot be read, passed over (%d so far): %s", what, self.unreadable, error)

    def mark(self, link: Link, reason: str = "") -> None:
        """Say whether Redis can be read; a moment counts once."""
        if link is self.link:
            return
        self.link, self.reason, self.since = link, reason, time.time()
        counts().put(REDIS_UP, link is Link.LIVE)
        self.wake()

    def wake(self) -> None:
        """Tell whoever waits that something has changed."""
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

    async def wait(self) -> None:
        """Wait for the next change."""
        await self._moved.wait()
