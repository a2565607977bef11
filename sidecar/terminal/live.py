"""The live view: a thread reads the stream, and the screen is drawn when there is news or a clock ticks."""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
import time
from collections.abc import Mapping
from typing import Final

from sidecar.terminal.asking import NoAnswer
from sidecar.terminal.follow import Follower, Item
from sidecar.terminal.frame import make_frame
from sidecar.terminal.lines import render
from sidecar.terminal.picture import Picture
from sidecar.terminal.screen import Screen, has_colours
from sidecar.terminal.target import Target

FRAME_SECONDS: Final = 0.2
TICK_SECONDS: Final = 1.0
# Of the time that a frame takes; with 100,000 tasks the view must not take a core.
REST_SHARE: Final = 4.0
# What is read and not yet taken in; beyond this the sidecar is let wait.
WAITING_MAX: Final = 5000


def watch_live(target: Target, parameters: list[tuple[str, str]], environ: Mapping[str, str]) -> int:
    """Watch until `q` or Ctrl-C; raises NoAnswer where there is nothing to come back to."""
    screen = Screen(sys.stdin.fileno(), sys.stdout.fileno())
    with screen.opened():
        return _View(screen, target, parameters, has_colours(environ)).run()


class _View:
    def __init__(
        self, screen: Screen, target: Target, parameters: list[tuple[str, str]], colours: bool
    ) -> None:
        self._screen = screen
        self._url = target.url
        self._colours = colours
        self._picture = Picture()
        # What the stream said and nobody has looked at; last of all why it will say no more.
        self._items: queue.Queue[Item | Exception] = queue.Queue(WAITING_MAX)
        self._left = threading.Event()
        self._follower = Follower(target, parameters, self._left.wait)

    def run(self) -> int:
        # A daemon: it may hang in a read of the network, and there is nothing to wait for.
        threading.Thread(target=self._read, name="stream", daemon=True).start()
        try:
            while True:
                began = time.monotonic()
                self._take()
                self._draw()
                took = time.monotonic() - began
                if self._wait(FRAME_SECONDS + took * REST_SHARE):
                    return self._code()
        finally:
            self._left.set()

    def _code(self) -> int:
        # Ctrl-C is how one leaves; who ends it otherwise is told so.
        number = self._screen.ended_by
        return 0 if number in (None, 2) else 128 + int(number or 0)

    def _read(self) -> None:
        try:
            for item in self._follower:
                self._items.put(item)
                if self._left.is_set():
                    return
                self._screen.wake()
        except Exception as error:
            # Of this thread nobody would hear it: whoever takes it raises it again.
            self._items.put(error)
            self._screen.wake()

    def _take(self) -> None:
        # Not more than there were: those that come meanwhile wait for the next frame.
        for _ in range(self._items.qsize()):
            item = self._items.get()
            if isinstance(item, Exception):
                raise item
            self._picture.take(item)
        self._picture.forget_ended()

    def _draw(self) -> None:
        if self._screen.redraw_due:
            self._screen.redraw_due = False
            self._screen.redraw()
        width, height = self._screen.size
        lines = make_frame(self._picture, self._url, width, height)
        dim = self._picture.begun and not self._picture.fresh
        self._screen.draw(
            [
                render(line, width, colours=self._colours, dim=dim and number > 0)
                for number, line in enumerate(lines)
            ]
        )

    def _wait(self, least: float) -> bool:
        """Wait until there is something to draw; tell whether to leave instead."""
        began = time.monotonic()
        while True:
            passed = time.monotonic() - began
            due = least if not self._items.empty() or self._screen.redraw_due else TICK_SECONDS
            if passed >= max(due, least) or self._screen.ended_by is not None:
                return self._screen.ended_by is not None
            ready, _, _ = select.select(
                [self._screen.woken, sys.stdin], [], [], min(max(due, least) - passed, TICK_SECONDS)
            )
            self._screen.quiet()
            if sys.stdin in ready and self._screen.key() in ("", "q", "Q", "\x04"):
                return True


def end_quietly() -> None:
    """Whoever read the output has gone: nothing more is written, and nothing is said of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


__all__ = ["NoAnswer", "end_quietly", "watch_live"]
