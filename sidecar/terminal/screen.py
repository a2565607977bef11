"""The terminal while a live view has it: a screen of its own, no cursor, no echo; given back in any case.

Only lines that have changed are written, so that a terminal far away is not flooded and nothing flickers.
"""

from __future__ import annotations

import os
import signal
import socket
import termios
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[0m\x1b[?25h\x1b[?1049l"
_CLEAR = "\x1b[0m\x1b[2J"
SIZE_DEFAULT = (80, 24)


def is_terminal(*descriptors: int) -> bool:
    """Tell whether a live view can be drawn."""
    return all(map(os.isatty, descriptors)) and os.environ.get("TERM", "dumb") != "dumb"


def has_colours(environ: Mapping[str, str]) -> bool:
    """Tell whether colours are wanted; see no-color.org."""
    return not environ.get("NO_COLOR")


class Screen:
    """Draws on one descriptor and reads keys from another; use it within `opened`."""

    def __init__(self, keys: int, output: int) -> None:
        self._keys = keys
        self._output = output
        self._before: list[Any] = []
        self._shown: list[str] = []
        # A signal makes one end readable, or a wait would not end with it.
        self.woken, self._waker = socket.socketpair()
        self.ended_by: int | None = None
        self._is_open = False

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        with suppress(OSError):
            columns, lines = os.get_terminal_size(self._output)
            if columns > 0 and lines > 0:
                return columns, lines
        return SIZE_DEFAULT

    @contextmanager
    def opened(self) -> Iterator[Screen]:
        """Take the terminal, and give it back as it was; signals that end the program end the wait."""
        handlers = {
            signal.SIGINT: self._end,
            signal.SIGTERM: self._end,
            signal.SIGHUP: self._end,
            signal.SIGWINCH: self._note,
            signal.SIGTSTP: self._suspend,
        }
        self.woken.setblocking(False)
        self._waker.setblocking(False)
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            self._take()
            yield self
        finally:
            self._give_back()
            for number, handler in before.items():
                signal.signal(number, handler)
            self.woken.close()
            self._waker.close()

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines and nothing else."""
        parts = []
        for number in range(max(len(lines), len(self._shown))):
            line = lines[number] if number < len(lines) else ""
            if number >= len(self._shown) or self._shown[number] != line:
                # Cleared first: behind a line that fills the width it would take the last cell.
                parts.append(f"\x1b[{number + 1};1H\x1b[2K{line}")
        self._shown = list(lines)
        self._write("".join(parts))

    def redraw(self) -> None:
        """Draw all lines the next time: the terminal has another size, or shows something else."""
        self._shown = []
        self._write(_CLEAR)

    def key(self) -> str:
        """What was typed; empty where nobody can type any more."""
        with suppress(OSError):
            return os.read(self._keys, 1024).decode("ascii", "replace")
        return ""

    def quiet(self) -> None:
        """Take back what woke the wait."""
        with suppress(BlockingIOError):
            while self.woken.recv(1024):
                pass

    def wake(self) -> None:
        """End the wait, from any thread."""
        with suppress(OSError):
            self._waker.send(b".")

    def _take(self) -> None:
        self._before = termios.tcgetattr(self._keys)
        # Ctrl-C and Ctrl-Z stay signals; what is typed is not shown.
        tty.setcbreak(self._keys, termios.TCSANOW)
        self._is_open = True
        self._write(_ENTER + _CLEAR)
        self._shown = []

    def _give_back(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        with suppress(OSError):  # it may have gone
            self._write(_LEAVE)
        with suppress(termios.error):
            # What was typed for the view is not for the shell.
            termios.tcsetattr(self._keys, termios.TCSAFLUSH, self._before)

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._output, data) :]

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.ended_by = number
        self.wake()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.redraw_due = True
        self.wake()

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        # From here on it has been woken by SIGCONT.
        self._take()
        self._note(number, frame)

    redraw_due = False
