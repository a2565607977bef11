"""What is still to be told to Redis, bounded while Redis is away.

operations       in their order; of each run only the newest when they become too many
untold           the steps that runs have made since, in the order of their first one
announcement     the runs that this worker has open
counts           added up
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from celery_plugin.counting import Counts
from celery_plugin.operations import Operation, Other
from celery_plugin.record import tell
from celery_plugin.runs import Run, RunTable, Step
from celery_plugin.texts import encode_text

logger = logging.getLogger("celery_plugin")

# 3,000 operations take about 6 MB.
OUTBOX_MAX = 3_000

# A batch of 10,000 events blocks Redis for 0.29 s.
BATCH_EVENTS = 500
BATCH_BYTES = 256 * 1024


class Outbox:
    """Belongs to the writer's thread; ``hostname`` is the worker's name as it is shown."""

    def __init__(self, hostname: str, table: RunTable) -> None:
        self._worker_json = encode_text(hostname)
        self._table = table
        self._operations: deque[Operation | Other] = deque()
        # Behind the operations: steps that are not put into words yet. What one run does until the next batch
        # goes together, and what is given up while Redis is away was never put into words.
        self._untold: dict[Run, list[Step]] = {}
        self._to_announce: deque[Run] = deque()
        self._counts = Counts(hostname)
        # Tasks that could not be put into words.
        self.gave_up = 0

    def __len__(self) -> int:
        return len(self._operations) + len(self._untold)

    def __bool__(self) -> bool:
        return bool(self._operations or self._untold or self._to_announce or self._counts)

    def tell(self, run: Run) -> None:
        """Tell and count the step that a run has just made."""
        self._counts.note(run)
        steps = self._untold.get(run)
        if steps is None:
            self._untold[run] = [(run.status, run.updated_at)]
        else:
            steps.append((run.status, run.updated_at))

    def before_end_changes(self, run: Run) -> None:
        """Put the end of a run into words before that is told otherwise."""
        if run in self._untold:
            self._word()

    def add(self, one: Operation | Other) -> None:
        """Tell something else."""
        self._word()
        self._operations.append(one)

    def extend(self, several: Iterable[Operation | Other]) -> None:
        """Tell several things."""
        self._word()
        self._operations.extend(several)

    def announce(self) -> None:
        """Tell of all runs that are open now; what Redis knows already becomes no event."""
        self._to_announce = deque(self._table)

    def drop_announcement(self) -> None:
        """Tell of no open runs any more."""
        self._to_announce.clear()

    def compact(self) -> int:
        """Keep the newest state of each run, and of those the newest that fit; return how many are gone."""
        newest: dict[str, Operation | Other] = {}
        for one in self._operations:
            newest.pop(one.key, None)
            newest[one.key] = one
        for run, steps in self._untold.items():
            newest.pop(run.id, None)
            del steps[:-1]
        surplus = max(0, len(newest) + len(self._untold) - OUTBOX_MAX // 2)
        self._operations = deque(islice(newest.values(), surplus, None))
        beyond = max(0, surplus - len(newest))
        self._untold = dict(islice(self._untold.items(), beyond, None))
        return surplus

    def fill(self, batch: list[Operation | Other]) -> None:
        """Move what fits into a batch, and all counts."""
        self._word()
        size = events = 0
        for one in self._take():
            try:
                events, size = events + one.events, size + one.size
            except TypeError:
                # No text: one that cannot be told must not hold up the others.
                logger.exception("celery_plugin: this is given up: %r", one.key)
                self.gave_up += 1
                continue
            batch.append(one)
            if events >= BATCH_EVENTS or size >= BATCH_BYTES:
                break
        batch += self._counts.take()

    def _take(self) -> Iterator[Operation | Other]:
        while self._operations:
            yield self._operations.popleft()
        while self._to_announce:
            run = self._to_announce.popleft()
            if run.finished_at is None:
                yield from self._worded(run, [(run.status, run.updated_at)])

    def _word(self) -> None:
        untold, self._untold = self._untold, {}
        for run, steps in untold.items():
            self._operations.extend(self._worded(run, steps))

    def _worded(self, run: Run, steps: list[Step]) -> list[Operation]:
        worker = self._worker_json
        try:
            return list(tell(run, steps, worker))
        except Exception:
            # One task that cannot be put into words must not hold up the others.
            logger.exception("celery_plugin: what a task did is given up: %s", run.task_id)
            self.gave_up += 1
            return []
