"""What Redis's log said in each epoch, kept for comparison: Redis itself forgets it with the epoch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Any, NamedTuple

from redis import Redis

from celery_plugin.contract import JSON, Keys, Position
from sidecar.store import NOTHING_YET
from tests.support.asked import Asked


class Entry(NamedTuple):
    """Of a log: an event as it stands there, and what it says; nothing where it cannot be read."""

    text: str
    event: JSON


@dataclass
class Truth:
    """Epoch → its log by offsets, and where the log is now."""

    logs: dict[str, dict[int, Entry]] = field(default_factory=dict)
    last: Position = NOTHING_YET

    def add(self, position: Position, event: bytes) -> None:
        """Take in what stands at a position."""
        text = intern(event.decode("utf-8", "replace"))
        self.logs.setdefault(position.epoch, {})[position.offset] = Entry(text, _parsed(text))
        self.last = position

    def read(self, client: Redis, keys: Keys, command: Sequence[str | int] = ()) -> None:
        """Take in what stands there, and run a command in the same moment."""
        pipeline: Any = client.pipeline(transaction=True)
        pipeline.hmget(keys.log, "epoch", "offset")
        pipeline.xrange(keys.events)
        if command:
            pipeline.execute_command(*command)
        (epoch, offset), found, *_ = pipeline.execute()
        for key, fields in found:
            self.add(Position(epoch.decode(), int(key.partition(b"-")[0])), fields[b"event"])
        self.last = Position(epoch.decode(), int(offset)) if epoch else NOTHING_YET

    def at(self, position: Position) -> Entry | None:
        """What stands at a position."""
        return self.logs.get(position.epoch, {}).get(position.offset)

    def wanted_after(self, position: Position, asked: Asked, until: int) -> Iterator[Position]:
        """The positions behind one, up to an offset, whose events are to come."""
        for offset in range(position.offset + 1, until + 1):
            entry = self.at(here := position._replace(offset=offset))
            if entry is None or asked.passes(entry.event):
                yield here

    @property
    def count(self) -> int:
        """How many events there were."""
        return sum(map(len, self.logs.values()))


def _parsed(text: str) -> JSON:
    try:
        event: Any = json.loads(text)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
