"""A filter within a scope never admits, finds or shows more than the scope does."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from celery_plugin.contract import JSON, LogEntry, encode
from sidecar.filters import TaskFilter, read_filter
from sidecar.forms import without
from sidecar.principal import Principal
from sidecar.scope import read_scope
from sidecar.scoped import within
from sidecar.state import State
from sidecar.subjects import subject_of

EVENT: JSON = {
    "type": "task_status",
    "task_id": "a",
    "task_name": "app.mail.send",
    "queue": "high",
    "status": "completed",
    "worker": "celery@one",
    "previous": {"status": "active", "worker": "celery@one"},
}
EXTRA = {"args": "('needle',)", "kwargs": "{}", "result": "'needle'", "traceback": "needle"}
RECORD = encode(EVENT | EXTRA).encode()


def principal(read: Any, *fields: str) -> Principal:
    """Who has a token."""
    return Principal(read_scope(read), frozenset(fields))


def filter_of(*given: tuple[str, str]) -> TaskFilter:
    """Read the parameters of a request."""
    return read_filter(given, ("active", "completed"))


SCOPES = ["*", {"tasks": ["a"]}, {"queues": ["high"]}, {"names": ["*.send"]}, {"tasks": ["b"]}]
FILTERS = [
    (),
    (("queue", "high"),),
    (("status", "active"),),
    (("task_id", "b"),),
    (("task_name", "app.*"), ("queue", "high")),
]


@pytest.mark.parametrize(("read", "given"), [*product(SCOPES, FILTERS)])
def test_both_must_admit(read: Any, given: tuple[tuple[str, str], ...]) -> None:
    """A task or a change is admitted when scope and filter both admit it."""
    wanted, who = filter_of(*given), principal(read)
    both = within(who, wanted)
    seen = who.scope.admits(subject_of(EVENT))
    assert (seen and wanted.admits(subject_of(EVENT))) == both.admits(subject_of(EVENT))
    assert (seen and wanted.admits_change(EVENT)) == both.admits_change(EVENT)


def test_shared() -> None:
    """Viewers with the same scope and filter have equal ones, and others do not."""
    given = (("task_name", "app.*"), ("task_name", "b"))
    one, other = (within(principal({"queues": ["high"]}), filter_of(*given)) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != within(principal({"queues": ["low"]}), filter_of(*given))
    assert one != within(principal({"queues": ["high"]}, "args"), filter_of(*given))
    assert one != filter_of(*given)


@pytest.mark.parametrize(
    ("task_ids", "queues", "read", "given"),
    [
        ({"a"}, set(), {"tasks": ["a"]}, ()),
        ({"b"}, set(), {"tasks": ["a"]}, (("task_id", "b"),)),
        ({"a"}, {"high"}, {"tasks": ["a"], "queues": ["high"]}, ()),
        ({"a"}, set(), {"tasks": ["a"]}, (("queue", "high"),)),
        (set(), {"high"}, "*", (("queue", "high"),)),
        (set(), {"high"}, {"names": ["a"]}, (("queue", "high"),)),
        (set(), set(), {"tasks": ["a"], "names": ["*"]}, ()),
        (set(), set(), "*", ()),
    ],
)
def test_tasks_are_looked_up(
    task_ids: set[str], queues: set[str], read: Any, given: tuple[tuple[str, str], ...]
) -> None:
    """Of a token for some tasks or queues only these are looked at, without a walk through all."""
    candidates = within(principal(read), filter_of(*given)).candidates
    assert (task_ids, queues) == candidates
    assert candidates.named == (set() if queues else task_ids)


@pytest.mark.parametrize(
    ("expected", "fields", "search"),
    [
        (True, ["args"], "needle"),
        (False, [], "needle"),
        (True, [], "APP.MAIL"),
        (True, [], "a"),
        (False, [], "high"),
    ],
)
def test_search(expected: bool, fields: list[str], search: str) -> None:
    """Who may not see arguments cannot search them either."""
    assert expected == within(principal("*", *fields), filter_of(("q", search))).finds(RECORD)


def test_search_in_what_is_no_record() -> None:
    """Nothing is found in what cannot be read."""
    assert not within(principal("*"), filter_of(("q", "a"))).finds(b"[")


def test_lean() -> None:
    """Arguments, result and traceback are left out of a record for who may not see them."""
    assert encode(EVENT).encode() == principal("*").shown(RECORD)
    assert RECORD is principal("*", "args").shown(RECORD)


def test_relatives() -> None:
    """Ids of other tasks are shown to who may see everything alone: nobody knows whose those tasks are."""
    family = encode(EVENT | {"root_id": "x", "parent_id": "y", "group_id": "g"}).encode()
    assert encode(EVENT | {"group_id": "g"}).encode() == principal({"tasks": ["a"]}, "args").shown(family)
    assert family is principal("*", "args").shown(family)
    assert RECORD is without(RECORD, ("root_id",))


def test_record_of_a_task() -> None:
    """The same holds for a task in memory."""
    state = State()
    event = EVENT | {"status": "active"}
    state.apply(LogEntry(1, encode(event).encode(), encode(EXTRA).encode()), event)
    task = state.task("a")
    assert task is not None
    assert encode(event).encode() == principal("*").record_of(task)
    assert b"needle" in principal("*", "args").record_of(task)
