"""The writer: one thread that takes what the worker saw to Redis, a batch a call.

Tasks never wait for it: what they do is append to a buffer. It never raises into the worker: a Redis that
is away is logged once, the newest state of each run is kept, bounded, and told when Redis is back.

    observe ─► buffer ─► tracker (runs) ─► outbox ─► delivery ─► record.lua
                                             ▲
                              search (ends that nobody tells)
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from celery_plugin import native
from celery_plugin.capture import Capture
from celery_plugin.delivery import Delivery
from celery_plugin.events import Tracker, end
from celery_plugin.held import held_requests
from celery_plugin.operations import Other
from celery_plugin.outbox import OUTBOX_MAX, Outbox
from celery_plugin.pace import Pace
from celery_plugin.runs import Run, RunTable
from celery_plugin.script import Script
from celery_plugin.search import Search
from celery_plugin.settings import Settings
from celery_plugin.trouble import Trouble
from celery_plugin.worker import WorkerRecord

logger = logging.getLogger("celery_plugin")

BUFFER_MAX = 50_000
# At a time, so that a burst cannot fill the outbox before it is compacted.
ABSORB_MAX = OUTBOX_MAX // 2

FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 5.0
LAST_WORDS_SECONDS = 2.0
COMPARE_SECONDS = 1.0

# Our own observations: the worker was told to stop; it has lost the broker, and with it what it had fetched.
STOPPING = "stopping"
UNFETCHED = "unfetched"
# Observations that go to Redis as they are: ``{"of": task id or queue, "json": …}``.
PROGRESS = "progress"
DEPTH = "depth"

# One for all that say nothing more: while Redis hangs thousands of them wait.
_NOTHING: dict[str, Any] = {}
Observation = tuple[float, str, dict[str, Any], Run | None]
# How the parts of the plugin that know no run tell something.
Observe = Callable[[str, dict[str, Any]], None]


class Writer:
    """Owns the run table and the connection; everything but ``observe`` and ``stop`` runs in its thread."""

    def __init__(self, script: Script, client: Redis, settings: Settings, worker: WorkerRecord) -> None:
        self._client = client
        self._settings = settings
        self._worker = worker
        self._table = RunTable()
        capture = Capture(settings.capture, settings.capture_max_chars, settings.redact)
        self._tracker = Tracker(self._table, capture)

        self._buffer: deque[Observation] = deque()
        self._overflow = 0
        self._sleeping = False
        self._wake = native.Signal()
        self._started = False
        self._stopping = False
        self._stopped = native.Signal()

        self._outbox = Outbox(worker.hostname, self._table)
        self._trouble = Trouble(script, client, settings.lease_seconds)
        self._delivery = Delivery(script, client, settings, worker, self._trouble)
        self._search = Search(client, script.keys, worker, settings.lease_renew_seconds)
        self._pace = Pace()
        # Each answer renews the lease, so a busy worker is never due for that; its chores are.
        self._renew_at = 0.0
        self._chores_at = 0.0
        self._compare_at = 0.0
        self._retry_at = 0.0
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._last_retry_seconds = min(LAST_RETRY_SECONDS, settings.lease_renew_seconds)

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
        self._buffer.append((time.time(), event, fields or _NOTHING, run))
        if self._sleeping:
            self._sleeping = False
            self._wake.set()

    def stop(self) -> None:
        """Tell the last things and give the lease up; waits for it no longer than a moment, and once."""
        running, self._stopping = self._started and not self._stopping, True
        self._wake.set()
        if running:
            self._stopped.wait(LAST_WORDS_SECONDS)

    @property
    def backlog(self) -> tuple[int, int]:
        """How many events wait to be looked at, and how many operations to be told."""
        return len(self._buffer), len(self._outbox)

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
        while self._trouble.away and self._buffer:
            # All of it: less is kept of what was looked at than waits to be.
            events += self._absorb()
        self._compare()
        if time.monotonic() >= self._retry_at:
            self._flush()
        native.sleep(self._pace.rest(events, time.monotonic()))

    def _sleep_until_needed(self) -> None:
        self._sleeping = True
        held_up = self._trouble.away or time.monotonic() < self._retry_at
        ready = self._buffer or (self._pending() and not held_up)
        if not ready and not self._stopping:
            due = self._retry_at if held_up else min(self._renew_at, self._chores_at)
            self._wake.wait(min(due, self._compare_at if len(self._table) else due) - time.monotonic())
        self._sleeping = False

    def _absorb(self) -> int:
        """Turn what was observed into operations, not all at once."""
        events, buffer = 0, self._buffer
        while buffer and events < ABSORB_MAX:
            events += 1
            at, event, fields, run = buffer.popleft()
            try:
                if run is None:
                    self._apply(at, event, fields)
                    continue
                if run.finished_at is not None:
                    self._outbox.before_end_changes(run)
                if self._tracker.apply(at, event, run, fields):
                    self._outbox.tell(run)
            except Exception:
                # One event that is not understood must not hold up the others.
                logger.exception("celery_plugin: an event is given up: %s", event)
                self._overflow += 1
        if len(self._outbox) > OUTBOX_MAX:
            self._compact()
        return events

    def _apply(self, at: float, event: str, fields: dict[str, Any]) -> None:
        if event in (PROGRESS, DEPTH):
            self._outbox.add(Other(f"{event} {fields['of']}", (event, fields["json"], fields["of"])))
        elif event in (STOPPING, UNFETCHED):
            self._give_back(at, stops=event == STOPPING)

    def _give_back(self, at: float, *, stops: bool) -> None:
        """What was fetched goes back; what runs may end. The lease stays until the process ends."""
        if stops and self._worker.status == "online":
            self._worker.status, self._chores_at = "stopping", 0.0
        for run in self._tracker.give_back(at):
            self._outbox.tell(run)

    def _compare(self) -> None:
        """Look whether Celery still holds what this worker is said to hold."""
        if time.monotonic() < self._compare_at:
            return
        self._compare_at = time.monotonic() + COMPARE_SECONDS
        if len(self._table):
            for run in self._tracker.compare(*held_requests()):
                self._outbox.tell(run)

    def _compact(self) -> None:
        surplus = self._outbox.compact()
        self._worker.gave_up += surplus
        if surplus:
            self._search.look_for_strays()
            self._announce()

    # -- to Redis ----------------------------------------------------------------------------------

    def _pending(self) -> bool:
        return self._untold() or self._search.due

    def _untold(self) -> bool:
        return self._delivery.waits or bool(self._outbox)

    def _flush(self) -> None:
        try:
            while self._pending() or time.monotonic() >= min(self._renew_at, self._chores_at):
                self._count_overflow()
                if time.monotonic() >= self._chores_at:
                    self._begin_chores()
                if self._search.due and not self._untold():
                    self._outbox.extend(self._search.step({run.id for run in self._table}))
                self._send()
        except RedisError as error:
            self._on_failure(error)
        except OSError as error:
            self._on_failure(error)

    def _send(self) -> None:
        lost_track = self._delivery.send(self._outbox)
        self._renew_at = time.monotonic() + self._settings.lease_renew_seconds
        self._retry_at, self._retry_seconds = 0.0, FIRST_RETRY_SECONDS
        if lost_track:
            self._announce()
            self._search.look_for_strays()

    def _count_overflow(self) -> None:
        if gave_up := self._overflow + self._outbox.gave_up:
            self._overflow = self._outbox.gave_up = 0
            self._worker.gave_up += gave_up
            self._search.look_for_strays()

    def _begin_chores(self) -> None:
        """What is due beside the lease: the worker's own record, and a look for workers that are dead."""
        self._chores_at = time.monotonic() + self._settings.lease_renew_seconds
        self._delivery.tell_changes()
        if not self._stopping:
            self._search.look_for_dead_workers()

    def _on_failure(self, error: Exception) -> None:
        self._trouble.on_failure(error)
        self._search.break_off()
        self._client.close()
        self._retry_at = time.monotonic() + self._retry_seconds * random.uniform(0.5, 1.0)
        self._retry_seconds = min(self._retry_seconds * 2, self._last_retry_seconds)

    def _give_up_batch(self) -> None:
        self._delivery.give_up_batch()
        self._retry_at = time.monotonic() + LAST_RETRY_SECONDS
        self._search.look_for_strays()
        self._announce()

    def _announce(self) -> None:
        """Say all that this worker has."""
        self._delivery.announce()
        self._outbox.announce()

    def _last_words(self) -> None:
        while self._buffer:
            self._absorb()
        if self._trouble.away:
            return
        now = time.time()
        for run in self._table.close_all():
            # What was only held goes back to the broker; what ran ends with its process.
            back = run.started_at is None
            run.reason = None if back else "worker_exited"
            run.runtime = None if run.started_at is None else now - run.started_at
            self._outbox.tell(end(run, "pending" if back else "lost", now))
        self._outbox.drop_announcement()
        self._search.stop()
        self._worker.status = "offline"
        self._chores_at = 0.0
        self._flush()
        if not self._trouble.away:
            self._delivery.end_lease()
