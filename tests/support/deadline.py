"""The only place where tests wait by the clock."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

# Far beyond what anything here takes, so that a test fails by this only when something is broken,
# also on a machine that is busy with other tests.
PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.005


def eventually(predicate: Callable[[], T], seconds: float = PATIENCE_SECONDS, what: str = "") -> T:
    """Call until the answer is true, and return it; fail when that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        answer = predicate()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(_too_late(predicate, answer, seconds, what))
        time.sleep(_POLL_SECONDS)


async def eventually_async(
    predicate: Callable[[], Awaitable[T]], seconds: float = PATIENCE_SECONDS, what: str = ""
) -> T:
    """Await until the answer is true, and return it; fail when that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await predicate()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(_too_late(predicate, answer, seconds, what))
        await anyio.sleep(_POLL_SECONDS)


def _too_late(predicate: object, answer: object, seconds: float, what: str) -> str:
    return f"not within {seconds:g} s: {what or predicate}; the last answer was {answer!r}"
