"""Tasks that have ended, the last one first, as long as Redis keeps them."""

from __future__ import annotations

import math

from sidecar.filters import TaskFilter
from sidecar.pages import LOOKED_AT_MAX, bad_cursor, make_page, read_cursor, write_cursor
from sidecar.principal import Principal
from sidecar.state import Unreadable, read_event
from sidecar.store import HistoryPlace, Store
from sidecar.subjects import subject_of

STATUSES = ("completed", "failed", "retrying", "revoked", "rejected", "lost")


class History:
    """Read in steps, so that neither Redis nor the loop is held up; raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def page(self, principal: Principal, wanted: TaskFilter, limit: int, cursor: str | None) -> bytes:
        """A page as JSON; its place is the time of an end, so it stays when tasks end or are forgotten."""
        start = place = None if cursor is None else _read_place(cursor)
        found: list[tuple[HistoryPlace, bytes]] = []
        looked_at = 0
        while places := await self._store.ended_before(place):
            found += await self._matching(places, wanted)
            if len(found) > limit:
                return _page(principal, found[:limit], found[limit - 1][0])
            place = places[-1]
            looked_at += len(places)
            if looked_at >= LOOKED_AT_MAX and (end := _end_of_page(start, place)) is not None:
                return _page(principal, [each for each in found if each[0] > end], end)
        return _page(principal, found, None)

    async def _matching(
        self, places: list[HistoryPlace], wanted: TaskFilter
    ) -> list[tuple[HistoryPlace, bytes]]:
        if wanted.candidates.named:
            ids = {task_id.encode("utf-8", "replace") for task_id in wanted.candidates.named}
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


def _end_of_page(start: HistoryPlace | None, last: HistoryPlace) -> HistoryPlace | None:
    """The place before all that ended with the task looked at last; None: it is no later one.

    It names no task: that one may be one that must not be seen.
    """
    end = (math.nextafter(last[0], math.inf), b"")
    return end if last < end and (start is None or end < start) else None


def _page(
    principal: Principal, found: list[tuple[HistoryPlace, bytes]], next_place: HistoryPlace | None
) -> bytes:
    cursor = None if next_place is None else write_cursor((next_place[0], next_place[1].decode("latin-1")))
    return make_page((principal.shown(record) for _, record in found), cursor)


def _read_place(cursor: str) -> HistoryPlace:
    try:
        end, member = read_cursor(cursor)
        place = (float(end), str(member).encode("latin-1"))
    except (ValueError, TypeError, OverflowError) as error:
        raise bad_cursor() from error
    if math.isnan(place[0]):
        raise bad_cursor()
    return place
