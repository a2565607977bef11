"""Measures again and again how many messages wait in a broker, in a native thread of its own.

Nobody waits for the thread, neither a task nor the end of the process: where the broker hangs, so does this
thread alone, until the broker has been silent for `askers.SILENCE_SECONDS`. Under gevent the sockets of this
thread are gevent's, with an event loop of their own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol

from celery_plugin import native
from celery_plugin.askers import Asker

LAST_RETRY_SECONDS = 30.0
# Kept open longer without a word, a connection is one that firewalls and brokers drop.
IDLE_SECONDS = 30.0

# A connection of kombu's, still closed, and what makes who asks over it once it is open.
Found = tuple[Any, Callable[[Any], Asker]]


class Listener(Protocol):
    """Is told in the thread what comes of it."""

    def find(self) -> Found | None:
        """Say how to ask; None where nobody needs to, or can."""
        ...

    def on_depth(self, queue: str, pending: int | None) -> None:
        """Take a depth; None where the broker does not know the queue."""
        ...

    def on_away(self, reason: str) -> None:
        """Hear that the broker could not be asked; once until it can be."""
        ...

    def on_back(self) -> None:
        """Hear that it can be asked again."""
        ...

    def on_fault(self) -> None:
        """Hear, inside the `except`, that nothing is measured any more."""
        ...


class Meter:
    """Measures at each interval; all but ``start`` and ``stop`` runs in its thread."""

    def __init__(self, listener: Listener, every_seconds: float) -> None:
        self._listener = listener
        self._every_seconds = every_seconds
        self._connection: Any = None
        self._asker: Asker | None = None
        self._away = False
        self._retry_seconds = every_seconds
        self._wake = native.Signal()
        self._stopping = False

    def start(self) -> None:
        """Start the thread."""
        native.start_thread(self._run)

    def stop(self) -> None:
        """Let the thread close its connection; nobody waits for that."""
        self._stopping = True
        self._wake.set()

    def _run(self) -> None:
        try:
            found = self._listener.find()
            if found is not None:
                self._connection, make_asker = found
                self._measure_until_stopped(make_asker)
        except Exception:
            # Where the broker's driver is odd, the depths are missing, and nothing else.
            self._listener.on_fault()

    def _measure_until_stopped(self, make_asker: Callable[[Any], Asker]) -> None:
        while not self._stopping:
            self._wake.wait(self._round(make_asker))
        self._connection.release()

    def _round(self, make_asker: Callable[[Any], Asker]) -> float:
        """Measure once; return after how many seconds to measure again."""
        try:
            if self._asker is None:
                # One more attempt: it goes to the next URL where there are several.
                self._connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
                self._asker = make_asker(self._connection)
            for queue, pending in self._depths(self._asker):
                self._listener.on_depth(queue, pending)
        except Exception as error:
            return self._on_failure(error)
        return self._on_success()

    def _depths(self, asker: Asker) -> Iterator[tuple[str, int | None]]:
        for queue in asker.queues():
            if self._stopping:
                return
            yield queue, asker.pending(queue)

    def _on_success(self) -> float:
        if self._away:
            self._listener.on_back()
        self._away, self._retry_seconds = False, self._every_seconds
        if self._every_seconds > IDLE_SECONDS:
            self._disconnect()
        return self._every_seconds

    def _on_failure(self, error: Exception) -> float:
        if not self._away and not self._stopping:
            self._listener.on_away(self._without_password(error))
        self._away = True
        self._disconnect()
        seconds = self._retry_seconds * random.uniform(0.5, 1.0)
        self._retry_seconds = min(self._retry_seconds * 2, max(LAST_RETRY_SECONDS, self._every_seconds))
        return seconds

    def _disconnect(self) -> None:
        asker, self._asker = self._asker, None
        with suppress(Exception):  # It is broken anyway.
            if asker is not None:
                asker.drop()
            self._connection.release()

    def _without_password(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        password = self._connection.password
        return text.replace(password, "***") if isinstance(password, str) and password else text
