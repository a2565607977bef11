"""Text for a terminal: nothing in it drives the terminal, and it takes as many cells as it is given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.terminal.lines import Column, render, table
from sidecar.terminal.text import cells, clean, cut, duration, fit

ANY_TEXT = st.text(st.characters())


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("app.mail.send", "app.mail.send"),
        ("\\x1b[2J\\x07", "\x1b[2J\x07"),
        ("\\x9b2J", "\x9b2J"),
        ("a\\nb\\r\\tc", "a\nb\r\tc"),
        ("\\u202egnp.exe", "\u202egnp.exe"),
        ("\\u200bhidden\\ufeff", "\u200bhidden\ufeff"),
        ("\\ud800", "\ud800"),
        ("a b", "a\xa0b"),
        ("\xe9", "e\u0301"),
        ("日本", "日本"),
        ("", None),
        ("7", 7),
    ],
)
def test_clean(expected: str, given: object) -> None:
    """What cannot be printed is written as an escape, and everything else as it is."""
    assert expected == clean(given)


@given(ANY_TEXT)
def test_nothing_drives_the_terminal(text: str) -> None:
    """Whatever a text holds, what is printed of it is printable, and stays so."""
    assert clean(text).isprintable()
    assert clean(text) == clean(clean(text))


@given(ANY_TEXT, st.integers(0, 40))
def test_fit(text: str, room: int) -> None:
    """A text takes exactly the room that it is given, whatever the width of its characters."""
    shown = clean(text)
    assert room == cells(fit(shown, room))
    assert cells(cut(shown, room)) <= room
    assert len(cut(shown, room)) <= 4 * room + 1


@given(st.lists(st.lists(ANY_TEXT, min_size=3, max_size=3), max_size=5), st.integers(1, 60))
def test_a_table_keeps_within_its_width(rows: list[list[str]], width: int) -> None:
    """No row is wider than the terminal; where there is little room columns are given up."""
    columns = (Column("FIRST", 4, 20), Column("SECOND", 5, 9, 2, right=True), Column("THIRD", 5, 30, 1))
    lines = table(columns, [[(clean(cell), "") for cell in row] for row in rows], width)
    assert len(rows) + 1 == len(lines)
    assert all(cells(render(line, width, colours=False)) <= width for line in lines)


@pytest.mark.parametrize(
    ("expected", "seconds"),
    [
        ("0.0 s", -1.0),
        ("9.4 s", 9.44),
        ("12 s", 12.9),
        ("3:07", 187.0),
        ("2:03:07", 7387),
        ("3 d 02:03", 266580),
    ],
)
def test_duration(expected: str, seconds: float) -> None:
    """A time is short to read, and never negative."""
    assert expected == duration(seconds)
