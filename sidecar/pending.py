"""What waits in a Redis broker: a queue's tasks, page by page, and one task wherever it waits."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

import anyio
import anyio.lowlevel
from redis.asyncio import Redis

from celery_plugin.capture import Capture
from celery_plugin.contract import JSON, EventType, encode
from sidecar.broker import BrokerWatcher
from sidecar.messages import read_id, read_message
from sidecar.pages import bad_cursor, read_cursor, write_cursor
from sidecar.problems import Unavailable, unknown_queue
from sidecar.together import Together
from sidecar.waiting_lists import Budget, ListReader, Place, Seen, WaitingList

# A page ends where so much has been read; the rest is behind its cursor.
PAGE_BYTES = 4 * 1024 * 1024
# How far tasks are looked for in each queue, and in all of them.
FIND_MESSAGES, FIND_BYTES = 1000, 4 * 1024 * 1024
FIND_ALL_MESSAGES, FIND_ALL_BYTES = 20_000, 16 * 1024 * 1024
# So many messages are read in one step of the loop: less than 1 ms, where they are of the usual size.
STEP_ENTRIES = 20
# So many look at a time: each may hold its budget and one slice in memory.
READERS = 2
# So many ids are looked for in a message before it is parsed.
FEW_IDS = 8


class Pending:
    """Raises Unavailable while the broker cannot be asked."""

    def __init__(self, client: Redis, broker: BrokerWatcher, capture: Capture) -> None:
        self._lists = ListReader(client)
        self._broker = broker
        self._capture = capture
        self._readers = anyio.CapacityLimiter(READERS)
        self._wanted = Together(self._find)

    async def page(self, queue: str, limit: int, cursor: str | None, hidden: Collection[str] = ()) -> bytes:
        """A page of what waits in a queue, as JSON, without some members of each task.

        Raises UnknownQueue and BadParameter.
        """
        place = None if cursor is None else _read_place(cursor)
        async with self._readers:
            self._require(queue)
            lists = await self._lists_of(queue)
            if place is not None and place.key not in {each.key for each in lists}:
                raise bad_cursor()
            seen, ended = await self._first(lists, place, limit)
        entries = []
        for number, each in enumerate(seen[:limit]):
            entry = self._entry(each)
            entries.append({name: value for name, value in entry.items() if name not in hidden})
            if not number % STEP_ENTRIES:
                await anyio.lowlevel.checkpoint()
        following = write_place(seen[:limit][-1].place) if seen[limit:] or not ended else None
        return encode({"queue": queue, "tasks": entries, "next": following}).encode()

    async def record(self, task_id: str) -> JSON | None:
        """The record of a task that is among the first messages of a queue, where it is."""
        return await self._wanted.find(task_id)

    async def _find(self, task_ids: Sequence[str]) -> dict[str, JSON]:
        looks_like = [text for task_id in task_ids for text in _mentions(task_id)]
        search = _Search(set(task_ids), looks_like if len(task_ids) <= FEW_IDS else None)
        async with self._readers:
            for queue in self._known():
                await self._find_in(queue, search)
                if search.is_over:
                    break
        return search.found

    async def _first(
        self, lists: Iterable[WaitingList], place: Place | None, limit: int
    ) -> tuple[list[Seen], bool]:
        """The messages behind a place, one more than the limit if there is one, and whether that is all."""
        budget = Budget(limit + 1, PAGE_BYTES)
        seen: list[Seen] = []
        async for messages in self._lists.slices(lists, place, budget):
            seen += messages
        return seen, budget.is_left

    async def _find_in(self, queue: str, search: _Search) -> None:
        budget = Budget(FIND_MESSAGES, FIND_BYTES)
        async for messages in self._lists.slices(await self._lists_of(queue), None, budget):
            search.budget.take(messages.messages)
            for seen in filter(search.may_be, messages):
                search.take(queue, self._entry(seen))
            if search.is_over:
                return

    def _entry(self, seen: Seen) -> JSON:
        entry = read_message(seen.message, self._capture)
        if entry["priority"] is None:
            entry["priority"] = seen.waiting.step
        return {
            "task_id": entry["task_id"],
            "task_name": entry["task_name"],
            "position": seen.position,
        } | entry

    def _known(self) -> list[str]:
        if self._broker.depths is None:
            raise Unavailable
        return self._broker.queues()

    def _require(self, queue: str) -> None:
        if queue in self._known():
            return
        if not self._broker.knows_bindings:
            raise Unavailable
        raise unknown_queue(queue)

    async def _lists_of(self, queue: str) -> list[WaitingList]:
        """The lists of a queue in the order in which they are taken from."""
        groups = self._broker.lists_of(queue)
        lengths = await self._lists.lengths([key for group in groups for _, key in group])
        lists = []
        for group in groups:
            before = 0
            for step, key in group:
                lists.append(WaitingList(key, step, before, lengths[key]))
                before += lengths[key]
        return lists


class _Search:
    """The ids that are still looked for, and the records of those that were found."""

    def __init__(self, task_ids: set[str], looks_like: list[bytes] | None) -> None:
        self.task_ids = task_ids
        self.found: dict[str, JSON] = {}
        self.budget = Budget(FIND_ALL_MESSAGES, FIND_ALL_BYTES)
        # Where they are few no message is parsed that does not have one of them.
        self._looks_like = looks_like

    @property
    def is_over(self) -> bool:
        """Tell whether all were found, or enough was read."""
        return not self.task_ids or not self.budget.is_left

    def may_be(self, seen: Seen) -> bool:
        """Tell whether a message is worth a closer look."""
        if self._looks_like is not None:
            return any(text in seen.message for text in self._looks_like)
        return read_id(seen.message) in self.task_ids

    def take(self, queue: str, entry: JSON) -> None:
        """Note a message of one of the tasks; the first one is taken first."""
        task_id = entry["task_id"]
        if task_id not in self.task_ids:
            return
        self.task_ids.discard(task_id)
        facts = {"type": EventType.TASK_STATUS, "status": "pending", "message": "Waiting in the queue"}
        self.found[task_id] = {**facts, "queue": queue, **entry}


def _mentions(task_id: str) -> tuple[bytes, ...]:
    """How an id stands in a message: no message is parsed that does not have it."""
    return tuple(
        json.dumps(task_id, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "replace")
        for ascii_only in (True, False)
    )


def write_place(place: Place) -> str:
    """Encode a place as a cursor."""
    return write_cursor((place.key.decode("latin-1"), place.index, place.digest))


def _read_place(cursor: str) -> Place:
    try:
        key, index, digest = read_cursor(cursor)
        place = Place(str(key).encode("latin-1"), index, str(digest))
    except (ValueError, TypeError) as error:
        raise bad_cursor() from error
    if type(index) is not int or not 0 <= index < 2**53:
        raise bad_cursor()
    return place
