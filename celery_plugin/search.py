"""The search in Redis for ends that nobody tells, as far as this worker is due to make it.

It is made between batches, and what is wrong with it holds up none of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Set
from itertools import chain, islice

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from celery_plugin.contract import Keys
from celery_plugin.ends import Ending, counters_of_gone_hosts, dead_workers_ends, stray_ends
from celery_plugin.operations import Operation, Other
from celery_plugin.worker import WorkerRecord

logger = logging.getLogger("celery_plugin")

# So many ends are fetched before they are written.
STEP = 500
# How often it is looked whether there are too many counters.
COUNTERS_SECONDS = 600.0


class Search:
    """Finds one step after the other. Belongs to the writer's thread."""

    def __init__(self, client: Redis, keys: Keys, worker: WorkerRecord, retry_seconds: float) -> None:
        self._client = client
        self._keys = keys
        self._worker = worker
        self._retry_seconds = retry_seconds
        self._strays = False
        self._ends: Iterator[Operation | Other] = iter(())
        self._more_ends = False
        self._look_at_counters_at = time.monotonic() + COUNTERS_SECONDS
        self._not_before = 0.0
        self._failed = False

    @property
    def due(self) -> bool:
        """Whether there is something to look for."""
        return (self._strays or self._more_ends) and time.monotonic() >= self._not_before

    def look_for_strays(self) -> None:
        """Find what is said to be this worker's although the worker does not have it."""
        self._strays = True

    def look_for_dead_workers(self) -> None:
        """Find what workers left behind whose lease has ended, from the beginning."""
        self._ends = dead_workers_ends(self._client, self._keys, self._worker.worker_id)
        if time.monotonic() >= self._look_at_counters_at:
            self._look_at_counters_at = time.monotonic() + COUNTERS_SECONDS
            self._ends = chain(self._ends, counters_of_gone_hosts(self._client, self._keys))
        self._more_ends = True

    def break_off(self) -> None:
        """Look no further for what dead workers left, until that is due again."""
        self._more_ends = False

    def stop(self) -> None:
        """Look for nothing any more."""
        self._strays = self._more_ends = False

    def step(self, held: Set[str]) -> list[Operation | Other]:
        """Find the next ends; ``held`` are the runs that this worker has. Raises where Redis is away."""
        try:
            found = self._step(held)
        except Exception as error:
            if isinstance(error, RedisError | OSError) and not isinstance(error, ResponseError):
                raise
            return self._on_failure(error)
        if self._failed:
            logger.warning("celery_plugin: the search for tasks that nobody ended goes on")
        self._failed = False
        return found

    def _step(self, held: Set[str]) -> list[Operation | Other]:
        found: list[Operation | Other] = []
        if self._strays:
            found += self._find_strays(held)
            self._strays = False
        ends = list(islice(self._ends, STEP))
        self._more_ends = len(ends) == STEP
        return found + ends

    def _find_strays(self, held: Set[str]) -> Iterator[Operation]:
        worker, ending = self._worker, Ending("end", "end_not_seen", time.time())
        return stray_ends(self._client, self._keys, worker.worker_id, worker.hostname, held, ending)

    def _on_failure(self, error: Exception) -> list[Operation | Other]:
        if not self._failed:
            logger.warning(
                "celery_plugin: cannot look for tasks that nobody ended; trying again: %s: %s",
                type(error).__name__,
                error,
            )
        self._failed, self._more_ends = True, False
        self._not_before = time.monotonic() + self._retry_seconds
        return []
