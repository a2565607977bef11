"""One batch, one call of ``record.lua``."""

from __future__ import annotations

import hashlib
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


@dataclass(slots=True)
class Operation:
    """Steps of one run, of which facts and extra are the same.

    ``task`` counts always, ``end`` only if the run is open, ``lost`` only if also its worker's lease has
    ended. ``worker``, ``facts`` and ``extra`` are JSON as `record.Told` has it.
    """

    kind: str
    task_id: str
    run: str
    worker: str
    facts: str
    extra: str
    steps: list[str]

    @property
    def key(self) -> str:
        """Of the steps of one run only the newest matters while Redis is away."""
        return self.run

    def arguments(self) -> Arguments:
        """As the script reads it; what UTF-8 cannot hold becomes ``?``."""
        return (
            f"{self.kind}\t{self.run}\t{self.worker}\t{self.task_id}".encode("utf-8", "replace"),
            "\n".join(self.steps).encode("utf-8", "replace"),
            self.facts.encode("utf-8", "replace"),
            self.extra.encode("utf-8", "replace"),
        )


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
        self._keys = (
            keys.log,
            keys.runs,
            keys.active_tasks,
            keys.waiting_tasks,
            keys.finished_tasks,
            keys.finished,
            keys.workers,
            keys.leases,
            keys.events,
            keys.progress,
            keys.timelines,
            keys.counters,
            keys.depths,
        )

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
