"""What a filter looks at: a task in memory, or the facts of an event."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from celery_plugin.contract import JSON


class Subject(Protocol):
    """What a filter looks at; an empty text where it is not known."""

    @property
    def task_id(self) -> str: ...
    @property
    def task_name(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def worker(self) -> str: ...


class Facts(NamedTuple):
    """A subject made of an event."""

    task_id: str
    task_name: str
    queue: str
    status: str
    worker: str


def subject_of(event: JSON) -> Facts:
    """What a filter looks at in an event or a record."""
    get = event.get
    return Facts(
        text_of(get("task_id")),
        text_of(get("task_name")),
        text_of(get("queue")),
        text_of(get("status")),
        text_of(get("worker")),
    )


def subjects_of(event: JSON) -> tuple[Facts, ...]:
    """The task of an event as it is, and as viewers saw it before where the event says so."""
    now, before = subject_of(event), event.get("previous")
    if not isinstance(before, dict):
        return (now,)
    task_id, task_name, queue, _, _ = now
    was = Facts(task_id, task_name, queue, text_of(before.get("status")), text_of(before.get("worker")))
    return now, was


def text_of(value: object) -> str:
    """A text as it is, and an empty one for anything else."""
    return value if isinstance(value, str) else ""
