"""The promises of the reading of a meta: what is understood, what is left out, how long it gets."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from celery import states
from hypothesis import given
from hypothesis import strategies as st

from celery_plugin.progress_meta import (
    CURRENT,
    JSON_MAX_BYTES,
    MESSAGE_MAX,
    PERCENT,
    TEXT,
    TOTAL,
    read,
    tell,
)
from celery_plugin.redact import Redactor

DOCUMENT = Path(__file__).parents[1] / "docs" / "progress.md"


def told(meta: Any, state: Any = "PROGRESS") -> dict[str, Any]:
    """What is shown of an update, without its time."""
    said = read(state, meta, 1_700_000_000.1234)
    assert said is not None
    shown = json.loads(tell(said, str))
    assert 1_700_000_000.123 == shown.pop("updated_at")
    return shown  # type: ignore[no-any-return]  # it is JSON


@pytest.mark.parametrize(
    ("expected", "meta"),
    [
        ({"current": 3, "total": 8, "percent": 37.5}, {"current": 3, "total": 8}),
        ({"current": 1, "total": 3, "percent": 33.3}, {"done": 1, "total": 3}),
        ({"current": 1, "total": 2, "percent": 50}, {"current": 1, "done": 2, "total": 2}),
        ({"current": 7}, {"current": 7}),
        ({"total": 7}, {"total": 7}),
        ({"current": 7, "total": 0}, {"current": 7, "total": 0}),
        ({"current": 0, "total": 7, "percent": 0}, {"current": 0, "total": 7}),
        ({"current": 9, "total": 7, "percent": 100}, {"current": 9, "total": 7}),
        ({"current": 29999, "total": 30000, "percent": 99.9}, {"current": 29999, "total": 30000}),
        ({"current": 1.5, "total": 3, "percent": 50}, {"current": 1.5, "total": 3.0}),
        ({"current": 0.333, "percent": 12.3}, {"current": 1 / 3, "percent": 12.345}),
        ({"current": 1, "total": 4, "percent": 26}, {"current": 1, "total": 4, "percent": 26}),
        ({"current": 3, "total": 4, "percent": 75}, {"current": Decimal(3), "total": Fraction(4)}),
    ],
)
def test_numbers(expected: dict[str, Any], meta: dict[str, Any]) -> None:
    """Numbers are shown as they are, and the percent is computed where it is not given."""
    assert expected == told(meta)


@pytest.mark.parametrize(
    ("expected", "meta"),
    [
        (50, {"percent": 50}),
        (0.5, {"percent": 0.5}),
        (50, {"progress": 50}),
        (50, {"progress": 0.5}),
        (100, {"progress": 1.0}),
        (1, {"progress": 1}),
        (1.5, {"progress": 1.5}),
        (20, {"percent": 20, "progress": 0.9}),
        (90, {"percent": "20 %", "progress": 0.9}),
    ],
)
def test_percent(expected: float, meta: dict[str, Any]) -> None:
    """A percent is one of 100; a progress that is no whole number, up to 1, is a fraction."""
    assert {"percent": expected} == told(meta)


@pytest.mark.parametrize(
    "absurd",
    [
        float("nan"),
        float("inf"),
        -1,
        1e16,
        10**400,
        Decimal("NaN"),
        Decimal("sNaN"),
        True,
        "5",
        None,
        [1],
        1j,
    ],
    ids=repr,
)
def test_what_is_no_number_of_this_world_is_left_out(absurd: Any) -> None:
    """Not a number, without end, below zero, beyond a browser's: left out, and the rest is shown."""
    assert {"message": "x"} == told(
        {"message": "x", "current": absurd, "total": absurd, "percent": absurd, "progress": absurd}
    )


def test_a_percent_beyond_100_is_computed_anew() -> None:
    """What cannot be is not shown."""
    assert {"current": 1, "total": 2, "percent": 50} == told({"current": 1, "total": 2, "percent": 250})
    assert {} == told({"percent": 250})


@pytest.mark.parametrize(
    ("expected", "meta"),
    [
        ("a", {"message": "a", "description": "b", "status": "c"}),
        ("b", {"message": "  ", "description": "b", "status": "c"}),
        ("c", {"message": None, "description": 4, "status": " c "}),
        ("x" * (MESSAGE_MAX - 1) + "…", {"message": "x" * 1000}),
    ],
)
def test_text(expected: str, meta: dict[str, Any]) -> None:
    """The first text that is one is the message, cut."""
    assert {"message": expected} == told(meta)


@pytest.mark.parametrize(
    ("expected", "state", "meta"),
    [
        ({"message": "{'file': 'x'}", "state": "UPLOADING"}, "UPLOADING", {"file": "x"}),
        ({"message": "{'file': 'x'}"}, "PROGRESS", {"file": "x"}),
        ({"message": "Nearly", "state": "UPLOADING"}, "UPLOADING", "Nearly"),
        ({"message": "[1, (2,), ('a', b'b'), {}]"}, "PROGRESS", [1, (2,), ("a", b"b"), {}]),
        ({"current": 1, "state": "UPLOADING"}, "UPLOADING", {"current": 1, "file": "x"}),
        ({"state": "UPLOADING"}, "UPLOADING", None),
        ({}, None, {}),
        ({"message": "0"}, 7, 0),
    ],
)
def test_other_states_and_metas_are_text(expected: dict[str, Any], state: Any, meta: Any) -> None:
    """A state of the task's own has its name; a meta that is not understood is shown as it is written."""
    assert expected == told(meta, state)


def test_a_text_that_may_hold_secrets_is_redacted_before_it_is_cut() -> None:
    """A message goes through redaction as what is not understood does; more than is shown is read."""
    seen: list[str] = []

    def redact(text: str) -> str:
        seen.append(text)
        return "redacted"

    unknown, known = (read("PROGRESS", meta, 1.0) for meta in ({"key": "k" * 90}, {"message": "m"}))
    assert unknown is not None
    assert known is not None
    assert "redacted" == json.loads(tell(unknown, redact))["message"]
    assert "redacted" == json.loads(tell(known, redact))["message"]
    assert ["{'key': '" + "k" * 90 + "'}", "m"] == seen


@pytest.mark.parametrize("state", sorted(states.ALL_STATES | {states.REJECTED, states.IGNORED}))
def test_states_of_celery_are_no_progress(state: str) -> None:
    """Where a task is, its events tell."""
    assert None is read(state, {"current": 1}, 1.0)


def test_a_meta_that_changes_later_is_shown_as_it_was() -> None:
    """A task may use one dict over and over."""
    for meta in ({"current": 1, "message": "a"}, {"file": "a"}):
        said = read("PROGRESS", meta, 1.0)
        assert said is not None
        before = tell(said, str)
        meta.clear()
        assert before == tell(said, str)


def test_a_large_meta_costs_no_more_than_is_shown() -> None:
    """It is not read to its end, also where it is inside itself."""
    endless: list[Any] = []
    endless += [{"again": endless}] * 2
    assert told(endless)["message"].startswith("[{'again': [{'again': [")
    million = told([{"n": 1}] * 1_000_000)["message"]
    assert (MESSAGE_MAX, "[{'n': 1}, ") == (len(million), million[:11])


class _Colour(str, Enum):
    RED = "RED"


_TEXTS = st.text(st.characters(codec=None, categories=None), max_size=400) | st.just("🎉" * 300)
_NUMBERS = st.integers() | st.floats() | st.decimals() | st.booleans()
_VALUES = st.recursive(
    st.none() | _NUMBERS | _TEXTS | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_TEXTS | st.integers(), inner, max_size=5),
    max_leaves=10,
)
_METAS = st.dictionaries(st.sampled_from([*CURRENT, *TOTAL, *PERCENT, *TEXT, "other"]), _VALUES) | _VALUES


@given(_METAS, _TEXTS | st.just(_Colour.RED) | st.none())
def test_always_small_and_readable(meta: Any, state: Any) -> None:
    """Whatever a task says: one line of JSON, of at most 200 bytes, the message first."""
    said = read(state, meta, 1_700_000_000.0)
    if said is None:
        return
    line = tell(said, str).encode("utf-8", "replace")
    assert len(line) <= JSON_MAX_BYTES
    assert not re.search(rb"[\t\n]", line)
    shown = json.loads(line)
    assert "message" not in shown or line.startswith(b'{"message":"')
    assert len(shown.get("message", "")) <= MESSAGE_MAX
    assert 0 <= shown.get("percent", 0) <= 100


def test_the_document_names_what_is_understood() -> None:
    """The table of docs/progress.md is the table of the code."""
    cells = re.findall(r"^\| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE)
    listed = [tuple(re.findall(r"`(\w+)`", cell)) for cell in cells]
    assert [CURRENT, TOTAL, PERCENT, TEXT] == [names for names in listed if names]


def test_a_password_in_a_message_is_not_shown() -> None:
    """A task may well report which URL it fetches."""
    said = read("PROGRESS", {"message": "fetching postgres://bob:hunter2@db/app"}, 1.0)
    assert said is not None
    assert "hunter2" not in tell(said, Redactor().repr_text)


def test_an_ordinary_message_is_shown_as_it_is() -> None:
    """Redaction takes nothing out of words that hold no secret."""
    said = read("PROGRESS", {"message": "Generating with 3 personas"}, 1.0)
    assert said is not None
    assert "Generating with 3 personas" == json.loads(tell(said, Redactor().repr_text))["message"]
