"""What the doctor finds: a word for how bad it is, what it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from sidecar.terminal.text import clean

OK: Final = "ok"
# Good to know, or could not be looked at: nothing that must be done.
NOTE: Final = "note"
WARNING: Final = "warning"
ERROR: Final = "error"
# The exit code of the worst one.
CODES: Final = {OK: 0, NOTE: 0, WARNING: 1, ERROR: 2}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: str
    about: str
    what: str
    advice: str = ""


class Findings:
    """Collects them; whatever goes in can be printed."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def add(self, level: str, about: str, what: str, advice: str = "") -> None:
        """Add one."""
        self.all.append(Finding(level, clean(about), clean(what), clean(advice)))

    @property
    def worst(self) -> str:
        """The worst level there is."""
        return max((each.level for each in self.all), key=list(CODES).index, default=OK)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"worst": self.worst, "findings": [asdict(each) for each in self.all]}


def listed(names: Iterable[str], most: int = 8) -> str:
    """Name some, and how many there are besides."""
    all_names = sorted(names)
    more = f" and {len(all_names) - most} more" if len(all_names) > most else ""
    return ", ".join(all_names[:most]) + more
