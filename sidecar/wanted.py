"""What a stream lets through, and in which form: equal for all viewers that asked for the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NamedTuple

from celery_plugin.contract import END_STATUSES, EventType
from sidecar import control
from sidecar.event_log import Frame
from sidecar.filters import ANY_TASK, Candidates, TaskFilter
from sidecar.forms import RELATIVES, Form
from sidecar.principal import Principal
from sidecar.scope import Scope
from sidecar.scoped import scope_of, within

# What a stream is told of besides its own course.
TOLD_TYPES: Final = (EventType.TASK_STATUS, EventType.WORKER_STATUS, EventType.QUEUE_STATUS)
# And who may not see everything.
_NARROW_TYPES: Final = (EventType.TASK_STATUS, EventType.QUEUE_STATUS)


class Piece(NamedTuple):
    """Bytes of a stream, whether nothing follows, and how many events of the log are in it."""

    chunk: bytes
    last: bool = False
    events: int = 0


@dataclass(frozen=True)
class Wanted:
    """Everything, in its lean form, unless it says otherwise."""

    tasks: TaskFilter = ANY_TASK
    # Empty: whatever the filter of tasks leaves.
    types: frozenset[str] = frozenset()
    include: tuple[str, ...] = ()
    # Nothing more after the end of the task that the filter names.
    until_end: bool = False

    def within(self, principal: Principal) -> Wanted:
        """The same, as far as somebody may see it."""
        include = self.include if principal.sees_args else ()
        return replace(self, tasks=within(principal, self.tasks), include=include)

    @cached_property
    def scope(self) -> Scope:
        """What may be seen at all."""
        return scope_of(self.tasks)

    @cached_property
    def form(self) -> Form:
        """What is shown of each task."""
        return Form(self.include, () if self.scope.everything else RELATIVES)

    @cached_property
    def everything(self) -> bool:
        """Whether nothing is kept back."""
        return not self.types and not self.tasks.selects

    @cached_property
    def candidates(self) -> Candidates:
        """The only tasks of which events can pass; any, and any worker, where it names none."""
        return Candidates() if self.has(EventType.WORKER_STATUS) else self.tasks.candidates

    def has(self, event_type: str) -> bool:
        """Tell whether events of a type can pass.

        Who asks for certain tasks gets nothing else, unless it names the type.
        """
        if not self.scope.everything and event_type not in _NARROW_TYPES:
            return False
        if self.types:
            return event_type in self.types
        if not self.tasks.is_given or event_type == EventType.TASK_STATUS:
            return True
        return event_type == EventType.WORKER_STATUS and self.tasks.is_of_workers

    @cached_property
    def has_figures(self) -> bool:
        """Whether it is told when the figures change."""
        return self.has(EventType.QUEUE_STATUS)

    def passes(self, frame: Frame) -> bool:
        """Tell whether an event passes: by what its task is now, or was before."""
        if not self.has(frame.event_type):
            return False
        if frame.event_type == EventType.TASK_STATUS:
            return any(map(self.tasks.admits, frame.subjects))
        workers = self.tasks.workers
        return not workers or any(subject.worker in workers for subject in frame.subjects)

    def passing(self, frames: list[Frame]) -> list[Frame]:
        """The events that pass."""
        return frames if self.everything else [frame for frame in frames if self.passes(frame)]

    def join(self, frames: Sequence[Frame]) -> Piece:
        """Events that pass, in one piece."""
        end = (
            next((n for n, frame in enumerate(frames, 1) if ends_task(frame)), None)
            if self.until_end
            else None
        )
        if end is None:
            return Piece(b"".join([frame.shown(self.form) for frame in frames]), events=len(frames))
        told = b"".join([frame.shown(self.form) for frame in frames[:end]])
        return Piece(told + control.end(frames[end - 1].subjects[0]), last=True, events=end)


def ends_task(frame: Frame) -> bool:
    """Tell whether an event is the end of its task."""
    return frame.event_type == EventType.TASK_STATUS and frame.subjects[0].status in END_STATUSES
