"""Questions that are answered at once, from the state in memory."""

from __future__ import annotations

import base64
import heapq
import json
from collections.abc import Mapping
from typing import Any

from celery_plugin.contract import JSON
from sidecar.feed import Feed, Link
from sidecar.problems import BadParameter, Unavailable, UnknownTask
from sidecar.state import State, Task, Unreadable, read_event
from sidecar.status import StatusBoard
from sidecar.store import Store, StoreUnavailable

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000

# Where a task stands in a list: the active ones first, each group in the order of receipt.
SortKey = tuple[int, float, str]


class Queries:
    """Raises Unavailable while what is in memory may not be what Redis says."""

    def __init__(self, feed: Feed, status: StatusBoard, store: Store) -> None:
        self._feed = feed
        self._status = status
        self._store = store

    async def status(self) -> JSON:
        """The figures of ``queue_status``."""
        self._require_fresh()
        return await self._status.refresh()

    def tasks(self, limit: int, after: SortKey | None) -> bytes:
        """A page of the tasks that workers have, as JSON: ``{"tasks":[…],"next":cursor or null}``."""
        self._require_fresh()
        page = _page(self._feed.state, limit + 1, after)
        more = len(page) > limit
        cursor = write_cursor(_sort_key(page[limit - 1])) if more else None
        records = b",".join(task.record for task in page[:limit])
        return b'{"tasks":[' + records + b'],"next":' + json.dumps(cursor).encode() + b"}"

    async def task(self, task_id: str) -> bytes:
        """The record of a task that a worker has or that has ended lately."""
        self._require_fresh()
        task = self._feed.state.task(task_id)
        if task is not None:
            return task.record
        try:
            finished = await self._store.finished_task(task_id)
            read_event(finished or b"")
        except StoreUnavailable as error:
            raise Unavailable from error
        except Unreadable:
            finished = None
        if finished is None:
            raise UnknownTask(f"no worker has, or lately had, the task {task_id[:100]}")
        return finished

    def workers(self) -> JSON:
        """Every worker that is known, and whether its lease runs."""
        self._require_fresh()
        workers = [
            {**worker, "alive": self._status.alive(worker)} for worker in self._feed.state.workers.values()
        ]
        return {"workers": sorted(workers, key=lambda worker: str(worker["worker"]))}

    async def ready(self) -> None:
        """Make a real round trip to Redis; a held dead socket would say that all is well."""
        self._require_fresh()
        try:
            await self._store.ping()
        except StoreUnavailable as error:
            raise Unavailable from error

    def _require_fresh(self) -> None:
        if self._feed.link is not Link.LIVE:
            raise Unavailable


def _sort_key(task: Task) -> SortKey:
    return (0 if task.status == "active" else 1, task.received_at, task.task_id)


def _page(state: State, count: int, after: SortKey | None) -> list[Task]:
    tasks = [*state.active.values(), *state.waiting.values()]
    if after is not None:
        tasks = [task for task in tasks if _sort_key(task) > after]
    return heapq.nsmallest(count, tasks, key=_sort_key)


def read_limit(parameters: Mapping[str, str]) -> int:
    """Parse ``limit``; raises BadParameter."""
    value = parameters.get("limit", str(LIMIT_DEFAULT))
    if not (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= LIMIT_MAX):
        raise BadParameter("limit", f"a number from 1 to {LIMIT_MAX}")
    return int(value)


def write_cursor(key: SortKey) -> str:
    """Encode a place in a list; opaque to clients."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def read_cursor(parameters: Mapping[str, str]) -> SortKey | None:
    """Parse ``cursor``; raises BadParameter."""
    value = parameters.get("cursor")
    if value is None:
        return None
    try:
        parsed: Any = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
        group, received_at, task_id = parsed
        return int(group), float(received_at), str(task_id)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadParameter("cursor", "the value of next in the answer before") from error


def check_parameters(parameters: Mapping[str, str], allowed: tuple[str, ...]) -> None:
    """Refuse a parameter that would be passed over in silence; raises BadParameter."""
    for name in parameters:
        if name not in allowed:
            raise BadParameter(name[:100], f"one of {', '.join(allowed)}" if allowed else "left out")
