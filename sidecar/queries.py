"""Questions that are answered at once, from the state in memory, and those that Redis is asked for."""

from __future__ import annotations

import json
from typing import Any

import anyio.lowlevel
from starlette.datastructures import QueryParams

from celery_plugin.contract import JSON, WAITING_STATUSES, encode
from sidecar.feed import Feed, Link
from sidecar.filters import VALUE_MAX_CHARS, TaskFilter
from sidecar.history import History
from sidecar.pages import LOOKED_AT_MAX, bad_cursor, make_page, read_cursor, write_cursor
from sidecar.pending import Pending
from sidecar.principal import Principal
from sidecar.problems import BadParameter, OtherBroker, Unavailable, UnknownTask, unknown_queue
from sidecar.queues import is_here
from sidecar.scope import Scope
from sidecar.state import State, Unreadable, read_event
from sidecar.status import StatusBoard
from sidecar.store import Store, StoreUnavailable
from sidecar.subjects import subject_of
from sidecar.tasks import Place, Task, TaskGroup

STATUSES = ("active", "reserved", "scheduled", "lost")
# So many tasks are looked at in one step of the loop: about 1 ms.
STEP_TASKS = 500

# Where a task stands in a list: its group (active, lost, waiting), and within it the order of receipt.
SortKey = tuple[int, float, str]


class Queries:
    """Raises Unavailable while what is in memory may not be what Redis says."""

    def __init__(self, feed: Feed, status: StatusBoard, store: Store, pending: Pending | None = None) -> None:
        self._feed = feed
        self._status = status
        self._store = store
        self._pending = pending  # None where the broker is not Redis

    async def status(self, scope: Scope) -> JSON:
        """The figures of ``queue_status``."""
        self._require_fresh()
        figures = await self._status.refresh()
        return figures if scope.everything else self._status.current_of(scope)

    async def tasks(self, principal: Principal, wanted: TaskFilter, limit: int, cursor: str | None) -> bytes:
        """A page of the tasks that workers have, as JSON."""
        self._require_fresh()
        start = after = None if cursor is None else read_sort_key(cursor)
        found: list[tuple[SortKey, Task]] = []
        looked_at = 0
        # Where every task is wanted, none behind the page is worth a look.
        step = limit + 1 if wanted == TaskFilter() else STEP_TASKS
        while tasks := _next_tasks(self._feed.state, wanted, after, min(step, STEP_TASKS)):
            found += [(key, task) for key, task in tasks if _matches(task, wanted)]
            after = tasks[-1][0]
            looked_at += len(tasks)
            if len(found) > limit:
                return _page(principal, found[:limit], found[limit - 1][0])
            if looked_at >= LOOKED_AT_MAX and (end := _end_of_page(start, after)) is not None:
                return _page(principal, [each for each in found if each[0] < end], end)
            await anyio.lowlevel.checkpoint()
        return _page(principal, found, None)

    async def history(
        self, principal: Principal, wanted: TaskFilter, limit: int, cursor: str | None
    ) -> bytes:
        """A page of the tasks that have ended, as JSON."""
        self._require_fresh()
        try:
            return await History(self._store).page(principal, wanted, limit, cursor)
        except StoreUnavailable as error:
            raise Unavailable from error

    async def pending(self, principal: Principal, queue: str, limit: int, cursor: str | None) -> bytes:
        """A page of what waits in a queue of the broker, as JSON; raises UnknownQueue and OtherBroker."""
        self._require_fresh()
        if not (principal.scope.everything or queue in principal.scope.queues):
            # Whether there is one of that name is not told either.
            raise unknown_queue(queue)
        workers = [worker for worker in self._feed.state.shown_workers() if worker["status"] != "offline"]
        if self._pending is None or not is_here(queue, workers):
            raise OtherBroker("only the lists of a Redis can be looked into, and this broker is another one")
        return await self._pending.page(queue, limit, cursor, principal.hidden)

    async def task(self, principal: Principal, task_id: str) -> bytes:
        """The record of a task that a worker has or had lately, or that waits, with its timeline.

        What may not be seen is nowhere: looked for as long, and answered in the same words.
        """
        self._require_fresh()
        try:
            record, timeline = await self._task(principal.scope, task_id)
        except StoreUnavailable as error:
            raise Unavailable from error
        record = principal.shown(record or await self._waiting(principal.scope, task_id))
        return record.rstrip()[:-1] + b',"timeline":' + _checked_timeline(timeline) + b"}"

    async def _waiting(self, scope: Scope, task_id: str) -> bytes:
        record = await self._pending.record(task_id) if self._pending is not None else None
        if record is None or not scope.admits(subject_of(record)):
            raise UnknownTask(
                f"no worker has, or lately had, the task {task_id[:100]}, nor was it seen waiting"
            )
        return encode(record).encode()

    async def _task(self, scope: Scope, task_id: str) -> tuple[bytes | None, bytes | None]:
        finished, timeline = await self._store.kept(task_id)
        held = self._held(scope, task_id)
        if held is None and not _may_be_shown(scope, finished):
            # It may have ended, or begun, between the two looks.
            finished, timeline = await self._store.kept(task_id)
            held = self._held(scope, task_id)
        if held is not None:
            return held.record, timeline
        return finished if _may_be_shown(scope, finished) else None, timeline

    def _held(self, scope: Scope, task_id: str) -> Task | None:
        task = self._feed.state.task(task_id)
        return task if task is not None and scope.admits(task) else None

    def workers(self) -> JSON:
        """Every worker that is known, and whether its lease runs."""
        self._require_fresh()
        workers = [
            {**worker, "alive": worker["status"] != "offline"} for worker in self._feed.state.shown_workers()
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


def _may_be_shown(scope: Scope, record: bytes | None) -> bool:
    try:
        return scope.admits(subject_of(read_event(record or b"")))
    except Unreadable:
        return False


def _end_of_page(start: SortKey | None, last: SortKey) -> SortKey | None:
    """The place before all that were received with the task looked at last; None: it is no later one.

    It names no task: that one may be one that must not be seen.
    """
    end = (last[0], last[1], "")
    return end if start is None or start < end else None


def _matches(task: Task, wanted: TaskFilter) -> bool:
    # A record is only put together where something is searched for in it.
    return wanted.admits(task) and (not wanted.search or wanted.finds(task.record))


def _next_tasks(
    state: State, wanted: TaskFilter, after: SortKey | None, count: int
) -> list[tuple[SortKey, Task]]:
    """So many tasks behind a place at most, among which the wanted ones are; empty at the end."""
    first, place = (0, None) if after is None else (after[0], after[1:])
    for number, (group, statuses) in enumerate(_groups(state)):
        if number < first or (wanted.statuses and wanted.statuses.isdisjoint(statuses)):
            continue
        if tasks := _next_of(group, wanted, place if number == first else None, count):
            return [((number, *task.place), task) for task in tasks]
    return []


def _groups(state: State) -> tuple[tuple[TaskGroup, tuple[str, ...]], ...]:
    """The groups in the order of the list, and which statuses their tasks have."""
    return (state.active, ("active",)), (state.lost, ("lost",)), (state.waiting, WAITING_STATUSES)


def _next_of(group: TaskGroup, wanted: TaskFilter, place: Place | None, count: int) -> list[Task]:
    if not (named := wanted.candidates.named):
        return group.after(place, count)
    tasks = [group[task_id] for task_id in named if task_id in group]
    return sorted(
        (task for task in tasks if place is None or task.place > place), key=lambda task: task.place
    )


def _page(principal: Principal, found: list[tuple[SortKey, Task]], next_key: SortKey | None) -> bytes:
    cursor = None if next_key is None else write_cursor(next_key)
    return make_page((principal.record_of(task) for _, task in found), cursor)


def read_queue(parameters: QueryParams) -> str:
    """Read which queue is meant; raises BadParameter."""
    names = parameters.getlist("queue")
    if len(names) != 1 or not 1 <= len(names[0]) <= VALUE_MAX_CHARS:
        raise BadParameter("queue", f"the name of one queue, of 1 to {VALUE_MAX_CHARS} characters")
    return names[0]


def read_sort_key(cursor: str) -> SortKey:
    """Read a cursor of the list of tasks; raises BadParameter."""
    try:
        group, received_at, task_id = read_cursor(cursor)
        return int(group), float(received_at), str(task_id)
    except (ValueError, TypeError, OverflowError) as error:
        raise bad_cursor() from error


def _checked_timeline(timeline: bytes | None) -> bytes:
    try:
        steps: Any = json.loads(timeline or b"[]")
    except (ValueError, RecursionError):
        return b"[]"
    return timeline or b"[]" if isinstance(steps, list) else b"[]"
