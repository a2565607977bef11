"""The queues that kombu has declared in a Redis broker, with or without anybody who consumes them.

It leaves them in a set for each exchange:

    {global_keyprefix}_kombu.binding.<exchange> (set)   <routing key> SEP <pattern> SEP <queue>
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

import anyio
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from sidecar.depths import BINDING, carries_tasks
from sidecar.tracking import Bell, TrackingConnection, connected

logger = logging.getLogger(__name__)

SCAN_COUNT: Final = 1000
COALESCE_SECONDS: Final = 0.1
# A scan visits every key of the database, results of tasks too: where nothing tells of changes it is
# made this often, and takes at most this share of the time.
RESCAN_SECONDS: Final = 30.0
RESCAN_SHARE: Final = 0.02


class BindingWatcher:
    """Knows which queues are bound under the key prefixes that it follows."""

    def __init__(self, client: Redis, on_change: Callable[[], None]) -> None:
        self._client = client
        self._on_change = on_change
        self._keyprefixes: frozenset[str] = frozenset({""})
        self._members: dict[bytes, frozenset[bytes]] = {}
        # Binding keys that changed since they were last read; None: everything may have.
        self._stale: set[bytes] | None = None
        self._wake = Bell()
        # Whoever sees that pushes do not come says so here; a scan now and then takes their place.
        self.pushes_come = True
        self.have_been_read = False

    def queues(self, keyprefix: str, sep: str) -> set[str]:
        """The names of the queues of tasks that are bound under a key prefix."""
        key_start = _key_start(keyprefix)
        members = (m for key, ms in self._members.items() if key.startswith(key_start) for m in ms)
        names = {member.decode("utf-8", "replace").rsplit(sep, 1)[-1] for member in members}
        return {name for name in names if name and carries_tasks(name)}

    def follow(self, keyprefixes: Iterable[str]) -> None:
        """Look under these prefixes from now on."""
        wanted = frozenset(keyprefixes)
        if wanted != self._keyprefixes:
            self._keyprefixes = wanted
            self._wake.ring()

    def poll(self) -> None:
        """Stop relying on pushes, until the next connection."""
        self.pushes_come = False
        self._wake.ring()

    async def session(self, answered: Callable[[], None]) -> None:
        """Keep the queues up to date until the connection fails or other prefixes are to be followed."""
        followed = self._keyprefixes
        prefixes = [word for start in followed for word in ("PREFIX", start + BINDING)]
        async with connected(self._client, self._note_change) as connection:
            # Tracking comes first: what is bound during the scan is pushed.
            tracked = await connection.track("BCAST", *prefixes)
            self._stale = None
            while self._keyprefixes == followed:
                took = await self._read(connection, followed)
                answered()
                await anyio.sleep(COALESCE_SECONDS)
                if tracked and self.pushes_come:
                    await self._wake.wait(float("inf"))
                elif not await self._wake.wait(max(RESCAN_SECONDS, took / RESCAN_SHARE)):
                    self._stale = None

    async def _read(self, connection: TrackingConnection, keyprefixes: Iterable[str]) -> float:
        """Read what has changed; return how many seconds it took."""
        started, before = time.monotonic(), self._members
        stale, self._stale = self._stale, set()
        if stale is None:
            stale, kept = await _scan(connection, keyprefixes), {}
        else:
            kept = {key: members for key, members in before.items() if key not in stale}
        self._members = kept | await _read_members(connection, stale)
        self.have_been_read = True
        if self._members != before:
            self._on_change()
        return time.monotonic() - started

    def _note_change(self, keys: list[bytes] | None) -> None:
        if keys is None:
            self._stale = None
        elif self._stale is not None:
            self._stale.update(key for key in keys if _may_name_tasks(key))
        self._wake.ring()


def _key_start(keyprefix: str) -> bytes:
    return (keyprefix + BINDING).encode()


def _may_name_tasks(key: bytes) -> bool:
    # The set of reply queues can hold tens of thousands of names that no worker cleaned away.
    return carries_tasks(key.decode("utf-8", "replace").partition(BINDING)[2])


async def _scan(connection: TrackingConnection, keyprefixes: Iterable[str]) -> set[bytes]:
    """Find the binding keys under all prefixes in one pass over the database."""
    starts = tuple(_key_start(keyprefix) for keyprefix in keyprefixes)
    found: set[bytes] = set()
    cursor = b"0"
    while True:
        [answer] = await connection.ask(("SCAN", cursor, "MATCH", f"*{BINDING}*", "COUNT", SCAN_COUNT))
        if isinstance(answer, ResponseError):
            raise answer
        cursor, keys = answer
        found.update(key for key in keys if key.startswith(starts) and _may_name_tasks(key))
        if cursor == b"0":
            return found


async def _read_members(connection: TrackingConnection, keys: set[bytes]) -> dict[bytes, frozenset[bytes]]:
    ordered = list(keys)
    answers = await connection.ask(*(("SMEMBERS", key) for key in ordered))
    members: dict[bytes, frozenset[bytes]] = {}
    for key, answer in zip(ordered, answers, strict=True):
        if isinstance(answer, ResponseError):
            logger.debug("%r is passed over: %s", key, answer)
        elif answer:
            members[key] = frozenset(answer)
    return members
