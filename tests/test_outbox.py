"""How much of what is to be told goes into one batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from celery_plugin.contract import RECORD_MAX_BYTES
from celery_plugin.operations import Operation, Other, pack
from celery_plugin.outbox import BATCH_BYTES, BATCH_EVENTS, Outbox
from celery_plugin.runs import RunTable
from tests.test_record import RUN


@pytest.mark.parametrize("text", ["a", "a" * 1000, "🎉" * 1000])
def test_a_batch_is_bounded(text: str) -> None:
    """By its events and by its bytes, whatever alphabet they are in; the rest goes with the next ones."""
    outbox, told = Outbox("celery@one", RunTable()), 0
    for number in range(1000):
        outbox.tell(replace(RUN, id=f"one/{number}", task_id=f"{number}", args=text))
    while outbox:
        batch: list[Operation | Other] = []
        outbox.fill(batch)
        steps = [one for one in batch if one.kind == "task"]
        assert BATCH_EVENTS >= len(steps) > 0
        assert sum(map(len, pack(steps))) <= BATCH_BYTES + 2 * RECORD_MAX_BYTES
        told += len(steps)
    assert 1000 == told


def test_what_is_no_text_is_given_up_alone() -> None:
    """The others go, and it is counted: the application gives ids as it likes."""
    outbox = Outbox("celery@one", RunTable())
    number: Any = 123
    outbox.add(Other("progress 123", ("progress", "{}", number)))
    outbox.tell(RUN)
    batch: list[Operation | Other] = []
    outbox.fill(batch)
    assert RUN.task_id == batch[0].of
    assert 1 == outbox.gave_up
    assert not outbox
