"""Who gets what: viewers that want the same share one evaluation and the same bytes.

An event of a task is looked up by its id and its queue, so that streams of certain tasks or queues, asked for
or allowed alone, cost nothing when others change.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from celery_plugin.contract import Position
from sidecar.event_log import Frame
from sidecar.figures import Figures
from sidecar.status import StatusBoard
from sidecar.wanted import Wanted

if TYPE_CHECKING:
    from sidecar.viewer import Viewer


class Audience:
    """The viewers that want the same."""

    def __init__(self, wanted: Wanted, figures: Figures) -> None:
        self.wanted = wanted
        self.figures = figures
        self.size = 0
        # Those that have got everything so far, in the order in which they got there.
        self.in_step: dict[Viewer, None] = {}
        self.spoken_to_at = time.monotonic()
        # The id that those in step know at least.
        self.knows = Position("", 0)

    def note(self, known: Position) -> None:
        """They have just been told something, and know this id."""
        self.spoken_to_at, self.knows = time.monotonic(), known


Key = TypeVar("Key", bound=Hashable)


class _Groups(Generic[Key]):
    """Key → the audiences that are found by it."""

    def __init__(self) -> None:
        self._by_key: dict[Key, dict[Audience, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def of(self, key: Key) -> Iterable[Audience]:
        """The audiences that are found by a key."""
        return self._by_key.get(key, ())

    def add(self, key: Key, audience: Audience) -> None:
        """Let an audience be found."""
        self._by_key.setdefault(key, {})[audience] = None

    def discard(self, key: Key, audience: Audience) -> None:
        """Let it be found no more."""
        group = self._by_key[key]
        del group[audience]
        if not group:
            del self._by_key[key]


class Audiences:
    """Every audience that has a viewer."""

    def __init__(self, status: StatusBoard) -> None:
        self._status = status
        self._all: dict[Wanted, Audience] = {}
        self._by_task = _Groups[str]()
        self._by_queue = _Groups[str]()
        # Those that must be asked of every event.
        self._asked: dict[Audience, None] = {}
        self._by_figures = _Groups[Figures]()

    def __iter__(self) -> Iterator[Audience]:
        return iter(list(self._all.values()))

    def shared(self, wanted: Wanted) -> Wanted:
        """The same, as a viewer that is there has it: thousands need not hold one each."""
        audience = self._all.get(wanted)
        return wanted if audience is None else audience.wanted

    def enter(self, wanted: Wanted) -> Audience:
        """The audience of one more viewer."""
        audience = self._all.get(wanted)
        if audience is None:
            audience = self._all[wanted] = Audience(wanted, self._figures_of(wanted))
            self._put_in(audience)
        audience.size += 1
        return audience

    def leave(self, viewer: Viewer) -> None:
        """A viewer has gone."""
        audience = viewer.audience
        audience.in_step.pop(viewer, None)
        audience.size -= 1
        if not audience.size:
            del self._all[audience.wanted]
            self._take_out(audience)

    def told_of(self, figures: Iterable[Figures]) -> Iterator[Audience]:
        """The audiences that are told when these figures change, and have somebody to tell."""
        for each in figures:
            yield from (audience for audience in self._by_figures.of(each) if audience.in_step)

    def concerned(self, frames: list[Frame]) -> dict[Audience, list[Frame]]:
        """The audiences that some of these events pass to, with what passes."""
        found: dict[Audience, list[Frame]] = {}
        for audience in self._asked:
            if audience.in_step and (passing := audience.wanted.passing(frames)):
                found[audience] = passing
        for frame in frames if self._by_task or self._by_queue else ():
            for audience in self._looked_up(frame):
                if audience.wanted.passes(frame):
                    found.setdefault(audience, []).append(frame)
        return found

    def _looked_up(self, frame: Frame) -> Iterable[Audience]:
        by_task, by_queue = self._by_task.of(frame.task_id), self._by_queue.of(frame.queue)
        # Some are found by both.
        return dict.fromkeys([*by_task, *by_queue]) if by_task and by_queue else by_task or by_queue

    def _figures_of(self, wanted: Wanted) -> Figures:
        # Those of everybody are there anyway.
        return self._status.figures_of(wanted.scope) if wanted.has_figures else self._status.figures

    def _put_in(self, audience: Audience) -> None:
        wanted = audience.wanted
        for task_id in wanted.candidates.task_ids:
            self._by_task.add(task_id, audience)
        for queue in wanted.candidates.queues:
            self._by_queue.add(queue, audience)
        if not any(wanted.candidates):
            self._asked[audience] = None
        if wanted.has_figures:
            self._by_figures.add(audience.figures, audience)

    def _take_out(self, audience: Audience) -> None:
        wanted = audience.wanted
        for task_id in wanted.candidates.task_ids:
            self._by_task.discard(task_id, audience)
        for queue in wanted.candidates.queues:
            self._by_queue.discard(queue, audience)
        self._asked.pop(audience, None)
        if wanted.has_figures:
            self._by_figures.discard(audience.figures, audience)
