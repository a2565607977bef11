"""The queues as they are shown: how many messages wait in each, whoever could say it, and who consumes it.

A worker whose broker is Redis says how its lists are named, and the sidecar reads them; one whose broker is
another asks that one itself, and writes the answer down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from celery_plugin.contract import JSON
from sidecar.depths import QueueDepth

Depths = Mapping[str, QueueDepth]


def is_elsewhere(worker: JSON) -> bool:
    """Tell a worker whose broker is not Redis; a record that does not say it is of one whose broker is."""
    transport = (worker.get("broker") or {}).get("transport", "redis")
    return bool(transport != "redis")


def names_of(workers: Iterable[JSON]) -> set[str]:
    """The queues that workers consume."""
    return {queue for worker in workers for queue in worker.get("queues") or ()}


@dataclass(frozen=True)
class Sources:
    """Where depths come from: a Redis's lists, None while they cannot be read, and what workers measured.

    ``here`` is empty where no Redis is the broker.
    """

    here: Depths | None
    elsewhere: Depths


def only_in_redis(workers: Iterable[JSON]) -> set[str]:
    """The queues that are consumed from a Redis, and from no other broker."""
    here, there = _sides(list(workers))
    return here - there


def list_queues(workers: Sequence[JSON], always: Sequence[str], sources: Sources) -> list[JSON]:
    """Every queue that is known, by name; ``workers`` are those that are online."""
    consumed = [queue for worker in workers for queue in worker.get("queues") or ()]
    depths = _join(workers, sources)
    names = {*consumed, *always, *(name for name, depth in depths.items() if depth is not None)}
    return [_queue(name, depths.get(name), consumed.count(name)) for name in sorted(names)]


def sum_of(queues: Iterable[JSON]) -> int | None:
    """How many messages wait, as far as it is known; None where nothing is."""
    known = [queue["pending"] for queue in queues if queue["pending"] is not None]
    return sum(known) if known else None


def _join(workers: Sequence[JSON], sources: Sources) -> dict[str, QueueDepth | None]:
    here, there = _sides(workers)
    depths: dict[str, QueueDepth | None] = {}
    # A Redis that no worker has for its broker holds the state alone: empty lists there say nothing.
    if not there or here:
        depths |= {name: depth for name, depth in (sources.here or {}).items() if name not in there - here}
    for name, depth in sources.elsewhere.items():
        unread = name in here and sources.here is None
        depths[name] = None if unread else _add(depths.get(name), depth)
    # Two brokers have a queue of this name, and one of them is not known.
    return depths | dict.fromkeys((there & here) - sources.elsewhere.keys())


def is_here(queue: str, workers: Sequence[JSON]) -> bool:
    """Tell whether a queue can be one of the Redis that is read; ``workers`` are those that are online."""
    here, there = _sides(workers)
    return bool(here or not there) and queue not in there - here


def _sides(workers: Sequence[JSON]) -> tuple[set[str], set[str]]:
    """The queues that are consumed from the Redis that is read, and those of other brokers."""
    here = names_of(worker for worker in workers if not is_elsewhere(worker))
    return here, names_of(worker for worker in workers if is_elsewhere(worker))


def _add(one: QueueDepth | None, other: QueueDepth) -> QueueDepth:
    if one is None:
        return other
    return QueueDepth(one.pending + other.pending, None, min(one.measured_at, other.measured_at))


def _queue(name: str, depth: QueueDepth | None, consumers: int) -> JSON:
    by_priority = depth.by_priority if depth is not None else None
    return {
        "name": name,
        "pending": depth.pending if depth is not None else None,
        "by_priority": None if by_priority is None else {str(step): n for step, n in by_priority.items()},
        "consumers": consumers,
        "measured_at": round(depth.measured_at, 6) if depth is not None else None,
    }
