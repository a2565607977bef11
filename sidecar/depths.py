"""Which lists hold the messages of a queue, and what their lengths come to.

The lists are kombu's:

    {global_keyprefix}{queue}              messages with priority 0
    {global_keyprefix}{queue}{sep}{step}   messages of each other priority step
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

DEFAULT_QUEUE: Final = "celery"
# What begins the name of a set in which kombu keeps the queues of an exchange.
BINDING: Final = "_kombu.binding."

# The lists to read: key → the queues and steps that it counts for.
Lists = Mapping[bytes, Iterable[tuple[str, int]]]


def carries_tasks(name: str) -> bool:
    """Tell a queue (or exchange) of tasks from Celery's own: remote control, its replies, events."""
    return not (name.endswith(".pidbox") or name == "celeryev" or name.startswith("celeryev."))


@dataclass(frozen=True)
class BrokerFacts:
    """How a worker's kombu names its lists; the defaults are kombu's."""

    sep: str = "\x06\x16"
    priority_steps: tuple[int, ...] = (0, 3, 6, 9)
    global_keyprefix: str = ""

    def key(self, queue: str, step: int) -> bytes:
        """The key of the list of a queue's messages with this priority step."""
        name = f"{queue}{self.sep}{step}" if step else queue
        return (self.global_keyprefix + name).encode()


@dataclass(frozen=True)
class QueueDepth:
    """How many messages wait in a queue; ``by_priority`` leaves out empty steps, None: not known."""

    pending: int
    by_priority: dict[int, int] | None
    measured_at: float


@dataclass(frozen=True)
class Reading:
    """The length of one list, and when it was read."""

    length: int
    at: float


def measure(lists: Lists, readings: Mapping[bytes, Reading]) -> dict[str, QueueDepth]:
    """Add up the readings; a queue of which one list could not be read is left out."""
    by_queue: defaultdict[str, list[tuple[int, Reading | None]]] = defaultdict(list)
    for key, counted in lists.items():
        for queue, step in counted:
            by_queue[queue].append((step, readings.get(key)))
    depths = {}
    for queue, parts in by_queue.items():
        known = [(step, reading) for step, reading in parts if reading is not None]
        if len(known) == len(parts):
            depths[queue] = _add_up(known)
    return depths


def _add_up(parts: list[tuple[int, Reading]]) -> QueueDepth:
    by_priority: dict[int, int] = {}
    for step, reading in parts:
        if reading.length:
            by_priority[step] = by_priority.get(step, 0) + reading.length
    # The latest: a list that was read earlier is one that has not changed since.
    return QueueDepth(sum(by_priority.values()), by_priority, max(reading.at for _, reading in parts))


def differ(before: Reading | None, after: Reading | None) -> bool:
    """Tell whether a list has changed between two readings, if there are two."""
    return before is not None and after is not None and before.length != after.length


def show_the_same(one: Mapping[str, QueueDepth] | None, other: Mapping[str, QueueDepth] | None) -> bool:
    """Tell whether both show the same, whenever they were measured."""
    if one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(
        depth.by_priority == other[queue].by_priority for queue, depth in one.items()
    )
