"""The writer: one thread that takes what the worker saw to Redis, a batch a call.

Tasks never wait for it: what they do is append to a buffer. It never raises into the worker: a Redis that
is away is logged once, the newest state of each run is kept, bounded, and told when Redis is back.

    observe ─► buffer ─► tracker (runs) ─► outbox (operations) ─► batch ─► record.lua
                                           announcement (open runs) ┘
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from celery_plugin import native
from celery_plugin.capture import Capture
from celery_plugin.contract import encode
from celery_plugin.counting import Counts
from celery_plugin.ends import Ending, dead_workers_ends, stray_ends
from celery_plugin.events import Tracker, end
from celery_plugin.held import held_requests
from celery_plugin.record import tell
from celery_plugin.runs import Run, RunTable
from celery_plugin.script import Answer, Arguments, Operation, Other, Script, one_step, step
from celery_plugin.settings import Settings
from celery_plugin.texts import encode_text
from celery_plugin.worker import WorkerRecord

logger = logging.getLogger("celery_plugin")

# The first event of a quiet moment goes at once; then the writer rests, so that a busy worker pays for one
# call a batch and not for one an event. A fixed rest of 20 ms gives a p99 of 26 ms, of 2 ms one of 4.
REST_SECONDS = 0.002
BUSY_REST_SECONDS = 0.02
BUSY_EVENTS_PER_SECOND = 300.0

# A batch of 10,000 steps blocks Redis for 0.29 s.
BATCH_STEPS = 500
BATCH_BYTES = 256 * 1024

# What waits for a Redis that is away: 10,000 operations are at most 10 MB.
OUTBOX_MAX = 10_000
BUFFER_MAX = 50_000

FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 5.0
LAST_WORDS_SECONDS = 2.0
COMPARE_SECONDS = 1.0

# Our own observation: the worker was told to stop. Celery's worker-offline comes only with a heartbeat.
STOPPING = "stopping"
# Observations that go to Redis as they are: ``{"of": task id or queue, "json": …}``.
PROGRESS = "progress"
DEPTH = "depth"

Observation = tuple[float, str, dict[str, Any], Run | None]


@dataclass
class Batch:
    """One call; a call whose answer was lost is made again as it was, under its number."""

    number: int
    operations: list[Arguments]
    announces: bool


class Writer:
    """Owns the run table and the connection; everything but ``observe`` and ``stop`` runs in its thread."""

    def __init__(self, script: Script, client: Redis, settings: Settings, worker: WorkerRecord) -> None:
        self._script = script
        self._client = client
        self._settings = settings
        self._worker = worker
        self._worker_json = encode_text(worker.hostname)
        self._table = RunTable()
        capture = Capture(settings.capture, settings.capture_max_chars, settings.redact)
        self._tracker = Tracker(self._table, capture)
        self._counts = Counts(worker.hostname)

        self._buffer: deque[Observation] = deque()
        self._overflow = 0
        self._sleeping = False
        self._wake = native.Signal()
        self._started = False
        self._stopping = False
        self._stopped = native.Signal()

        self._outbox: deque[Operation | Other] = deque()
        # Run id → its operation in the outbox, while nothing stands behind that which it must not overtake.
        self._joining: dict[str, Operation] = {}
        self._to_announce: deque[Run] = deque()
        self._look_for_strays = False
        # Ends that others cannot tell any more, as they are found in Redis.
        self._ends: Iterator[Operation | Other] = iter(())
        self._more_ends = False
        self._batch: Batch | None = None
        self._number = 0
        self._epoch: str | None = None
        self._told: dict[str, Any] = {}
        self._announces = False
        self._rested_at = 0.0
        # Each answer renews the lease, so a busy worker is never due for that; its chores are.
        self._renew_at = 0.0
        self._chores_at = 0.0
        self._record_due = False
        self._compare_at = 0.0
        self._retry_at = 0.0
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._away = False

    # -- from any thread of the worker -----------------------------------------------------------

    def start(self) -> None:
        """Start the thread and announce the worker."""
        self._announce()
        self._started = True
        native.start_thread(self._run)

    def observe(self, event: str, fields: dict[str, Any], run: Run | None = None) -> None:
        """Take an event of the worker, or of a run; costs an append and, in a quiet moment, a wake-up."""
        if len(self._buffer) >= BUFFER_MAX:
            self._overflow += 1
            return
        self._buffer.append((time.time(), event, fields, run))
        if self._sleeping:
            self._sleeping = False
            self._wake.set()

    def stop(self) -> None:
        """Tell the last things and give the lease up; waits for it no longer than a moment, and once."""
        running, self._stopping = self._started and not self._stopping, True
        self._wake.set()
        if running:
            self._stopped.wait(LAST_WORDS_SECONDS)

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:
                # A fault of ours must not end the lease of a worker that lives.
                logger.exception("celery_plugin: this batch is given up")
                self._give_up_batch()
        try:
            self._last_words()
        except Exception as error:
            logger.warning("celery_plugin: could not say that the worker ends: %s", error)
        finally:
            self._stopped.set()

    def _turn(self) -> None:
        self._sleep_until_needed()
        events = self._absorb()
        self._compare()
        if time.monotonic() >= self._retry_at:
            self._flush()
        self._rest(events)

    def _sleep_until_needed(self) -> None:
        self._sleeping = True
        held_up = self._away or time.monotonic() < self._retry_at
        ready = self._buffer or (self._pending() and not held_up)
        if not ready and not self._stopping:
            due = self._retry_at if held_up else min(self._renew_at, self._chores_at)
            self._wake.wait(min(due, self._compare_at if len(self._table) else due) - time.monotonic())
        self._sleeping = False

    def _rest(self, events: int) -> None:
        since, self._rested_at = self._rested_at, time.monotonic()
        # One rest is too short a time to call a few events that came together a rate.
        busy = events > BUSY_EVENTS_PER_SECOND * max(self._rested_at - since, BUSY_REST_SECONDS)
        native.sleep(BUSY_REST_SECONDS if busy else REST_SECONDS)

    def _absorb(self) -> int:
        """Turn what was observed into operations; also while Redis is away."""
        events = 0
        while self._buffer and events < BUFFER_MAX:
            events += 1
            self._apply(*self._buffer.popleft())
        if len(self._outbox) > OUTBOX_MAX:
            self._compact()
        return events

    def _apply(self, at: float, event: str, fields: dict[str, Any], run: Run | None) -> None:
        try:
            if run is not None:
                if self._tracker.apply(at, event, run, fields):
                    self._tell(run)
            elif event in (PROGRESS, DEPTH):
                self._joining.clear()
                self._outbox.append(Other(f"{event} {fields['of']}", (event, fields["json"], fields["of"])))
            elif event in (STOPPING, "worker-offline"):
                self._begin_to_stop(at)
        except Exception:
            # One event that is not understood must not hold up the others.
            logger.exception("celery_plugin: an event is given up: %s", event)
            self._overflow += 1

    def _tell(self, run: Run) -> None:
        self._counts.note(run)
        told, operation = tell(run, self._worker_json), self._joining.get(run.id)
        if operation is not None and operation.facts is told.facts and operation.extra is told.extra:
            operation.steps.append(step(run.status, run.updated_at, told))
            return
        operation = one_step("task", run.task_id, run.id, self._worker_json, run.status, run.updated_at, told)
        self._joining[run.id] = operation
        self._outbox.append(operation)

    def _begin_to_stop(self, at: float) -> None:
        """Celery takes nothing more; what still runs may end. The lease stays until the process ends."""
        if self._worker.status == "online":
            self._worker.status, self._chores_at = "stopping", 0.0
        for run in self._tracker.give_back(at):
            self._tell(run)

    def _compare(self) -> None:
        """Look whether Celery still holds what this worker is said to hold."""
        if time.monotonic() < self._compare_at:
            return
        self._compare_at = time.monotonic() + COMPARE_SECONDS
        if len(self._table):
            for run in self._tracker.compare(*held_requests()):
                self._tell(run)

    def _compact(self) -> None:
        """Keep the newest state of each run, and of those the newest that fit; what is open is told again."""
        self._joining.clear()
        newest: dict[str, Operation | Other] = {}
        for operation in self._outbox:
            newest.pop(operation.key, None)
            newest[operation.key] = operation
        kept = list(newest.values())
        surplus = max(0, len(kept) - OUTBOX_MAX // 2)
        self._worker.gave_up += surplus
        self._outbox = deque(kept[surplus:])
        if surplus:
            self._look_for_strays = True
            self._announce()

    def _operation(self, run: Run) -> Operation:
        told = tell(run, self._worker_json)
        return one_step("task", run.task_id, run.id, self._worker_json, run.status, run.updated_at, told)

    # -- to Redis ----------------------------------------------------------------------------------

    def _pending(self) -> bool:
        return bool(self._untold() or self._look_for_strays or self._more_ends)

    def _untold(self) -> bool:
        return bool(self._batch or self._announces or self._outbox or self._to_announce or self._counts)

    def _flush(self) -> None:
        try:
            while self._pending() or time.monotonic() >= min(self._renew_at, self._chores_at):
                if time.monotonic() >= self._chores_at:
                    self._begin_chores()
                if not self._untold():
                    self._find_ends()
                self._batch = self._batch or self._next_batch()
                self._on_answer(self._batch, self._call(self._batch))
        except RedisError as error:
            self._on_failure(error)
        except OSError as error:
            self._on_failure(error)

    def _begin_chores(self) -> None:
        """What is due beside the lease: the worker's own record, and a look for workers that are dead."""
        self._chores_at = time.monotonic() + self._settings.lease_renew_seconds
        self._record_due = True
        if not self._stopping:
            self._ends = dead_workers_ends(self._client, self._script.keys, self._worker.worker_id)
            self._more_ends = True

    def _find_ends(self) -> None:
        """Fetch the next ends that others cannot tell; of one search after the other."""
        if self._look_for_strays:
            held = {run.id for run in self._table}
            ending = Ending("end", "end_not_seen", time.time())
            worker = self._worker
            found = stray_ends(
                self._client, self._script.keys, worker.worker_id, worker.hostname, held, ending
            )
            self._outbox += list(found)
            self._look_for_strays = False
        found_now = list(islice(self._ends, BATCH_STEPS))
        self._more_ends = len(found_now) == BATCH_STEPS
        self._outbox += found_now

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

    def _next_batch(self) -> Batch:
        batch = self._empty_batch()
        self._joining.clear()
        size = steps = 0
        for operation in self._take():
            batch.operations.append(operation.arguments())
            steps += len(operation.steps)
            size += sum(map(len, batch.operations[-1]))
            if steps >= BATCH_STEPS or size >= BATCH_BYTES:
                break
        batch.operations += [operation.arguments() for operation in self._counts.take()]
        return batch

    def _empty_batch(self) -> Batch:
        """Number a batch; the worker's record stands first in it where it is due."""
        record = self._due_record()
        announces, self._announces = self._announces, False
        self._number += 1
        return Batch(self._number, record, announces)

    def _take(self) -> Iterator[Operation | Other]:
        while self._outbox:
            yield self._outbox.popleft()
        while self._to_announce:
            run = self._to_announce.popleft()
            if run.finished_at is None:
                yield self._operation(run)

    def _on_answer(self, batch: Batch, answer: Answer) -> None:
        self._batch = None
        self._renew_at = time.monotonic() + self._settings.lease_renew_seconds
        if self._away:
            logger.warning("celery_plugin: Redis is back")
        self._away, self._retry_at, self._retry_seconds = False, 0.0, FIRST_RETRY_SECONDS
        # What was answered to a batch that counts already, nobody has heard.
        unknown = answer.verdict != "applied" or answer.position.epoch != self._epoch
        self._epoch = answer.position.epoch
        if unknown and not batch.announces:
            self._announce()
            self._look_for_strays = True
        if answer.verdict == "refused":
            self._batch = self._behind_record(batch)

    def _behind_record(self, refused: Batch) -> Batch:
        self._announces = True
        batch = self._empty_batch()
        batch.operations += refused.operations
        return batch

    def _on_failure(self, error: Exception) -> None:
        if not self._away:
            logger.warning(
                "celery_plugin: cannot write to Redis, tasks go on without being shown; trying again: %s",
                error,
            )
        self._away, self._more_ends = True, False
        self._client.close()
        self._retry_at = time.monotonic() + self._retry_seconds * random.uniform(0.5, 1.0)
        self._retry_seconds = min(self._retry_seconds * 2, LAST_RETRY_SECONDS)

    def _give_up_batch(self) -> None:
        self._worker.gave_up += len(self._batch.operations) if self._batch else 0
        self._batch = None
        self._retry_at = time.monotonic() + LAST_RETRY_SECONDS
        self._look_for_strays = True
        self._announce()

    # -- what Redis should know --------------------------------------------------------------------

    def _announce(self) -> None:
        """Say all that this worker has; what Redis knows already becomes no event."""
        self._announces = True
        self._to_announce = deque(self._table)

    def _due_record(self) -> list[Arguments]:
        if not (self._announces or self._record_due):
            return []
        self._record_due = False
        if self._overflow:
            self._worker.gave_up, self._overflow = self._worker.gave_up + self._overflow, 0
            self._look_for_strays = True
        members = self._worker.members()
        if not self._announces and members == self._told:
            return []
        self._told = members
        rest = encode({**members, "timestamp": round(time.time(), 6)})[1:-1]
        return [Other("worker", ("worker", rest)).arguments()]

    def _last_words(self) -> None:
        self._absorb()
        if self._away:
            return
        now = time.time()
        for run in self._table.close_all():
            # What was only held goes back to the broker; what ran ends with its process.
            back = run.started_at is None
            run.reason = None if back else "worker_exited"
            run.runtime = None if run.started_at is None else now - run.started_at
            self._tell(end(run, "pending" if back else "lost", now))
        self._to_announce.clear()
        self._look_for_strays = self._more_ends = False
        self._worker.status = "offline"
        self._chores_at = 0.0
        self._flush()
        if not self._away:
            self._number += 1
            self._call(Batch(self._number, [], announces=False), lease=0)
