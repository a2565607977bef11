"""Tasks that have ended, the last one first, as long as Redis keeps them."""

from __future__ import annotations

import math

from sidecar.filters import TaskFilter
from sidecar.pages import LOOKED_AT_MAX, bad_cursor, make_page, read_cursor, write_cursor
from sidecar.state import Unreadable, read_event
from sidecar.store import HistoryPlace, Store
from sidecar.subjects import subject_of

STATUSES = ("completed", "failed", "retrying", "revoked", "rejected", "lost")


class History:
    """Read in steps, so that neither Redis nor the loop is held up; raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(self, wanted: TaskFilter, limit: int, cursor: str | None) -> bytes:
        """A page as JSON; its place is the time of an end, so it stays when tasks end or are forgotten."""
        place = None if cursor is None else _read_place(cursor)
        found: list[tuple[HistoryPlace, bytes]] = []
        looked_at = 0
        while places := await self._store.ended_before(place):
            found += await self._matching(places, wanted)
            if len(found) > limit:
                return _page(found[:limit], found[limit - 1][0])
            place = places[-1]
            looked_at += len(places)
            if looked_at >= LOOKED_AT_MAX:
                return _page(found, place)
        return _page(found, None)

    async def _matching(
        self, places: list[HistoryPlace], wanted: TaskFilter
    ) -> list[tuple[HistoryPlace, bytes]]:
        if wanted.task_ids:
            ids = {task_id.encode("utf-8", "replace") for task_id in wanted.task_ids}
            places = [place for place in places if place[1] in ids]
        records = await self._store.finished(places)
        return [
            (place, record)
            for place, record in zip(places, records, strict=True)
            if record is not None and _matches(record, wanted)
        ]


def _matches(record: bytes, wanted: TaskFilter) -> bool:
    try:
        event = read_event(record)
    except Unreadable:
        return False
    return "task_id" in event and wanted.admits(subject_of(event)) and wanted.finds(record)


def _page(found: list[tuple[HistoryPlace, bytes]], next_place: HistoryPlace | None) -> bytes:
    cursor = None if next_place is None else write_cursor((next_place[0], next_place[1].decode("latin-1")))
    return make_page((record for _, record in found), cursor)


def _read_place(cursor: str) -> HistoryPlace:
    try:
        end, member = read_cursor(cursor)
        place = (float(end), str(member).encode("latin-1"))
    except (ValueError, TypeError, OverflowError) as error:
        raise bad_cursor() from error
    if math.isnan(place[0]):
        raise bad_cursor()
    return place
