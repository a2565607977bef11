"""Threads and clocks of the operating system, also where gevent or eventlet has replaced Python's.

A greenlet's thread stands still while another greenlet computes (measured: 5 s under a busy task), and a
lease that is not renewed says that the worker is dead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any


def _original(module: str, name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None:
        return getattr(patcher.original(module), name)
    return getattr(import_module(module), name)


def start_thread(target: Callable[[], None]) -> None:
    """Run the target in a daemon thread of the operating system."""
    _original("_thread", "start_new_thread")(target, ())


def sleep(seconds: float) -> None:
    """Block this thread, and only this one."""
    _original("time", "sleep")(seconds)


class Signal:
    """Wakes one waiting thread; a signal set while nobody waits is kept, a second one is not."""

    def __init__(self) -> None:
        self._lock = _original("_thread", "allocate_lock")()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the waiter; cheap, and never blocks."""
        # An error says that it is set already.
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Wait until it is set; return whether it was."""
        return bool(self._lock.acquire(timeout=max(0.0, seconds)))
