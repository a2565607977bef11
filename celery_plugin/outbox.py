"""What is still to be told to Redis, bounded while Redis is away.

operations       in their order; of each run only the newest when they become too many
announcement     the runs that this worker has open
counts           added up
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from celery_plugin.counting import Counts
from celery_plugin.record import tell
from celery_plugin.runs import Run, RunTable
from celery_plugin.script import Arguments, Operation, Other, one_step, step
from celery_plugin.texts import encode_text

# 5,000 operations take about 7 MB.
OUTBOX_MAX = 5_000

# A batch of 10,000 steps blocks Redis for 0.29 s.
BATCH_STEPS = 500
BATCH_BYTES = 256 * 1024


class Outbox:
    """Belongs to the writer's thread; ``hostname`` is the worker's name as it is shown."""

    def __init__(self, hostname: str, table: RunTable) -> None:
        self._worker_json = encode_text(hostname)
        self._table = table
        self._operations: deque[Operation | Other] = deque()
        # Run id → its operation, while nothing stands behind that which its next step must not overtake.
        self._joining: dict[str, Operation] = {}
        self._to_announce: deque[Run] = deque()
        self._counts = Counts(hostname)

    def __len__(self) -> int:
        return len(self._operations)

    def __bool__(self) -> bool:
        return bool(self._operations or self._to_announce or self._counts)

    def tell(self, run: Run) -> None:
        """Tell and count the step that a run has just made; its steps of one batch go together."""
        self._counts.note(run)
        told, begun = tell(run, self._worker_json), self._joining.get(run.id)
        if begun is not None and begun.facts is told.facts and begun.extra is told.extra:
            begun.steps.append(step(run.status, run.updated_at, told))
            return
        operation = one_step("task", run.task_id, run.id, self._worker_json, run.status, run.updated_at, told)
        self._joining[run.id] = operation
        self._operations.append(operation)

    def add(self, operation: Operation | Other) -> None:
        """Tell something else."""
        self._joining.clear()
        self._operations.append(operation)

    def extend(self, operations: Iterable[Operation | Other]) -> None:
        """Tell several things."""
        self._joining.clear()
        self._operations.extend(operations)

    def announce(self) -> None:
        """Tell of all runs that are open now; what Redis knows already becomes no event."""
        self._to_announce = deque(self._table)

    def drop_announcement(self) -> None:
        """Tell of no open runs any more."""
        self._to_announce.clear()

    def compact(self) -> int:
        """Keep the newest state of each run, and of those the newest that fit; return how many are gone."""
        self._joining.clear()
        newest: dict[str, Operation | Other] = {}
        for operation in self._operations:
            newest.pop(operation.key, None)
            newest[operation.key] = operation
        kept = list(newest.values())
        surplus = max(0, len(kept) - OUTBOX_MAX // 2)
        self._operations = deque(kept[surplus:])
        return surplus

    def fill(self, batch: list[Arguments]) -> None:
        """Move what fits into a batch, and all counts."""
        self._joining.clear()
        size = steps = 0
        for operation in self._take():
            batch.append(operation.arguments())
            steps += len(operation.steps)
            size += sum(map(len, batch[-1]))
            if steps >= BATCH_STEPS or size >= BATCH_BYTES:
                break
        batch += [operation.arguments() for operation in self._counts.take()]

    def _take(self) -> Iterator[Operation | Other]:
        while self._operations:
            yield self._operations.popleft()
        while self._to_announce:
            run = self._to_announce.popleft()
            if run.finished_at is None:
                yield self._operation(run)

    def _operation(self, run: Run) -> Operation:
        told = tell(run, self._worker_json)
        return one_step("task", run.task_id, run.id, self._worker_json, run.status, run.updated_at, told)
