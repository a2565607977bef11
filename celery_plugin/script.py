"""One batch, one call of ``record.lua``."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import NoScriptError

from celery_plugin.contract import RANKS, Keys, Position
from celery_plugin.record import Told
from celery_plugin.settings import Settings

# One operation as the script reads it.
Arguments = tuple[bytes, ...]
# Where Redis says that a script broke off: the line, and all that Redis 7 says of it.
_LINE = re.compile(r"@user_script: ?(\d+)")
_PLACE = re.compile(r" script: \w+, on @user_script:\d+\.?$")


@dataclass(slots=True)
class Operation:
    """Steps of one run, of which facts and extra are the same.

    ``task`` counts always, ``end`` only if the run is open, ``lost`` only if also its worker's lease has
    ended; then ``counted``, two fields of counters, says where. ``worker``, ``facts`` and ``extra`` are JSON
    as `record.Told` has it.
    """

    kind: str
    task_id: str
    run: str
    worker: str
    facts: str
    extra: str
    steps: list[str]
    counted: tuple[str, str] = ("", "")

    @property
    def key(self) -> str:
        """Of the steps of one run only the newest matters while Redis is away."""
        return self.run

    def arguments(self) -> Arguments:
        """As the script reads it; what UTF-8 cannot hold becomes ``?``."""
        arguments = (
            f"{self.kind}\t{self.run}\t{self.worker}\t{self.task_id}".encode("utf-8", "replace"),
            "\n".join(self.steps).encode("utf-8", "replace"),
            self.facts.encode("utf-8", "replace"),
            self.extra.encode("utf-8", "replace"),
        )
        if self.kind != "lost":
            return arguments
        return (*arguments, "\t".join(self.counted).encode("utf-8", "replace"))


def step(status: str, at: float, told: Told) -> str:
    """One step of a run, at a time in seconds since the epoch."""
    return f"{RANKS[status]}\t{status}\t{at:.6f}\t{told.message}\t{told.moving}"


def one_step(kind: str, task_id: str, run: str, worker: str, status: str, at: float, told: Told) -> Operation:
    """Make an operation of one step."""
    return Operation(kind, task_id, run, worker, told.facts, told.extra, [step(status, at, told)])


class Other(NamedTuple):
    """An operation that is no step of a run: its kind and what the script reads behind it.

    Of those with the same key only the newest matters while Redis is away.
    """

    key: str
    parts: tuple[str, ...]
    steps: tuple[str, ...] = ("",)

    def arguments(self) -> Arguments:
        """As the script reads it."""
        return ("\t".join(self.parts).encode("utf-8", "replace"),)


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
        operations: list[Arguments],
    ) -> Answer:
        """Apply a batch; raises redis-py's errors."""
        arguments: list[Any] = [*self._keys, self.keys.events_channel, epoch_if_needed, worker_id, number]
        arguments += [lease_seconds, settings.log_max, settings.history_max, settings.history_ttl]
        arguments += chain.from_iterable(operations)
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
