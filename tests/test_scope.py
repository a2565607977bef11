"""A scope admits what its token names and nothing else; the same scope is equal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_plugin.contract import JSON
from sidecar.scope import ALL, BadScope, Scope, make_scope, read_claim, read_fields, read_scope, scope_claim
from sidecar.subjects import subject_of

EVENT: JSON = {
    "type": "task_status",
    "task_id": "a",
    "task_name": "app.mail.send",
    "queue": "high",
    "status": "active",
    "worker": "celery@one",
}
UNKNOWN: JSON = {"type": "task_status", "task_id": "b", "status": "revoked"}

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just("*"),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["read", "fields", "tasks", "names", "queues", "x"]), children, max_size=4
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("expected", "read"),
    [
        (True, "*"),
        (True, {"tasks": ["a"]}),
        (True, {"names": ["app.*"]}),
        (True, {"names": ["*"]}),
        (True, {"queues": ["high"]}),
        (True, {"tasks": ["b"], "queues": ["high"]}),
        (True, {"tasks": ["a"], "names": [], "queues": []}),
        (False, {}),
        (False, {"tasks": [], "names": [], "queues": []}),
        (False, {"tasks": ["A"]}),
        (False, {"tasks": ["*"]}),
        (False, {"names": ["app"]}),
        (False, {"queues": ["hi*"]}),
        (False, {"workers": ["celery@one"]}),
    ],
)
def test_admits(expected: bool, read: Any) -> None:
    """What it names adds up; what is empty, missing or not known gives nothing."""
    assert expected == read_scope(read).admits(subject_of(EVENT))


@pytest.mark.parametrize("read", [{"tasks": ["a"]}, {"names": ["a*"]}, {"queues": ["high"]}])
def test_a_task_of_which_little_is_known(read: Any) -> None:
    """A task without a name or a queue is admitted by its id alone."""
    assert not read_scope(read).admits(subject_of(UNKNOWN))
    assert read_scope({"tasks": ["b"]}).admits(subject_of(UNKNOWN))


def test_the_same_scope_is_equal() -> None:
    """Order and repetition make no other scope, so that viewers with the same one can share."""
    one = make_scope(["a", "b"], ["x.*", "y"], ["q"])
    other = make_scope(["b", "a", "a"], ["y", "x.*", "y"], ["q"])
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    "read",
    [
        None,
        True,
        1,
        "",
        "**",
        [],
        ["*"],
        {"tasks": "a"},
        {"tasks": ["a", 5]},
        {"tasks": [""]},
        {"names": [""]},
        {"queues": [""]},
        {"queues": None},
        {"tasks": ["x" * 1001]},
        {"names": [f"x{number}" for number in range(101)]},
    ],
)
def test_what_is_no_scope(read: Any) -> None:
    """What cannot be read is refused whole, and never read as something wider."""
    with pytest.raises(BadScope):
        read_scope(read)


@pytest.mark.parametrize(
    ("expected", "claim"), [({"args"}, ["args"]), (set(), []), (set(), ["new"]), ({"args"}, ["x", "args"])]
)
def test_fields(expected: set[str], claim: list[str]) -> None:
    """A word that is not known gives nothing."""
    assert expected == read_fields(claim)


@pytest.mark.parametrize("claim", ["args", None, 5, {"args": True}, [["args"]]])
def test_what_are_no_fields(claim: Any) -> None:
    """Fields that cannot be read are refused."""
    with pytest.raises(BadScope):
        read_fields(claim)


@given(JSON_VALUES)
def test_any_claim(claim: Any) -> None:
    """Whatever stands in a claim is read or refused; and what is written of it reads the same."""
    try:
        scope, fields = read_claim(claim)
    except BadScope:
        return
    assert (scope, fields) == read_claim(scope_claim(scope, fields))


texts = st.lists(st.text("ab*", min_size=1, max_size=4), max_size=3)


@given(texts, texts, texts)
def test_written_and_read(tasks: list[str], names: list[str], queues: list[str]) -> None:
    """A scope survives being written as a claim."""
    scope = make_scope(tasks, names, queues)
    assert (scope, frozenset()) == read_claim(scope_claim(scope, frozenset()))
    assert scope.is_empty == (not (tasks or names or queues))


def test_everything() -> None:
    """Everything is written as a star."""
    assert {"read": "*", "fields": ["args"]} == scope_claim(ALL, frozenset({"args"}))
    assert not ALL.is_empty
    assert Scope().is_empty
