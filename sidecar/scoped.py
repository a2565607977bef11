"""A filter within a scope: admits what both do, in the place of a filter alone.

Two viewers with the same scope and the same filter have equal ones with the same hash, so one evaluation of
an event serves both. Whoever may see everything has the filter as it is, which costs nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from celery_plugin.contract import EXTRA_FIELDS
from sidecar.filters import SEARCHED, Candidates, TaskFilter
from sidecar.principal import Principal
from sidecar.scope import ALL, Scope
from sidecar.state import Unreadable, read_object
from sidecar.subjects import Subject, text_of

_LEAN_SEARCHED = tuple(name for name in SEARCHED if name not in EXTRA_FIELDS)


@dataclass(frozen=True)
class ScopedFilter(TaskFilter):
    """Made by `within`."""

    scope: Scope = ALL
    sees_args: bool = True

    @property
    def selects(self) -> bool:
        """Whether there is a task that does not match, whatever is searched for."""
        return not self.scope.everything or super().selects

    @property
    def candidates(self) -> Candidates:
        """The only tasks that can match."""
        scope = self.scope
        if self.task_ids or scope.everything or scope.names:
            return super().candidates
        return Candidates(scope.task_ids, scope.queues)

    def admits(self, subject: Subject) -> bool:
        """Tell whether a task matches and may be seen."""
        return self.scope.admits(subject) and super().admits(subject)

    def finds(self, record: bytes) -> bool:
        """Tell whether what is searched for is where it may be looked for.

        Who may not see the arguments must not learn of them by searching, nor by how long a search takes: so
        no look at the whole record first.
        """
        if self.sees_args or not self.search:
            return super().finds(record)
        try:
            values = read_object(record)
        except Unreadable:
            return False
        return any(self.search in text_of(values.get(name)).lower() for name in _LEAN_SEARCHED)


def within(principal: Principal, wanted: TaskFilter) -> TaskFilter:
    """Narrow a filter to what somebody may see."""
    if principal.scope.everything and (principal.sees_args or not wanted.search):
        return wanted
    given: dict[str, Any] = {each.name: getattr(wanted, each.name) for each in fields(TaskFilter)}
    return ScopedFilter(**given, scope=principal.scope, sees_args=principal.sees_args)


def scope_of(wanted: TaskFilter) -> Scope:
    """The scope that a filter is within."""
    return wanted.scope if isinstance(wanted, ScopedFilter) else ALL
