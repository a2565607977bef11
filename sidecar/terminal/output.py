"""Writes to the terminal or the pipe; what its encoding does not know becomes an escape, and no error."""

from __future__ import annotations

import io
import sys
from typing import Final

PROGRAM: Final = "celery-sidecar"
EXIT_NO_ANSWER: Final = 1


def prepare() -> None:
    """Let nothing that is written fail by its encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Write a line."""
    sys.stdout.write(line + "\n")


def tell_mistake(words: str) -> int:
    """Say on stderr why there is no answer, and return the exit code for it."""
    print(f"{PROGRAM}: {words}", file=sys.stderr)
    return EXIT_NO_ANSWER
