"""The figures of ``queue_status`` for whoever may not see everything."""

from __future__ import annotations

from collections import Counter
from weakref import WeakValueDictionary

from celery_plugin.contract import JSON
from sidecar.census import Changes, kind_of
from sidecar.figures import Figures
from sidecar.queues import sum_of
from sidecar.scope import Scope
from sidecar.state import State


def count_tasks(state: State, scope: Scope) -> Counter[str]:
    """Status → how many of the tasks in it a scope admits.

    Each kind of task is looked at once, and each task that the scope names by its id: 1 ms for 300 kinds.
    """
    seen: Counter[str] = Counter()
    for kind, number in state.census.numbers(None if scope.names or scope.everything else scope.queues):
        if scope.admits(kind):
            seen[kind.status] += number
    for task in filter(None, map(state.task, scope.task_ids)):
        if not scope.admits(kind_of(task)):
            seen[task.status] += 1
    return seen


def narrow_status(figures: JSON, scope: Scope, seen: Counter[str]) -> JSON:
    """The figures as a scope may see them; what it may not see is null, never 0.

    Of the broker's lists only those of its queues are shown: which tasks wait in a list nobody has looked at.
    """
    if scope.everything:
        return figures
    queues = [queue for queue in figures["queues"] if queue["name"] in scope.queues]
    pending = sum_of(queues)
    held = sum(seen[status] for status in ("active", "reserved", "scheduled"))
    return figures | {
        "total_tasks": None if pending is None else pending + held,
        "pending_tasks": pending,
        "active_tasks": seen["active"],
        "reserved_tasks": seen["reserved"],
        "scheduled_tasks": seen["scheduled"],
        "lost_tasks": seen["lost"],
        "failed_last_hour": None,
        "oldest_waiting_s": None,
        "workers_online": None,
        "queues": queues,
    }


class ScopedStatus:
    """Keeps the figures of each scope that somebody watches, and counts again where something has changed."""

    def __init__(self) -> None:
        # They stay as long as somebody holds them.
        self._watched: WeakValueDictionary[Scope, Figures] = WeakValueDictionary()
        self._queues: dict[str, JSON] = {}

    def figures_of(self, scope: Scope) -> Figures:
        """The figures of a scope, from now on kept up to date."""
        figures = self._watched.get(scope)
        if figures is None:
            figures = self._watched[scope] = Figures()
        return figures

    def refresh(self, state: State, current: JSON) -> list[Figures]:
        """Bring all up to date; return those that have changed."""
        changes = state.census.take_changes()
        changes.queues |= self._changed_depths(current)
        changed = []
        for scope, figures in list(self._watched.items()):
            if figures.version and not _concerns(changes, scope):
                continue
            if figures.take(narrow_status(current, scope, count_tasks(state, scope)), None):
                changed.append(figures)
        return changed

    def _changed_depths(self, current: JSON) -> set[str]:
        before, self._queues = self._queues, {queue["name"]: queue for queue in current["queues"]}
        names = before.keys() | self._queues.keys()
        return {name for name in names if _depth(before.get(name)) != _depth(self._queues.get(name))}


def _depth(queue: JSON | None) -> object:
    return queue and {name: value for name, value in queue.items() if name != "measured_at"}


def _concerns(changes: Changes, scope: Scope) -> bool:
    return (
        changes.all
        or not scope.task_ids.isdisjoint(changes.task_ids)
        or not scope.queues.isdisjoint(changes.queues)
        or any(pattern.matches(name) for pattern in scope.names for name in changes.names)
    )
