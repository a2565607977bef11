"""What a client makes of its stream: the state, and a journal of every id with what came between."""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import intern
from typing import Any, NamedTuple

from celery_plugin.contract import JSON, Position
from tests.support.asked import HELD, Asked
from tests.support.sse import Event, Parser

# Of what stands in a journal; the others are the types of events.
FRESH_START, RESUMED, BOOKMARK, VIEW = "fresh start", "resumed", "bookmark", "view"
# The id of who has a part of a snapshot: it leads to a reset.
NOWHERE = Position("f" * 16, 0)


class Line(NamedTuple):
    """Of a journal: what happened, at which id, and what an event said."""

    kind: str
    position: Position | None = None
    text: str = ""


class IdParser(Parser):
    """Tells of an id that comes alone, too: a browser keeps it and dispatches nothing."""

    def _dispatch(self) -> Event | None:
        names = {line.partition(":")[0] for line in self._lines}
        event = super()._dispatch()
        if event is None and "id" in names:
            return Event(BOOKMARK, self.last_event_id, "", own_id=True)
        return event


@dataclass
class Told:
    """A page, as the README shows how to write one: it holds what workers have."""

    asked: Asked
    tasks: dict[str, JSON] = field(default_factory=dict)
    workers: dict[str, JSON] = field(default_factory=dict)
    figures: JSON = field(default_factory=dict)
    stale: bool = False
    # The stream of one task has said that it is over.
    ended: bool = False
    last: Position | None = None
    journal: list[Line] = field(default_factory=list)

    def connect(self, *, fresh: bool = False) -> str:
        """Begin a connection, which is fresh until it says otherwise; return the id, empty for none."""
        self.stale = False
        if fresh:
            # As a page that is loaded anew; one that the browser connects again forgets nothing.
            self.last = None
            self._forget()
        self.journal.append(Line(FRESH_START if fresh else RESUMED, self.last))
        return str(self.last or "")

    def take(self, event: Event) -> None:
        """Take in what has come."""
        data: Any = event.data if event.text else {}
        if event.own_id:
            self.last = Position.parse(event.id)
        self._note(event)
        match event.event:
            case "snapshot":
                self._take_snapshot(data)
            case "task_status":
                self._take_task(event, data)
            case "worker_status":
                self.workers[data["worker_id"]] = data
            case "queue_status":
                self.figures = data
            case "reset":
                self._forget()
            case "stale" | "fresh":
                self.stale = event.event == "stale"
            case "end":
                self.ended = True

    def _note(self, event: Event) -> None:
        if event.own_id:
            self.journal.append(Line(event.event, self.last, intern(event.text)))
        elif event.event in ("task_status", "worker_status"):
            self.journal.append(Line(VIEW))
        elif event.event != "queue_status":
            self.journal.append(Line(event.event, None, event.text if event.event == "reset" else ""))

    def _forget(self) -> None:
        self.tasks, self.workers, self.figures = {}, {}, {}

    def _take_snapshot(self, data: JSON) -> None:
        if self.asked.task_id:
            self._forget()
        self.tasks |= {task["task_id"]: task for task in data.get("tasks", ())}
        self.workers |= {worker["worker_id"]: worker for worker in data.get("workers", ())}
        self.figures = data.get("queue_status", self.figures)

    def _take_task(self, event: Event, task: JSON) -> None:
        # What the log calls lost is over; what a sidecar calls so by the leases may come back.
        is_held = task["status"] in HELD or (task["status"] == "lost" and not event.own_id)
        if self.asked.task_id or (is_held and self.asked.admits(task)):
            self.tasks[task["task_id"]] = task
        else:
            self.tasks.pop(task["task_id"], None)
