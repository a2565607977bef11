"""What a client asks for, and what it may then see: by the README, not by the sidecar's code."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote

from celery_plugin.contract import EXTRA_FIELDS, JSON

EVENTS = "/api/v1/queue/events"
HELD = ("reserved", "scheduled", "active")
ENDS = ("completed", "failed", "revoked", "rejected")
# Parameter → field of a task.
FIELDS = {"task_id": "task_id", "queue": "queue", "status": "status", "worker": "worker"}


@dataclass(frozen=True)
class Asked:
    """A path and its parameters, each perhaps given several times."""

    parameters: tuple[tuple[str, str], ...] = ()
    # Of the stream of one task.
    task_id: str = ""

    @property
    def path(self) -> str:
        """Where the stream is."""
        return f"/api/v1/queue/tasks/{quote(self.task_id)}/events" if self.task_id else EVENTS

    def values(self, name: str) -> frozenset[str]:
        """What was given under a name; what may have commas, in its parts."""
        given = (value for each, value in self.parameters if each == name)
        if name in ("types", "include"):
            return frozenset(part for value in given for part in value.split(","))
        return frozenset(given)

    @property
    def name(self) -> str:
        """For a report."""
        parameters = "&".join(f"{name}={value}" for name, value in self.parameters)
        return f"one task {self.task_id}" if self.task_id else parameters or "everything"

    @property
    def selects(self) -> bool:
        """Whether there is a task that it does not want."""
        return bool(self.task_id or any(self.values(name) for name in (*FIELDS, "task_name")))

    def sees(self, kind: str) -> bool:
        """Tell whether events of a type can come."""
        if types := self.values("types"):
            return kind in types
        if kind == "task_status" or not self.selects:
            return True
        by_worker_alone = not any(self.values(name) for name in ("task_id", "task_name", "queue", "status"))
        return kind == "worker_status" and not self.task_id and by_worker_alone

    def admits(self, task: JSON) -> bool:
        """Tell whether a task, as it is told of here, is one of those that are wanted."""
        if self.task_id:
            return bool(task["task_id"] == self.task_id)
        names = self.values("task_name")
        return all(
            not self.values(name) or task.get(field) in self.values(name) for name, field in FIELDS.items()
        ) and (not names or any(fnmatchcase(task.get("task_name") or "", name) for name in names))

    def admits_worker(self, worker: JSON) -> bool:
        """The same for a worker."""
        return not self.values("worker") or worker["worker"] in self.values("worker")

    def passes(self, event: JSON) -> bool:
        """Tell whether an event of the log is to come: by what it says now, or by what was before."""
        kind = event.get("type")
        if kind not in ("task_status", "worker_status") or not self.sees(kind):
            return False
        if kind == "worker_status":
            return self.admits_worker(event)
        before: Any = event.get("previous")
        return self.admits(event) or (isinstance(before, dict) and self.admits({**event, **before}))

    def may_pass(self, event: JSON) -> bool:
        """The same for what a sidecar may have shown as lost before, which no log says."""
        before: Any = event.get("previous")
        if self.passes(event) or not isinstance(before, dict):
            return self.passes(event)
        return self.passes({**event, "previous": {**before, "status": "lost"}})

    def without_extra(self, event: JSON) -> JSON:
        """What everybody is told."""
        return {name: value for name, value in event.items() if name not in EXTRA_FIELDS}
