"""Who asks at the same time is answered together, each with what stood in Redis after it asked."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sidecar import together as together_module
from sidecar.store import StoreUnavailable
from sidecar.together import Together


class Kept:
    """Answers when it is let, and remembers what it was asked."""

    def __init__(self) -> None:
        self.questions: list[list[str]] = []
        self.records: dict[str, bytes] = {}
        self.may_answer = anyio.Event()
        self.error: StoreUnavailable | None = None

    async def ended(self, task_ids: list[str]) -> dict[str, bytes]:
        """The records."""
        self.questions.append(task_ids)
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return {task_id: self.records[task_id] for task_id in task_ids if task_id in self.records}


async def ask(together: Together[bytes], task_id: str, answers: dict[str, Any]) -> None:
    """Ask, and keep the answer or the error."""
    try:
        answers[task_id] = await together.find(task_id)
    except StoreUnavailable as error:
        answers[task_id] = error


async def asked(store: Any, *task_ids: str) -> dict[str, Any]:
    """Let all ask, the first of them a step before the others."""
    together, answers = Together(store.ended), dict[str, Any]()
    async with anyio.create_task_group() as tasks:
        for task_id in task_ids:
            tasks.start_soon(ask, together, task_id, answers)
        while not store.questions:
            await anyio.lowlevel.checkpoint()
        store.may_answer.set()
    return answers


async def test_together() -> None:
    """All who come while a question is open are the next one; each has its own answer."""
    store = Kept()
    store.records = {"b": b"B", "c": b"C"}
    assert {"a": None, "b": b"B", "c": b"C"} == await asked(store, "a", "b", "c")
    assert ["a", "b", "c"] == [task_id for question in store.questions for task_id in question]
    assert len(store.questions) <= 2


async def test_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question is of bounded size."""
    monkeypatch.setattr(together_module, "BATCH_IDS", 3)
    store = Kept()
    names = [f"t{number}" for number in range(10)]
    assert set(names) == set(await asked(store, *names))
    assert max(map(len, store.questions)) <= 3


async def test_away() -> None:
    """All are told when Redis is away, by one question, and who asks later asks anew."""
    store: Any = Kept()
    store.error = StoreUnavailable("away")
    answers = await asked(store, "a", "b", "c")
    assert [store.error] * 3 == list(answers.values())
    assert len(store.questions) <= 2


async def test_one_that_gives_up() -> None:
    """Who asked for all and has gone does not leave the others without an answer."""
    store: Any = Kept()
    together, answers = Together(store.ended), dict[str, Any]()
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as first:
            first.start_soon(ask, together, "a", answers)
            while not store.questions:
                await anyio.lowlevel.checkpoint()
            tasks.start_soon(ask, together, "b", answers)
            await anyio.lowlevel.checkpoint()
            first.cancel_scope.cancel()
        store.may_answer.set()
    assert {"b": None} == answers
