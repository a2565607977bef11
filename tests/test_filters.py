"""A filter admits what matches all of its parameters, each by any of its values; what is wrong is refused."""

from __future__ import annotations

import re
from fnmatch import translate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_plugin.contract import JSON, encode
from sidecar.filters import Pattern, TaskFilter, read_filter
from sidecar.problems import BadParameter
from sidecar.subjects import subject_of

STATUSES = ("active", "reserved")
EVENT: JSON = {
    "type": "task_status",
    "task_id": "a",
    "task_name": "app.tasks.send",
    "queue": "high",
    "status": "active",
    "worker": "celery@one",
    "previous": {"status": "reserved", "worker": "celery@two"},
}


def filter_of(*given: tuple[str, str]) -> TaskFilter:
    """Read parameters."""
    return read_filter(given, STATUSES)


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        (True, []),
        (True, [("task_id", "a")]),
        (False, [("task_id", "A")]),
        (True, [("task_id", "b"), ("task_id", "a")]),
        (True, [("task_name", "app.*")]),
        (False, [("task_name", "app")]),
        (True, [("task_name", "*"), ("queue", "high"), ("status", "active"), ("worker", "celery@one")]),
        (False, [("task_name", "app.*"), ("queue", "low")]),
        (False, [("status", "reserved")]),
        (False, [("worker", "celery@*")]),
        (True, [("limit", "5"), ("cursor", "x")]),
    ],
)
def test_admits(expected: bool, given: list[tuple[str, str]]) -> None:
    """Several parameters must all match, several values of one need not."""
    assert expected == filter_of(*given).admits(subject_of(EVENT))


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        (True, ("status", "reserved")),
        (True, ("worker", "celery@two")),
        (True, ("worker", "celery@one")),
        (False, ("worker", "celery@three")),
        (False, ("queue", "low")),
    ],
)
def test_admits_a_change(expected: bool, given: tuple[str, str]) -> None:
    """An event passes that matches before or after it, so that a task is seen to leave."""
    assert expected == filter_of(given).admits_change(EVENT)


@pytest.mark.parametrize("previous", [{}, {"previous": None}, {"previous": 5}, {"previous": {"status": 5}}])
def test_without_a_previous(previous: JSON) -> None:
    """Where nothing was before, only what is counts."""
    event = {name: value for name, value in EVENT.items() if name != "previous"} | previous
    assert filter_of(("status", "active")).admits_change(event)
    assert not filter_of(("status", "reserved")).admits_change(event)


names = st.text("ab.[?", max_size=8)


@given(st.text("ab.[?*", max_size=8), names)
def test_names(pattern: str, name: str) -> None:
    """A star stands for any characters, and nothing else is special."""
    literal = pattern.replace("[", "[[]").replace("?", "[?]")
    expected = re.fullmatch(translate(literal), name) is not None
    assert expected == Pattern(pattern.split("*")).matches(name)


def test_a_name_of_many_stars() -> None:
    """No pattern keeps anybody busy."""
    assert not Pattern(("*a" * 500 + "b").split("*")).matches("a" * 10_000)


@pytest.mark.parametrize("text", ["App.Tasks", "(1, 'X", "ä", "'K\\n", '"quoted"', "\\", "🎉", "kw"])
def test_search(text: str) -> None:
    """It is found in name, id, args and kwargs, in upper case or in lower."""
    args = "(1, 'x', 'k\\n', '\"QUOTED\"', 'Ä', '🎉')"
    record = encode(EVENT | {"args": args, "kwargs": "{'KW': 1}"}).encode()
    assert filter_of(("q", text)).finds(record)


@pytest.mark.parametrize("text", ["high", "celery@one", "task_name", "active", ",", "nothing"])
def test_search_elsewhere(text: str) -> None:
    """It is not found in what only looks like it: other members, or JSON itself."""
    assert not filter_of(("q", text)).finds(encode(EVENT | {"args": "()"}).encode())


@given(st.text(min_size=1, max_size=3), st.text(max_size=20))
def test_any_search(search: str, args: str) -> None:
    """The short cut through the bytes gives what a look at the texts gives."""
    record = encode({"args": args}).encode()
    shown = args.encode("utf-8", "replace").decode()
    assert (search.lower() in shown.lower()) == filter_of(("q", search)).finds(record)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("status", ["completed"]),
        ("status", ["active", ""]),
        *((name, [""]) for name in ("task_id", "task_name", "queue", "worker", "q")),
        *((name, ["x" * 1001]) for name in ("task_id", "task_name", "queue", "worker", "q")),
        ("task_id", [str(number) for number in range(101)]),
        ("q", ["a", "b"]),
    ],
)
def test_wrong(name: str, values: list[str]) -> None:
    """What is wrong is refused under its name."""
    with pytest.raises(BadParameter) as caught:
        filter_of(*((name, value) for value in values))
    assert name == caught.value.parameter
    if name == "status":
        assert "active, reserved" in caught.value.expected


def test_the_same_filter_is_equal() -> None:
    """Viewers who ask for the same have equal filters with one hash, so that they can share."""
    given = [("task_name", "a.*"), ("task_name", "b"), ("queue", "high")]
    assert filter_of(*given) == filter_of(*reversed(given))
    assert hash(filter_of(*given)) == hash(filter_of(*reversed(given)))
