"""Several processes behind one port: a parent that serves nobody starts them, replaces those that die, and
waits for them when it is told to stop.

Not uvicorn's own supervisor, on purpose: it serves an application that can be pickled, while ours is made
inside its event loop; it starts the next process at once, however often the last ones died; and it passes
signals on as signals. A terminal, and systemd, signal every process themselves, so a child would take the
parent's for the second one, with which it stops waiting. Here each child has a line to its parent, and the
parent alone counts.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from types import FrameType

import anyio

logger = logging.getLogger(__name__)

# Before the next one comes; doubled with each death in a row. Who has lived for so long begins a new row.
FIRST_DELAY_SECONDS = 0.5
LAST_DELAY_SECONDS = 30.0
SETTLED_SECONDS = 60.0
# What a process that hurries may still take.
HURRY_SECONDS = 3.0
_WORD = b"."
# The parent has one thread and no event loop, which is what makes a fork safe.
_FORK = multiprocessing.get_context("fork")


class Line:
    """A child's end of the line to its parent."""

    def __init__(self, end: socket.socket, number: int) -> None:
        self._end = end
        # The place that this child has among the others, from 0.
        self.number = number

    def say_listening(self) -> None:
        """Tell the parent that this child serves."""
        self._end.send(_WORD)

    async def obey(self, leave: Callable[[], None], hurry: Callable[[], None]) -> None:
        """Leave with the first word from the parent, or when there is no parent any more; then hurry."""
        told = await self._hear()
        leave()
        while told:
            told = await self._hear()
            if told:
                hurry()

    async def _hear(self) -> bytes:
        await anyio.wait_readable(self._end)
        return self._end.recv(1)


Serve = Callable[[Line], int]


class Child:
    """The parent's view of a process."""

    def __init__(self, number: int, serve: Serve, not_its_own: Sequence[socket.socket]) -> None:
        self.name = _name(number)
        self.listens = False
        self.started_at = time.monotonic()
        self.line, end = socket.socketpair()
        self.line.setblocking(False)
        # If a child held its parent's ends, no child would notice that the parent has gone.
        not_its_own = [*not_its_own, self.line]
        arguments = (serve, end, number, not_its_own)
        self.process = _FORK.Process(name=self.name, target=_run_child, args=arguments)
        with end:
            try:
                self.process.start()
            except OSError:
                self.line.close()
                raise

    def hear(self) -> None:
        """Take what it says: that it listens."""
        # Raised where it has said nothing so far, or has died.
        with suppress(BlockingIOError, ConnectionResetError):
            self.listens = self.listens or self.line.recv(1) == _WORD

    def tell_to_leave(self) -> None:
        """Let it end its streams; told again, it does not wait for them."""
        with suppress(OSError):  # it may have just ended
            self.line.send(_WORD)

    def end(self) -> str | None:
        """Say how it has ended, or None while it runs."""
        code = self.process.exitcode
        if code is None:
            return None
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def close(self) -> None:
        """Let go of one that has ended."""
        self.line.close()
        self.process.close()


@dataclass
class Place:
    """One of so many: the process that there is, or when the next one is due."""

    number: int
    child: Child | None = None
    deaths: int = 0
    due_at: float = 0.0

    @property
    def name(self) -> str:
        """What the log calls it."""
        return _name(self.number)


class Supervisor:
    """The parent."""

    def __init__(self, count: int, serve: Serve, patience: float) -> None:
        self._serve = serve
        self._patience = patience
        self._places = [Place(number) for number in range(count)]
        self._leaves = False
        self._kill_at = 0.0
        self._code = 0
        # Signals that have not been passed on.
        self._signals: list[int] = []
        # A signal makes one end readable, or nothing would wake `wait`.
        self._woken, self._waker = socket.socketpair()

    def run(self) -> int:
        """Supervise until all have ended, and return the exit code."""
        with self._woken, self._waker, self._catching_signals():
            while self._children() or not self._leaves:
                self._start_due()
                self._wait()
                self._pass_signals_on()
                for place in self._places:
                    self._look_after(place)
                self._kill_late()
        return self._code

    def _children(self) -> list[Child]:
        return [place.child for place in self._places if place.child is not None]

    def _start_due(self) -> None:
        for place in self._places:
            if place.child is None and place.due_at <= time.monotonic() and not self._leaves:
                lines = [child.line for child in self._children()]
                try:
                    place.child = Child(place.number, self._serve, [self._woken, self._waker, *lines])
                except OSError as error:
                    self._replace(place, f"cannot be started: {error.strerror}", served=False, lived=0)

    def _wait(self) -> None:
        children = self._children()
        sentinels = [child.process.sentinel for child in children]
        lines = [child.line for child in children if not child.listens]
        due = [self._kill_at] if self._leaves else [each.due_at for each in self._places if not each.child]
        wait([self._woken, *sentinels, *lines], max(0.0, min(due) - time.monotonic()) if due else None)

    def _pass_signals_on(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(100)
        while self._signals:
            number = self._signals.pop(0)
            logger.info("told to stop by %s%s", signal.Signals(number).name, " again" * self._leaves)
            self._leave()

    def _leave(self) -> None:
        self._kill_at = time.monotonic() + (HURRY_SECONDS if self._leaves else self._patience)
        self._leaves = True
        for child in self._children():
            child.tell_to_leave()

    def _look_after(self, place: Place) -> None:
        child = place.child
        if child is None:
            return
        child.hear()
        how = child.end()
        if how is None:
            return
        if not self._leaves:
            self._replace(place, how, served=child.listens, lived=time.monotonic() - child.started_at)
        elif child.process.exitcode:
            logger.error("%s %s", place.name, how)
            self._code = 1
        place.child = None
        child.close()

    def _replace(self, place: Place, how: str, *, served: bool, lived: float) -> None:
        """Let another one come, after a while; give up where none has come to serve."""
        if not served and not any(child.listens for child in self._children()):
            logger.error("%s %s before it listened, and no other one does", place.name, how)
            self._code = 1
            self._leave()
            return
        place.deaths = 1 if lived >= SETTLED_SECONDS else place.deaths + 1
        delay = min(LAST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** (place.deaths - 1))
        place.due_at = time.monotonic() + delay
        logger.error("%s %s; the next one comes in %g s", place.name, how, delay)

    def _kill_late(self) -> None:
        if self._leaves and time.monotonic() >= self._kill_at:
            for child in self._children():
                logger.error("%s does not end", child.name)
                child.process.kill()
                child.process.join()

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno())
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)


def run(count: int, serve: Serve, patience: float) -> int:
    """Run ``serve`` in so many processes until SIGTERM or SIGINT, and return the exit code.

    One that has not ended ``patience`` seconds after that is killed.
    """
    return Supervisor(count, serve, patience).run()


def _name(number: int) -> str:
    return f"process-{number + 1}"


def _run_child(serve: Serve, end: socket.socket, number: int, not_its_own: Sequence[socket.socket]) -> None:
    signal.set_wakeup_fd(-1)
    # What reaches every process alike the parent passes on; the server takes SIGTERM once it is there.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    for each in not_its_own:
        each.close()
    try:
        code = serve(Line(end, number))
    except Exception:
        logger.exception("a fault of the sidecar's own")
        code = 1
    sys.exit(code)
