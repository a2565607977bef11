"""What is wrong with the Redis of the state, in words: a line when it begins, and one when it is over."""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress

from redis import Redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterCrossSlotError,
    ClusterDownError,
    MovedError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from celery_plugin.operations import Operation, Other
from celery_plugin.script import Script

logger = logging.getLogger("celery_plugin")

# How Redis says it, from 6.2 on, also where redis-py has cut its code off; and what to do about it.
_KINDS = {
    "full": (r"maxmemory", "give it more memory, or keep less: SIDECAR_LOG_MAX, SIDECAR_HISTORY_MAX"),
    "replica": (r"read only (replica|slave)", "it is a replica: SIDECAR_REDIS_URL must name the primary"),
    "right": (r"permission|can't (run this|access at least|publish)", "give the Redis user this right"),
    "type": (r"WRONGTYPE", "delete what is not the plugin's, or choose another SIDECAR_PREFIX"),
    "login": (r"password|NOAUTH|Authentication", "look at user and password in SIDECAR_REDIS_URL"),
    "cluster": (
        r"\b(MOVED|CROSSSLOT)\b",
        "it is a Redis Cluster: SIDECAR_REDIS_URL must begin with redis+cluster://",
    ),
    "state": (r"\b(MISCONF|NOREPLICAS|CLUSTERDOWN|MASTERDOWN|LOADING|BUSY|ASK|TRYAGAIN)\b", ""),
}
AWAY, UNKNOWN = "away", "unknown"

GIVEN_UP_EVERY_SECONDS = 60.0


def kind_of(error: Exception) -> str:
    """Name what is wrong; ``unknown`` may be the fault of the batch, everything else is Redis's."""
    if not isinstance(error, ResponseError | AuthenticationError):
        return AWAY
    # Of which the newer redis-py cut the words off that say what they are.
    if isinstance(error, MovedError | ClusterCrossSlotError):
        return "cluster"
    if isinstance(error, AskError | TryAgainError | ClusterDownError):
        return "state"
    found = (kind for kind, (pattern, _) in _KINDS.items() if re.search(pattern, str(error)))
    return next(found, UNKNOWN)


class Trouble:
    """Tells of each kind of trouble once, until Redis takes everything again."""

    def __init__(self, script: Script, client: Redis, calm_seconds: float) -> None:
        self._script = script
        self._client = client
        self._calm_seconds = calm_seconds
        self._told: set[str] = set()
        self._away_since = 0.0
        self._missing: set[str] = set()
        self._missed_at = 0.0
        self._given_up_at = 0.0

    @property
    def away(self) -> bool:
        """Whether the last call failed."""
        return bool(self._told)

    def on_failure(self, error: Exception) -> None:
        """Say that nothing can be written."""
        kind = kind_of(error)
        if kind in self._told:
            return
        self._away_since = self._away_since if self._told else time.monotonic()
        self._told.add(kind)
        logger.warning(
            "celery_plugin: cannot write to Redis, tasks go on without being shown; trying again: %s",
            self._words(kind, error),
        )

    def on_answer(self, missing: str | None, *, any_operations: bool) -> None:
        """Say that Redis is back, or which by-product of the state it does not take."""
        if self._told:
            self._told.clear()
            seconds = time.monotonic() - self._away_since
            logger.warning("celery_plugin: Redis is back, after %.0f s", seconds)
        if missing is not None:
            self._on_missing(missing)
        elif self._missing and any_operations and time.monotonic() > self._missed_at + self._calm_seconds:
            # Not at once: not every batch has what the last one missed.
            self._missing.clear()
            logger.warning("celery_plugin: Redis takes everything again")

    def on_given_up(self, operation: Operation | Other, error: Exception) -> None:
        """Say what Redis refuses although it takes the rest; at most once a minute."""
        now = time.monotonic()
        if self._given_up_at and now < self._given_up_at + GIVEN_UP_EVERY_SECONDS:
            return
        self._given_up_at = now
        logger.warning(
            "celery_plugin: given up, since Redis refuses it and takes the rest: %s %.100s: %s",
            operation.kind,
            operation.of,
            self._script.without_place(str(error)),
        )

    def _on_missing(self, missing: str) -> None:
        self._missed_at = time.monotonic()
        what = missing.partition(":")[0]
        if what not in self._missing:
            self._missing.add(what)
            logger.warning("celery_plugin: Redis does not take everything, the state is right: %s", missing)

    def _words(self, kind: str, error: Exception) -> str:
        text = str(error) or type(error).__name__
        where = self._other_types() if kind == "type" else self._script.command_at(text)
        advice = _KINDS[kind][1] if kind in _KINDS else ""
        return (
            self._script.without_place(text) + (f" ({where})" if where else "") + (advice and f"; {advice}")
        )

    def _other_types(self) -> str:
        with suppress(RedisError, OSError):
            return ", ".join(self._script.other_types(self._client))
        return ""
