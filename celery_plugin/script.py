"""One batch, one call of ``record.lua``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import NoScriptError

from celery_plugin.contract import Keys, Position
from celery_plugin.operations import Operation, Other, pack
from celery_plugin.record import OPEN_MESSAGES
from celery_plugin.settings import Settings

# Where Redis says that a script broke off: the line, and all that Redis 7 says of it.
_LINE = re.compile(r"@user_script: ?(\d+)")
_PLACE = re.compile(r" script: \w+, on @user_script:\d+\.?$")


class Answer(NamedTuple):
    """The position after the batch, what Redis made of it, and why a by-product is missing where one is."""

    position: Position
    verdict: str
    trouble: str | None = None


class Script:
    """The script under one prefix and database."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._source = files("celery_plugin").joinpath("record.lua").read_bytes()
        # Redis names a script by its SHA-1; nothing is kept secret by it.
        self._sha = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()
        # In the order of the script's KEYS, with their types.
        self._types = {
            keys.log: "hash",
            keys.runs: "hash",
            keys.active_tasks: "hash",
            keys.waiting_tasks: "hash",
            keys.finished_tasks: "hash",
            keys.finished: "zset",
            keys.workers: "hash",
            keys.leases: "zset",
            keys.events: "stream",
            keys.progress: "hash",
            keys.timelines: "hash",
            keys.counters: "hash",
            keys.depths: "hash",
        }
        self._keys = tuple(self._types)

    def call(
        self,
        client: Redis,
        *,
        worker_id: str,
        number: int,
        lease_seconds: float,
        settings: Settings,
        epoch_if_needed: str,
        operations: Iterable[Operation | Other],
    ) -> Answer:
        """Apply a batch; raises redis-py's errors."""
        arguments: list[Any] = [*self._keys, self.keys.events_channel, epoch_if_needed, worker_id, number]
        arguments += [lease_seconds, settings.log_max, settings.history_max, settings.history_ttl]
        arguments += [OPEN_MESSAGES, *pack(operations)]
        try:
            answer: Any = client.evalsha(self._sha, len(self._keys), *arguments)
        except NoScriptError:
            answer = client.eval(self._source, len(self._keys), *arguments)  # type: ignore[arg-type]  # bytes are fine
        epoch, offset, verdict, *trouble = answer
        text = trouble[0].decode("utf-8", "replace") if trouble else None
        return Answer(Position(epoch.decode(), int(offset)), verdict.decode(), text)

    def other_types(self, client: Redis) -> list[str]:
        """Say which keys are not what the script expects; raises redis-py's errors."""
        pipeline = client.pipeline(transaction=False)
        for key in self._keys:
            pipeline.type(key)
        found = zip(self._types.items(), (name.decode() for name in pipeline.execute()), strict=True)
        return [
            f"{key} is a {there}, not a {expected}"
            for (key, expected), there in found
            if there not in (expected, "none")
        ]

    def command_at(self, error: str) -> str:
        """Name the command at the place that Redis names; Redis 7.0 does not say which one it refuses."""
        place = _LINE.search(error)
        line = self._source.splitlines()[int(place[1]) - 1] if place else b""
        command = re.search(rb"call\('(\w+)'", line)
        return command[1].decode() if command else ""

    def without_place(self, error: str) -> str:
        """Leave out where in the script it was."""
        return _PLACE.sub("", error)
