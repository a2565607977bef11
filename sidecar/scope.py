"""Which tasks somebody may see: what its token says, compiled to the predicate that filters are.

What a scope names adds up: these tasks, and those with such names, and those of these queues. So a list that
is empty or missing gives nothing, and one more entry never takes anything away. (Filters narrow instead.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.filters import VALUE_MAX_CHARS, VALUES_MAX, Pattern
from sidecar.subjects import Subject

EVERYTHING: Final = "*"
# The one word for what may hold personal data: args, kwargs, result and traceback.
ARGS: Final = "args"


class BadScope(ValueError):
    """Raised when a claim is not what a scope is."""


@dataclass(frozen=True)
class Scope:
    """Admits nothing until it is told otherwise."""

    everything: bool = False
    task_ids: frozenset[str] = frozenset()
    names: tuple[Pattern, ...] = ()
    queues: frozenset[str] = frozenset()

    def admits(self, subject: Subject) -> bool:
        """Tell whether a task may be seen."""
        return (
            self.everything
            or subject.task_id in self.task_ids
            or subject.queue in self.queues
            or any(name.matches(subject.task_name) for name in self.names)
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing may be seen."""
        return not (self.everything or self.task_ids or self.names or self.queues)


ALL: Final = Scope(everything=True)


def make_scope(task_ids: Sequence[str], names: Sequence[str], queues: Sequence[str]) -> Scope:
    """Make a scope of ids, names with ``*`` and queues; raises BadScope."""
    for what, values in (("tasks", task_ids), ("names", names), ("queues", queues)):
        _check(what, values)
    return Scope(
        task_ids=frozenset(task_ids),
        # Split into a tuple, so that viewers with the same scope can share what is made for them.
        names=tuple(Pattern(tuple(name.split("*"))) for name in sorted(set(names))),
        queues=frozenset(queues),
    )


def read_scope(claim: Any) -> Scope:
    """Read what a token says under ``read``; what is not known here gives nothing; raises BadScope."""
    if claim == EVERYTHING:
        return ALL
    if not isinstance(claim, dict):
        raise BadScope('read is neither "*" nor an object')
    return make_scope(*(claim.get(name, []) for name in ("tasks", "names", "queues")))


def read_fields(claim: Any) -> frozenset[str]:
    """Read what a token says under ``fields``; an unknown word gives nothing; raises BadScope."""
    _check("fields", claim)
    return frozenset(claim) & {ARGS}


def scope_claim(scope: Scope, fields: frozenset[str]) -> dict[str, Any]:
    """Write a scope as the claim that it is read from."""
    return {"read": EVERYTHING if scope.everything else _lists(scope), "fields": sorted(fields)}


def read_claim(claim: Any) -> tuple[Scope, frozenset[str]]:
    """Read the claim of a token; raises BadScope."""
    if not isinstance(claim, Mapping):
        raise BadScope("it is no object")
    return read_scope(claim.get("read", {})), read_fields(claim.get("fields", []))


def _lists(scope: Scope) -> dict[str, list[str]]:
    lists = {
        "tasks": sorted(scope.task_ids),
        "names": ["*".join(name.parts) for name in scope.names],
        "queues": sorted(scope.queues),
    }
    return {name: values for name, values in lists.items() if values}


def _check(what: str, values: Any) -> None:
    # An empty text would admit every task of which name or queue is not known.
    if not isinstance(values, list | tuple) or not all(
        isinstance(value, str) and 1 <= len(value) <= VALUE_MAX_CHARS for value in values
    ):
        raise BadScope(f"{what} is no list of texts of 1 to {VALUE_MAX_CHARS} characters")
    # Each event is held against every name.
    if len(values) > VALUES_MAX:
        raise BadScope(f"{what} has more than {VALUES_MAX} entries")
