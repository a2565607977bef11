"""How long the message that is taken next has waited at least, since Celery's message has no time of sending.

It counts from when this sidecar first saw that message at the head of its list: a lower bound, which a
sidecar that has just started begins anew. Kombu pushes left and takes right, from the lists of a queue in the
order of their priority steps, so of each queue one message is looked at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.depths import Lists, Reading

# A message may be of any size: of a busy list the head is looked at so often, and not with each change.
INTERVAL_SECONDS = 1.0
# Above this it is not parsed, and its task not known.
MESSAGE_MAX_BYTES = 256 * 1024
# The oldest of these is still a lower bound, where there are more lists.
LISTS_MAX = 200


@dataclass(frozen=True, slots=True)
class _Head:
    task_id: str
    since: float


class Heads:
    """Which task is at the head of which list, and since when."""

    def __init__(self) -> None:
        self._heads: dict[bytes, _Head] = {}
        # Lists that may have another head than when it was last looked at.
        self._changed: set[bytes] = set()
        self._next_look = 0.0

    @property
    def oldest_since(self) -> float | None:
        """Since when the task waits that was first seen longest ago; None where nothing waits or is known."""
        return min((head.since for head in self._heads.values()), default=None)

    @property
    def next_look(self) -> float:
        """When to look again, by the monotonic clock; infinity where nothing has changed."""
        return self._next_look if self._changed else float("inf")

    def note_change(self, keys: Iterable[bytes]) -> None:
        """Say which lists have been read again, as something had changed."""
        self._changed.update(keys)

    def forget(self) -> None:
        """Know nothing: the broker cannot be asked, and the lists may be others when it can."""
        self._heads, self._changed, self._next_look = {}, set(), 0.0

    def due(self, lists: Lists, readings: Mapping[bytes, Reading]) -> list[bytes]:
        """The lists to look at now: of each queue the one that is taken from first."""
        if time.monotonic() < self.next_look:
            return []
        first = _taken_first(lists, readings)
        self._heads = {key: head for key, head in self._heads.items() if key in first}
        due = [key for key in first if key in self._changed or key not in self._heads]
        self._changed.clear()
        self._next_look = time.monotonic() + INTERVAL_SECONDS
        return due

    def take(self, key: bytes, answer: Any) -> None:
        """Take the messages at the end of a list, one at most, or a refusal."""
        task_id = task_id_of(answer[-1]) if isinstance(answer, list) and answer else None
        if task_id is None:
            self._heads.pop(key, None)
        elif key not in self._heads or self._heads[key].task_id != task_id:
            self._heads[key] = _Head(task_id, time.time())


def _taken_first(lists: Lists, readings: Mapping[bytes, Reading]) -> set[bytes]:
    first: dict[str, tuple[int, bytes]] = {}
    for key, counted in lists.items():
        if key in readings and readings[key].length:
            for queue, step in counted:
                first[queue] = min(first.get(queue, (step, key)), (step, key))
    return set(sorted(key for _, key in first.values())[:LISTS_MAX])


def task_id_of(message: object) -> str | None:
    """The id in the headers of a message, of either of Celery's protocols; None where there is none."""
    if not isinstance(message, bytes) or len(message) > MESSAGE_MAX_BYTES:
        return None
    try:
        parsed: Any = json.loads(message)
        task_id = parsed["headers"].get("id") or parsed["properties"].get("correlation_id")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return task_id if isinstance(task_id, str) else None
