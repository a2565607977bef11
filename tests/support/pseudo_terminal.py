"""A program in a real terminal (a pty), and what a reader of its screen sees (pyte)."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

import pyte

from deploy.demo.child import CHECKOUT
from tests.support.deadline import PATIENCE_SECONDS, eventually

COLUMNS, LINES = 100, 30
# Only with a terminal that controls it do Ctrl-C, Ctrl-Z and a new size become signals.
_IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """Starts a command in a terminal of its own; use it in a `with`."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], columns: int = COLUMNS, lines: int = LINES
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        self._lock = threading.Lock()  # Protects the screen and what was written.
        self._master, slave = pty.openpty()
        self._set_size(columns, lines)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, *command],
            env={**env, "TERM": "xterm-256color"},
            cwd=CHECKOUT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.settings = termios.tcgetattr(self._master)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(PATIENCE_SECONDS)
        os.close(self._master)

    @property
    def shown(self) -> list[str]:
        """The lines of the screen."""
        with self._lock:
            return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """The whole screen."""
        return "\n".join(self.shown)

    def until(self, *words: str, without: str | None = None) -> str:
        """Wait until all of these are on the screen, and that one is not; return it."""

        def look() -> str:
            text = self.text
            return (
                text
                if all(word in text for word in words) and (without is None or without not in text)
                else ""
            )

        try:
            return eventually(look)
        except AssertionError:
            raise AssertionError(f"not on the screen: {words!r}, or still {without!r}\n{self.text}") from None

    def type(self, keys: str) -> None:
        """Type, Ctrl-C as ``\\x03``."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the window, of which the program is told by SIGWINCH."""
        with self._lock:
            self.screen.resize(lines, columns)
        self._set_size(columns, lines)

    def signal(self, number: int) -> None:
        """Send a signal to the program."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end of the program and of what it has written; return the exit code."""
        code = self._process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        return code

    def current_settings(self) -> list[object]:
        """What the terminal does with keys now."""
        return list(termios.tcgetattr(self._master))

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> None:
        # A terminal whose last program has gone answers with an error.
        with suppress(OSError):
            while piece := os.read(self._master, 65_536):
                with self._lock:
                    self.written += piece
                    self._stream.feed(piece)
