"""Which tasks a question is about: by the parameters of a request, all of which a task must match.

Within one parameter that is given several times any value will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from celery_plugin.contract import JSON
from sidecar.problems import BadParameter
from sidecar.state import Unreadable, read_object
from sidecar.subjects import Subject, subjects_of, text_of

FILTERS = ("task_id", "task_name", "queue", "status", "worker")
SEARCH = "q"
# More would make one request dearer than a hundred.
VALUES_MAX = 100
VALUE_MAX_CHARS = 1000
SEARCHED = ("task_name", "task_id", "args", "kwargs")

# In JSON these stand for themselves, so a record without them cannot have them in one of its texts.
_PLAIN = re.compile(r"[ !#-\[\]-~]+", re.ASCII)


@dataclass(frozen=True)
class Pattern:
    """A name in which each ``*`` stands for any characters, also for none.

    No regular expression: ``*a*a*a*a`` would keep one busy for minutes.
    """

    parts: tuple[str, ...]

    def matches(self, text: str) -> bool:
        """Tell whether the whole text is like this."""
        first, *middle = self.parts
        if not middle:
            return text == first
        last, at = middle.pop(), len(first)
        for part in middle:
            found = text.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return text.startswith(first) and text.endswith(last) and at + len(last) <= len(text)


class Candidates(NamedTuple):
    """The tasks with one of these ids or in one of these queues; any task where both are empty."""

    task_ids: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()

    @property
    def named(self) -> frozenset[str]:
        """The ids, where there are no others."""
        return frozenset() if self.queues else self.task_ids


@dataclass(frozen=True)
class TaskFilter:
    """Admits every task until it is told otherwise."""

    task_ids: frozenset[str] = frozenset()
    names: tuple[Pattern, ...] = ()
    queues: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()
    workers: frozenset[str] = frozenset()
    search: str = field(default="")

    @property
    def is_given(self) -> bool:
        """Whether certain tasks were asked for, whatever is searched for."""
        return bool(self.task_ids or self.names or self.queues or self.statuses or self.workers)

    @property
    def selects(self) -> bool:
        """Whether there is a task that does not match, whatever is searched for."""
        return self.is_given

    @property
    def candidates(self) -> Candidates:
        """The only tasks that can match: what can be looked up need not be asked of every task."""
        return Candidates(self.task_ids, frozenset() if self.task_ids else self.queues)

    @property
    def is_of_workers(self) -> bool:
        """Whether tasks are chosen by nothing but their worker."""
        return bool(self.workers) and not (self.task_ids or self.names or self.queues or self.statuses)

    def admits(self, subject: Subject) -> bool:
        """Tell whether a task matches, whatever is searched for."""
        return (
            (not self.task_ids or subject.task_id in self.task_ids)
            and (not self.statuses or subject.status in self.statuses)
            and (not self.queues or subject.queue in self.queues)
            and (not self.workers or subject.worker in self.workers)
            and (not self.names or any(name.matches(subject.task_name) for name in self.names))
        )

    def admits_change(self, event: JSON) -> bool:
        """Tell whether an event is about a task that matches, or did before: it is then seen to leave."""
        return any(map(self.admits, subjects_of(event)))

    def finds(self, record: bytes) -> bool:
        """Tell whether what is searched for is in a record, in upper case or in lower."""
        if not self.search:
            return True
        if _PLAIN.fullmatch(self.search) and self.search.encode() not in record.lower():
            return False
        try:
            values = read_object(record)
        except Unreadable:
            return False
        return any(self.search in text_of(values.get(name)).lower() for name in SEARCHED)


ANY_TASK = TaskFilter()


def read_filter(parameters: Iterable[tuple[str, str]], statuses: Sequence[str]) -> TaskFilter:
    """Read the parameters of a request, leaving aside what is no filter; raises BadParameter."""
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        if name in (*FILTERS, SEARCH):
            given.setdefault(name, []).append(value)
    for name, values in given.items():
        _check(name, values, statuses)
    wanted = {name: frozenset(given.get(name, ())) for name in FILTERS}
    return TaskFilter(
        task_ids=wanted["task_id"],
        names=tuple(Pattern(tuple(name.split("*"))) for name in sorted(wanted["task_name"])),
        queues=wanted["queue"],
        statuses=wanted["status"],
        workers=wanted["worker"],
        search="".join(given.get(SEARCH, ())).lower(),
    )


def _check(name: str, values: Sequence[str], statuses: Sequence[str]) -> None:
    if name == "status" and not set(values) <= set(statuses):
        raise BadParameter(name, f"one of {', '.join(statuses)}")
    if not all(1 <= len(value) <= VALUE_MAX_CHARS for value in values):
        raise BadParameter(name, f"a text of 1 to {VALUE_MAX_CHARS} characters")
    if len(values) > (1 if name == SEARCH else VALUES_MAX):
        raise BadParameter(name, "given once" if name == SEARCH else f"given {VALUES_MAX} times at most")
