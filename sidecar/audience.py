"""Who gets what: viewers that want the same share one evaluation and the same bytes.

An event of a task is looked up by its id, so that streams of single tasks cost nothing when others change.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from celery_plugin.contract import Position
from sidecar.event_log import Frame
from sidecar.wanted import Wanted

if TYPE_CHECKING:
    from sidecar.viewer import Viewer


class Audience:
    """The viewers that want the same."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.size = 0
        # Those that have got everything so far, in the order in which they got there.
        self.in_step: dict[Viewer, None] = {}
        self.spoken_to_at = time.monotonic()
        # The id that those in step know at least.
        self.knows = Position("", 0)

    def note(self, known: Position) -> None:
        """They have just been told something, and know this id."""
        self.spoken_to_at, self.knows = time.monotonic(), known


class Audiences:
    """Every audience that has a viewer."""

    def __init__(self) -> None:
        self._all: dict[Wanted, Audience] = {}
        self._by_task: dict[str, dict[Audience, None]] = {}
        # Those that must be asked of every event.
        self._asked: dict[Audience, None] = {}
        self._with_figures: dict[Audience, None] = {}

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
            audience = self._all[wanted] = Audience(wanted)
            for group in self._groups(audience):
                group[audience] = None
        audience.size += 1
        return audience

    def leave(self, viewer: Viewer) -> None:
        """A viewer has gone."""
        audience = viewer.audience
        audience.in_step.pop(viewer, None)
        audience.size -= 1
        if audience.size:
            return
        del self._all[audience.wanted]
        for group in self._groups(audience):
            del group[audience]
        for task_id in audience.wanted.tasks.task_ids:
            if not self._by_task.get(task_id, True):
                del self._by_task[task_id]

    def with_figures(self) -> list[Audience]:
        """The audiences that are told when the figures change, and have somebody to tell."""
        return [audience for audience in self._with_figures if audience.in_step]

    def concerned(self, frames: list[Frame]) -> dict[Audience, list[Frame]]:
        """The audiences that some of these events pass to, with what passes."""
        found: dict[Audience, list[Frame]] = {}
        for audience in self._asked:
            if audience.in_step and (passing := audience.wanted.passing(frames)):
                found[audience] = passing
        for frame in frames if self._by_task else ():
            for audience in self._by_task.get(frame.task_id, ()):
                if audience.wanted.passes(frame):
                    found.setdefault(audience, []).append(frame)
        return found

    def _groups(self, audience: Audience) -> list[dict[Audience, None]]:
        wanted = audience.wanted
        figures = [self._with_figures] if wanted.has_figures else []
        if not wanted.of_tasks_alone:
            return [self._asked, *figures]
        return [*(self._by_task.setdefault(task_id, {}) for task_id in wanted.tasks.task_ids), *figures]
