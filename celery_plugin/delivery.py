"""Batches on their way to Redis: numbered, sent again as they were, and taken apart where Redis refuses one.

outbox ─► batch ─► record.lua ─► applied
            ▲ │                  unknown, duplicate, another epoch: Redis has lost track of this worker
            │ │                  refused: again, behind the worker's record
            │ └─ an error that may be the batch's ─► halves ─► what is refused alone is given up
            └─── any other error: again, later
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from celery_plugin.contract import encode
from celery_plugin.operations import Operation, Other
from celery_plugin.outbox import Outbox
from celery_plugin.script import Answer, Script
from celery_plugin.settings import Settings
from celery_plugin.trouble import UNKNOWN, Trouble, kind_of
from celery_plugin.worker import WorkerRecord


@dataclass
class Batch:
    """One call; a call whose answer was lost is made again as it was, under its number."""

    number: int
    operations: list[Operation | Other]
    announces: bool = False
    # What is left of one that Redis refused, to find what it is that Redis refuses.
    suspect: bool = False


class Delivery:
    """Sends one batch after the other. Belongs to the writer's thread."""

    def __init__(
        self, script: Script, client: Redis, settings: Settings, worker: WorkerRecord, trouble: Trouble
    ) -> None:
        self._script = script
        self._client = client
        self._settings = settings
        self._worker = worker
        self._trouble = trouble
        self._batch: Batch | None = None
        self._suspects: deque[list[Operation | Other]] = deque()
        self._number = 0
        self._epoch: str | None = None
        self._announces = False
        self._record_due = False
        self._told: dict[str, Any] = {}
        # This machine's clock less Redis's, when the worker was announced last.
        self._clock_ahead: float | None = None

    @property
    def waits(self) -> bool:
        """Whether there is something to send beside what stands in the outbox."""
        return bool(self._batch or self._suspects or self._announces)

    def announce(self) -> None:
        """Begin the next batch with the worker's record."""
        self._announces = True

    def tell_changes(self) -> None:
        """Begin the next batch with the worker's record if that has changed."""
        self._record_due = True

    def send(self, outbox: Outbox) -> bool:
        """Send the next batch; return whether Redis has lost track of this worker. Keeps it if it raises."""
        batch = self._batch = self._batch or self._next_batch(outbox)
        try:
            answer = self._call(batch)
        except ResponseError as error:
            if kind_of(error) != UNKNOWN or not self._take_apart(batch, error):
                raise
            return False
        return self._on_answer(batch, answer)

    def end_lease(self) -> None:
        """Say that the worker has ended."""
        self._number += 1
        self._call(Batch(self._number, []), lease=0)

    def give_up_batch(self) -> None:
        """Send something else next time."""
        self._worker.gave_up += len(self._batch.operations) if self._batch else 0
        self._batch = None

    def _call(self, batch: Batch, lease: float | None = None) -> Answer:
        return self._script.call(
            self._client,
            worker_id=self._worker.worker_id,
            number=batch.number,
            lease_seconds=self._settings.lease_seconds if lease is None else lease,
            settings=self._settings,
            epoch_if_needed=secrets.token_hex(8),
            operations=batch.operations,
        )

    def _next_batch(self, outbox: Outbox) -> Batch:
        if self._suspects:
            self._number += 1
            return Batch(self._number, self._suspects.popleft(), suspect=True)
        batch = self._empty_batch()
        outbox.fill(batch.operations)
        return batch

    def _empty_batch(self) -> Batch:
        """Number a batch; the worker's record stands first in it where it is due."""
        record = self._due_record()
        announces, self._announces = self._announces, False
        self._number += 1
        return Batch(self._number, record, announces)

    def _due_record(self) -> list[Operation | Other]:
        if not (self._announces or self._record_due):
            return []
        if self._announces:
            # First: where this fails the record is still due.
            self._clock_ahead = self._measure_clock()
        self._record_due = False
        members = self._worker.members()
        if not self._announces and members == self._told:
            return []
        self._told = members
        moment = {"clock_ahead_s": self._clock_ahead, "timestamp": round(time.time(), 6)}
        rest = encode(members | moment)[1:-1]
        return [Other("worker", ("worker", rest))]

    def _measure_clock(self) -> float:
        before = time.time()
        seconds, micros = self._client.time()
        return round((before + time.time()) / 2 - seconds - micros / 1e6, 3)

    def _on_answer(self, batch: Batch, answer: Answer) -> bool:
        self._batch = self._behind_record(batch) if answer.verdict == "refused" else None
        self._trouble.on_answer(answer.trouble, any_operations=bool(batch.operations))
        # What was answered to a batch that counts already, nobody has heard.
        unknown = answer.verdict != "applied" or answer.position.epoch != self._epoch
        self._epoch = answer.position.epoch
        return unknown and not batch.announces

    def _behind_record(self, refused: Batch) -> Batch:
        self._announces = True
        batch = self._empty_batch()
        batch.operations += refused.operations
        batch.suspect = refused.suspect
        return batch

    def _take_apart(self, batch: Batch, error: Exception) -> bool:
        """Look for what Redis refuses and give up that alone; False where Redis refuses any batch."""
        operations = batch.operations
        # Without the worker's record nothing counts, so that is not given up.
        if all(one.kind == "worker" for one in operations):
            return False
        self._batch = None
        if not batch.suspect:
            # Does it take an empty one?
            self._suspects.extendleft((operations, []))
        elif len(operations) > 1:
            half = len(operations) // 2
            self._suspects.extendleft((operations[half:], operations[:half]))
        else:
            self._worker.gave_up += 1
            self._trouble.on_given_up(operations[0], error)
        return True
