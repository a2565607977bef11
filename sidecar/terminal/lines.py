"""Lines of styled text, and tables of them that give up columns where there is little room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.terminal.text import cells, cut, fit

# The one map of colours; a terminal that has none is sent none.
STYLES: Final = {
    "": "",
    "title": "1",
    "dim": "2",
    "good": "32",
    "warn": "33",
    "bad": "31",
    "active": "32",
    "reserved": "36",
    "scheduled": "34",
    "completed": "36",
    "retrying": "33",
    "revoked": "35",
    "failed": "31",
    "lost": "33;1",
    "rejected": "90",
}
# A state is told by its word and its sign, not by its colour alone.
SIGNS: Final = {
    "active": "▶",
    "reserved": "◦",
    "scheduled": "◷",
    "completed": "✓",
    "retrying": "↻",
    "revoked": "⊘",
    "failed": "✗",
    "lost": "?",
    "rejected": "−",
}
# Clean text, and the name of its style.
Segment = tuple[str, str]
Line = list[Segment]


def render(line: Line, width: int, *, colours: bool, dim: bool = False) -> str:
    """Write a line for a terminal, cut to its width."""
    written, left = "", width
    for text, style in line:
        short = cut(text, left)
        left -= cells(short)
        code = STYLES["dim"] if dim else STYLES.get(style, "")
        written += f"\x1b[{code}m{short}\x1b[0m" if colours and code and short else short
        if left <= 0:
            break
    return written


@dataclass(frozen=True)
class Column:
    """A column: how many cells at least and at most; the one with the highest rank is given up first."""

    name: str
    least: int
    most: int
    rank: int = 0
    right: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[Segment]], width: int) -> list[Line]:
    """Lay rows out under the names of the columns, as far as the width goes."""
    shown = _that_fit(columns, width)
    sizes = _sizes(columns, shown, rows, width)
    head: Line = [(fit(columns[n].name, sizes[n], right=columns[n].right), "dim") for n in shown]
    return [_joined(head)] + [
        _joined([(fit(row[n][0], sizes[n], right=columns[n].right), row[n][1]) for n in shown])
        for row in rows
    ]


def _joined(segments: Line) -> Line:
    joined: Line = []
    for segment in segments:
        joined += [("  ", ""), segment] if joined else [segment]
    return joined


def _that_fit(columns: Sequence[Column], width: int) -> list[int]:
    shown = list(range(len(columns)))
    while len(shown) > 1 and sum(columns[n].least + 2 for n in shown) - 2 > width:
        shown.remove(max(shown, key=lambda n: (columns[n].rank, n)))
    return shown


def _sizes(
    columns: Sequence[Column], shown: list[int], rows: Sequence[Sequence[Segment]], width: int
) -> dict[int, int]:
    """Each has what it needs, the ones that are kept longest first."""
    sizes = {n: columns[n].least for n in shown}
    left = width - sum(sizes.values()) - 2 * (len(shown) - 1)
    for n in sorted(shown, key=lambda n: (columns[n].rank, n)):
        needed = max([cells(columns[n].name), *(cells(row[n][0]) for row in rows)])
        more = max(0, min(min(needed, columns[n].most) - sizes[n], left))
        sizes[n] += more
        left -= more
    return sizes
