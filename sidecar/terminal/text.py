"""Text for a terminal: nothing in it drives the terminal, and it takes as many cells as it is given.

Names of tasks, workers and queues, messages and errors come from elsewhere, and may hold what moves the
cursor, hides what follows or runs a program.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime

ELLIPSIS = "…"
# Marks have no width, so nothing else would bound how many of them stand in a cell.
_CHARACTERS_A_CELL = 4


def clean(value: object) -> str:
    """Write whatever cannot be printed as an escape; ``None`` is nothing."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, unicodedata.normalize("NFC", text)))


def cells(text: str) -> int:
    """Count the cells that a clean text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, room: int) -> str:
    """Cut a clean text to so many cells at most; the last one shows that something is missing."""
    if cells(text) <= room and len(text) <= room * _CHARACTERS_A_CELL:
        return text
    kept, left = "", room - 1
    for character in text[: room * _CHARACTERS_A_CELL]:
        left -= _cells(character)
        if left < 0:
            break
        kept += character
    return kept + ELLIPSIS if room > 0 else ""


def fit(text: str, room: int, *, right: bool = False) -> str:
    """Cut and fill a clean text, so that it takes exactly so many cells."""
    short = cut(text, room)
    blank = " " * (room - cells(short))
    return blank + short if right else short + blank


def number(value: object) -> str:
    """A count; what is not known is no 0."""
    return f"{value:,}" if isinstance(value, int) else "?"


def duration(seconds: float) -> str:
    """How long: 0.4 s, 12 s, 3:07, 2:03:07, 3 d 02:03."""
    whole = int(seconds)
    if whole < 60:
        return f"{max(0.0, seconds):.1f} s" if seconds < 10 else f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if not hours:
        return f"{minutes}:{whole % 60:02}"
    if not days:
        return f"{hours}:{minutes % 60:02}:{whole % 60:02}"
    return f"{days} d {hours % 24:02}:{minutes % 60:02}"


def clock(at: float) -> str:
    """The time of day here, of seconds since the epoch."""
    return datetime.fromtimestamp(at).strftime("%H:%M:%S")


def _shown(character: str) -> str:
    if character.isprintable() and not 0xFE00 <= ord(character) <= 0xFE0F:  # these widen what stands before
        return character
    # Blanks of other widths; what starts a line or a paragraph is none.
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
