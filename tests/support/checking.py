"""Readers of streams that keep what they were told, and complain of what a reader must never see.

event of the log ─► Reader: state, ids ─► verify: against the log that Redis kept, and against its state
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

from celery_plugin.contract import JSON, Position, split_record
from sidecar.control import STARTING_OVER
from tests.support.batches import Stored
from tests.support.sse import Event, Parser

# Epoch → offset → the event as it stood in the log.
Logs = dict[str, dict[int, JSON]]
OPEN = ("active", "reserved", "scheduled")
TOLD = ("task_status", "worker_status")
COME_BACK_SECONDS = 0.1


@dataclass
class Stretch:
    """What a reader saw of an epoch: all that passes behind one offset, up to another one."""

    epoch: str
    after: int
    upto: int
    seen: list[int] = field(default_factory=list)


@dataclass
class Looks:
    """What a reader asks for, and which events of the log it is to see then."""

    name: str
    params: Mapping[str, str] = field(default_factory=dict)
    types: tuple[str, ...] = TOLD
    matches: Callable[[JSON], bool] | None = None  # A record of a task; None for every task.
    task_id: str | None = None  # The stream of this one task.

    @property
    def whole(self) -> bool:
        """Whether it is to see every offset."""
        return self.types == TOLD and self.matches is None and self.task_id is None

    def passes(self, event: JSON) -> bool:
        """Tell whether an event is to come: it matches now, or did before."""
        if event["type"] not in self.types:
            return False
        if event["type"] == "worker_status":
            return self.matches is None and self.task_id is None
        return self.shows(event) or (event["previous"] is not None and self.shows(event | event["previous"]))

    def shows(self, record: JSON) -> bool:
        """Tell whether a task is in sight."""
        if self.task_id is not None:
            return bool(record["task_id"] == self.task_id)
        return self.matches is None or self.matches(record)


class Reader:
    """Reduces a stream to a state. What it complains of is in ``faults``."""

    def __init__(self, looks: Looks) -> None:
        self.looks = looks
        self.tasks: dict[str, JSON] = {}
        self.workers: dict[str, str] = {}
        self.figures: JSON = {}
        self.stretches: list[Stretch] = []
        self.faults: list[str] = []
        self.resets: list[str] = []
        self.connections = 0
        self.last_event_id = ""
        self.has_ended = False
        self._here: Stretch | None = None
        self._building: list[JSON] | None = None
        self._may_begin = True

    def opened(self) -> None:
        """A connection is there; it goes on behind the last id, or begins anew and says so."""
        self.connections += 1
        self._building = None
        self._may_begin = not self.last_event_id

    def take(self, event: Event) -> None:
        """Take what was dispatched."""
        if not event.own_id:
            # An id that came before it, alone; of what comes in one piece, each has its turn.
            self.mark(event.id)
        if event.event == "reset":
            self.resets.append(event.data["reason"])
            self._here, self._building, self._may_begin = None, None, True
        elif event.event == "snapshot":
            self._begin(event.data)
        elif event.event == "live":
            self._live(Position.parse(event.id))
        elif event.event in TOLD:
            self._told(event)
        elif event.event == "queue_status":
            self.figures = event.data
        elif event.event == "end":
            self.has_ended = True
        if event.own_id:
            self.last_event_id = event.id

    def mark(self, last_event_id: str) -> None:
        """Note where the stream says that it is: of a filtered one, behind what has not passed."""
        if not last_event_id or last_event_id == self.last_event_id:
            return
        self.last_event_id = last_event_id
        position = Position.parse(last_event_id)
        if position == STARTING_OVER:
            self._here, self._building = None, None
        elif self._here is None:
            self._complain(f"{last_event_id} outside of what is told")
        elif (position.epoch, position.offset) < (self._here.epoch, self._here.upto):
            self._complain(f"{last_event_id} goes back")
        elif position.offset > self._here.upto and self.looks.whole:
            self._complain(f"{last_event_id} without its event")
        elif position.offset > self._here.upto:
            self._here.upto = position.offset

    def _begin(self, data: JSON) -> None:
        if not self._may_begin:
            self._complain("a snapshot that no reset announced")
        if self._building is None:
            self._building = []
            self.workers = {}
        self._building += data["tasks"]
        self.workers |= {worker["worker_id"]: worker["status"] for worker in data.get("workers", [])}

    def _live(self, position: Position) -> None:
        if self._building is None:
            self._complain("live without a snapshot")
        self.tasks = {task["task_id"]: task for task in self._building or () if task["status"] in OPEN}
        self._building, self._may_begin = None, False
        self._here = Stretch(position.epoch, position.offset, position.offset)
        self.stretches.append(self._here)

    def _told(self, event: Event) -> None:
        position, here = Position.parse(event.id), self._here
        if self._building is not None or here is None:
            self._complain(f"{event.id} before live")
        elif position.epoch != here.epoch:
            self._complain(f"{event.id} of another epoch, unannounced")
        elif position.offset <= here.upto:
            self._complain(f"{event.id} again, after {here.upto}")
        elif self.looks.whole and position.offset != here.upto + 1:
            self._complain(f"{event.id} after {here.upto}")
        else:
            here.upto = position.offset
            here.seen.append(position.offset)
        self._apply(event.data)

    def _apply(self, data: JSON) -> None:
        if data["type"] == "worker_status":
            self.workers[data["worker_id"]] = data["status"]
        elif data["status"] in OPEN and self.looks.shows(data):
            self.tasks[data["task_id"]] = data
        else:
            self.tasks.pop(data["task_id"], None)

    def _complain(self, what: str) -> None:
        self.faults.append(f"{self.looks.name}: {what} (connection {self.connections})")

    # -- afterwards --------------------------------------------------------------------------------

    def missed(self, logs: Logs) -> Iterator[str]:
        """What stood in the log and did not come, or the other way round."""
        for stretch in self.stretches:
            log = logs.get(stretch.epoch, {})
            offsets = range(stretch.after + 1, stretch.upto + 1)
            expected = [offset for offset in offsets if offset not in log or self.looks.passes(log[offset])]
            if expected != stretch.seen:
                odd = sorted(set(expected) ^ set(stretch.seen))
                yield f"{self.looks.name}: {len(odd)} of {stretch.epoch} {stretch.after}: {odd[:10]}"

    def is_up_to_date(self, logs: Logs, end: Position) -> bool:
        """Tell whether it has all that it is to see until there, and the state that belongs to it."""
        here = self._here
        if here is None or here.epoch != end.epoch:
            return False
        behind = range(here.upto + 1, end.offset + 1)
        return not any(self.looks.passes(logs[end.epoch][offset]) for offset in behind)


def read_log(stored: Stored, logs: Logs) -> Position:
    """Keep what stands in the log now; return where it ends."""
    end = Position(stored.log["epoch"], stored.offset)
    logs.setdefault(end.epoch, {}).update({event["offset"]: event for event in stored.events})
    return end


def open_tasks(stored: Stored) -> dict[str, JSON]:
    """The tasks that workers have, as a stream tells them."""
    records = stored.active | stored.waiting
    return {task_id: split_record(record)[0] for task_id, record in records.items()}


# -- clients ---------------------------------------------------------------------------------------


@dataclass
class Client:
    """Reads a stream, and comes back when it ends, or when it has had enough of it."""

    reader: Reader
    leaves: bool = False  # After some events, without a word.
    by_query: bool = False  # The last id goes with the URL.
    bytes_per_second: float | None = None

    async def run(self, url: str, seed: int) -> None:
        """Read until cancelled, or until the stream of one task has ended."""
        chance = random.Random(seed)
        timeout = httpx.Timeout(None, connect=10)
        async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
            while not self.reader.has_ended:
                with suppress(httpx.TransportError):
                    await self._read(client, url, chance)
                await anyio.sleep(COME_BACK_SECONDS)

    async def _read(self, client: httpx.AsyncClient, url: str, chance: random.Random) -> None:
        looks, last = self.reader.looks, self.reader.last_event_id
        path = "/events" if looks.task_id is None else f"/tasks/{looks.task_id}/events"
        params: dict[str, Any] = dict(looks.params)
        headers = {}
        if last and self.by_query:
            params["last_event_id"] = last
        elif last:
            headers["Last-Event-ID"] = last
        left = chance.randrange(1, 400) if self.leaves else None
        async with client.stream("GET", url + path, params=params, headers=headers) as response:
            if response.status_code == 204:
                self.reader.has_ended = True
            if response.status_code != 200:
                return
            self.reader.opened()
            parser = Parser(last)
            async for chunk in response.aiter_bytes():
                for event in parser.feed(chunk):
                    self.reader.take(event)
                    left = None if left is None else left - 1
                self.reader.mark(parser.last_event_id)
                if left is not None and left <= 0:
                    return
                if self.bytes_per_second:
                    await anyio.sleep(len(chunk) / self.bytes_per_second)
