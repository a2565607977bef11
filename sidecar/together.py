"""Asks one question for all who ask at the same time.

After a restart thousands of streams of one task each open at once. With a question each they would take all
connections to Redis, and whoever else asks, the subscriber too, would take Redis for away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import anyio

Answer = TypeVar("Answer")

# About 500 KB in one answer, where each is a record.
BATCH_IDS = 500


class _Batch(Generic[Answer]):
    """Ids that are asked for together; each who asks waits until their batch has been answered."""

    def __init__(self) -> None:
        self.ids: dict[str, None] = {}
        self.answers: Mapping[str, Answer] | None = None
        self.error: Exception | None = None


class Together(Generic[Answer]):
    """Asks one question at a time, each of up to BATCH_IDS ids; ``ask`` leaves out what it did not find."""

    def __init__(self, ask: Callable[[list[str]], Awaitable[Mapping[str, Answer]]]) -> None:
        self._ask = ask
        # The one that has not been asked.
        self._next: _Batch[Answer] = _Batch()
        self._asking = anyio.Lock()

    async def find(self, wanted: str) -> Answer | None:
        """What there is under an id, looked for after this was called; raises what the question raises."""
        if len(self._next.ids) >= BATCH_IDS:
            self._next = _Batch()
        batch = self._next
        batch.ids[wanted] = None
        async with self._asking:
            if batch.answers is None and batch.error is None:
                await self._answer(batch)
        if batch.error is not None:
            raise batch.error
        return (batch.answers or {}).get(wanted)

    async def _answer(self, batch: _Batch[Answer]) -> None:
        if self._next is batch:
            self._next = _Batch()
        try:
            batch.answers = await self._ask(list(batch.ids))
        except Exception as error:  # it is everybody's who asked
            batch.error = error
