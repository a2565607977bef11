"""The parameters of a stream: what it lets through, in which form, and how it begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from starlette.datastructures import QueryParams

from celery_plugin.contract import EXTRA_FIELDS, RANKS, EventType
from sidecar.filters import TaskFilter, read_filter
from sidecar.problems import BadParameter
from sidecar.snapshot import WAITING_MAX
from sidecar.wanted import Wanted

# Those of a stream's own course always come, and may be named as well.
TYPES: Final = tuple(value for name, value in vars(EventType).items() if name.isupper())
ALL: Final = "all"
LAST_EVENT_ID: Final = "last_event_id"


def read_wanted(given: QueryParams) -> tuple[Wanted, int | None]:
    """What a stream of events is to have, and how many waiting tasks at its beginning, None for all.

    Raises BadParameter.
    """
    wanted = Wanted(
        tasks=read_filter(given.multi_items(), tuple(RANKS)),
        types=frozenset(_words(given, "types", TYPES)),
        include=_read_include(given),
    )
    return wanted, _read_waiting_max(given)


def read_wanted_of_task(task_id: str, given: QueryParams) -> Wanted:
    """What the stream of one task is to have; raises BadParameter."""
    return Wanted(TaskFilter(task_ids=frozenset({task_id})), include=_read_include(given), until_end=True)


def _read_include(given: QueryParams) -> tuple[str, ...]:
    # In one order, so that all who ask for the same share it.
    return tuple(sorted(set(_words(given, "include", EXTRA_FIELDS))))


def _words(given: QueryParams, name: str, allowed: Sequence[str]) -> Iterator[str]:
    """The words of a parameter, which may be repeated and have several between commas."""
    for word in (word.strip() for value in given.getlist(name) for word in value.split(",")):
        if word not in allowed:
            raise BadParameter(name, f"one or more of {', '.join(allowed)}")
        yield word


def _read_waiting_max(given: QueryParams) -> int | None:
    value = given.get("snapshot", str(WAITING_MAX))
    if value == ALL:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise BadParameter("snapshot", f"{ALL}, or how many waiting tasks it may have, e.g. {WAITING_MAX}")
    return int(value)
