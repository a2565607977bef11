"""What a stream begins with: the state of all, or of the one task that it is about."""

from __future__ import annotations

from typing import Protocol

from celery_plugin.contract import Position
from sidecar.snapshot import Snapshots
from sidecar.task_beginning import TaskBeginnings
from sidecar.wanted import Wanted


class Beginning(Protocol):
    """Parts to send, and from which place the log goes on; nothing follows where ``last`` is set."""

    @property
    def place(self) -> int: ...
    @property
    def position(self) -> Position: ...
    @property
    def last(self) -> bool: ...
    def __len__(self) -> int: ...
    def part(self, number: int) -> bytes: ...


class Beginnings:
    """Makes them; raises StoreUnavailable."""

    def __init__(self, snapshots: Snapshots, tasks: TaskBeginnings) -> None:
        self._snapshots = snapshots
        self._tasks = tasks

    async def make(self, wanted: Wanted, waiting_max: int | None) -> Beginning:
        """Make, or share, what a viewer begins with."""
        if wanted.until_end:
            return await self._tasks.make(wanted)
        return await self._snapshots.latest(wanted, waiting_max)
