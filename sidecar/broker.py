"""How many messages wait in each queue of a Redis broker, known as it happens.

Client tracking tells that a list has changed, one LLEN reads it and re-arms the tracking. Where the
server does not track, the lists are read every second.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import anyio
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from sidecar.bindings import BindingWatcher
from sidecar.depths import DEFAULT_QUEUE, BrokerFacts, QueueDepth, Reading, differ, measure, show_the_same
from sidecar.heads import Heads
from sidecar.tally import DRIFT, counts
from sidecar.tracking import Bell, TrackingConnection, connected, supervise

__all__ = ["BrokerFacts", "BrokerWatcher", "QueueDepth"]

logger = logging.getLogger(__name__)

# A flood of messages is read twenty times a second, not once a message.
COALESCE_SECONDS: Final = 0.05
# Tracking is trusted, and checked: some proxies accept it and never push.
CHECK_SECONDS: Final = 5.0
POLL_SECONDS: Final = 1.0


class BrokerWatcher:
    """Keeps `depths` up to date while `run` runs, and calls ``on_change`` when they show something else."""

    def __init__(self, client: Redis, extra_queues: Iterable[str], on_change: Callable[[], None]) -> None:
        self._client = client
        self._on_change = on_change
        self._always = frozenset(extra_queues) | {DEFAULT_QUEUE}
        # Queues that workers name, by the facts under which they name them.
        self._named: dict[BrokerFacts, frozenset[str]] = {}
        self._bindings = BindingWatcher(client, self._arrange)
        # The lists to read: key → the steps and queues that it counts for.
        self._lists: dict[bytes, set[tuple[str, int]]] = {}
        self._readings: dict[bytes, Reading] = {}
        # Lists that may have changed since they were last read.
        self._stale: set[bytes] = set()
        # Lists that cannot be read, already logged.
        self._unreadable: set[bytes] = set()
        self._depths: dict[str, QueueDepth] | None = None
        self._heads = Heads()
        self._tracked = False
        self._polling_logged = False
        self._wake = Bell()
        self._urgent = Bell()
        self._reading = False
        self._round_over = anyio.Event()
        self._last_round = self._next_check = 0.0
        self._arrange()

    @property
    def depths(self) -> Mapping[str, QueueDepth] | None:
        """Depth by queue, empty queues too; None while the broker cannot be asked."""
        return self._depths

    @property
    def oldest_since(self) -> float | None:
        """Since when the message waits at least that was seen first; None where it is not known."""
        return self._heads.oldest_since

    @property
    def knows_bindings(self) -> bool:
        """Whether the queues that nobody consumes have been looked for."""
        return self._bindings.have_been_read

    def queues(self) -> list[str]:
        """The names of the queues that are known, in their order."""
        return sorted({queue for counted in self._lists.values() for queue, _ in counted})

    def lists_of(self, queue: str) -> list[list[tuple[int, bytes]]]:
        """Step and key of each list of a queue, as they are taken from, for each key prefix by itself."""
        groups: defaultdict[str, set[tuple[int, bytes]]] = defaultdict(set)
        for facts in self._named or {BrokerFacts(): frozenset[str]()}:
            keys = {(step, facts.key(queue, step)) for step in facts.priority_steps}
            groups[facts.global_keyprefix] |= keys
        return [sorted(group) for _, group in sorted(groups.items())]

    def watch(self, queues: Iterable[str], facts: BrokerFacts) -> None:
        """Watch the queues that workers with these facts name, in place of what they named before.

        Every queue that is watched anyway is looked for under all facts ever given; kombu's
        defaults count only until the first are given.
        """
        named = frozenset(queues)
        if self._named.get(facts) != named:
            self._named[facts] = named
            self._arrange()

    async def refresh(self) -> None:
        """Read now what is known to have changed, without the pause between two rounds.

        Never raises an error of Redis: where it cannot be asked, `depths` is None afterwards.
        """
        # The round under way may have begun before what the caller knows of; the next one has not.
        for _ in range(2):
            self._note_poll_due()
            if self._depths is None or not (self._stale or self._reading):
                return
            self._urgent.ring()
            self._wake.ring()
            await self._round_over.wait()

    async def run(self) -> None:
        """Watch for ever, over outages of the broker; to be cancelled by its owner."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervise, self._session, "broker, depths of the queues")
            tasks.start_soon(supervise, self._bindings.session, "broker, bindings of the queues")

    # -- which lists there are

    def _arrange(self) -> None:
        lists: defaultdict[bytes, set[tuple[str, int]]] = defaultdict(set)
        everyone = self._named or {BrokerFacts(): frozenset[str]()}
        for facts, named in everyone.items():
            bound = self._bindings.queues(facts.global_keyprefix, facts.sep)
            for queue in self._always | named | bound:
                for step in facts.priority_steps:
                    lists[facts.key(queue, step)].add((queue, step))
        self._stale = (self._stale & lists.keys()) | (lists.keys() - self._lists.keys())
        self._lists = dict(lists)
        self._readings = {key: reading for key, reading in self._readings.items() if key in lists}
        self._bindings.follow(facts.global_keyprefix for facts in everyone)
        self._wake.ring()

    # -- one connection

    async def _session(self, answered: Callable[[], None]) -> None:
        try:
            async with connected(self._client, self._note_change) as connection:
                self._tracked = self._bindings.pushes_come = await connection.track()
                if not self._tracked:
                    self._log_polling("CLIENT TRACKING is refused")
                self._readings, self._next_check = {}, 0.0
                while True:
                    due_to_change = bool(self._stale)
                    await self._round(connection)
                    answered()
                    # A round that only checked must not make the next change wait.
                    if due_to_change:
                        await self._urgent.wait(COALESCE_SECONDS)
                    await self._wake.wait(min(self._next_check, self._heads.next_look) - time.monotonic())
        finally:
            self._heads.forget()
            self._set_depths(None)
            self._end_round()

    async def _round(self, connection: TrackingConnection) -> None:
        self._urgent.silence()
        self._reading = True
        if time.monotonic() >= self._next_check:
            await self._check(connection)
        else:
            await self._read(connection, self._stale)
        self._set_depths(measure(self._lists, self._readings))
        self._end_round()
        await self._look_at_heads(connection)

    def _end_round(self) -> None:
        self._reading = False
        self._last_round = time.monotonic()
        self._round_over.set()
        self._round_over = anyio.Event()

    async def _check(self, connection: TrackingConnection) -> None:
        """Read every list; where one has changed and no push said so, stop relying on pushes."""
        before, told = self._readings.copy(), self._stale.copy()
        await self._read(connection, self._lists)
        if self._tracked:
            missed = {key for key in self._lists if differ(before.get(key), self._readings.get(key))}
            if missed - told - self._stale:
                # A list that expired under this very read is pushed after the answers (Redis 7).
                await connection.ask(("PING",))
            if missed - told - self._stale:
                self._stop_tracking()
        self._next_check = time.monotonic() + (CHECK_SECONDS if self._tracked else POLL_SECONDS)

    def _stop_tracking(self) -> None:
        counts().add(DRIFT, value="queues")
        self._log_polling("a queue changed and no push said so")
        self._tracked = False
        self._bindings.poll()

    def _log_polling(self, why: str) -> None:
        if not self._polling_logged:
            self._polling_logged = True
            logger.warning("broker: %s, so its queues are read every %g s", why, POLL_SECONDS)

    async def _read(self, connection: TrackingConnection, keys: Iterable[bytes]) -> None:
        asked = [key for key in keys if key in self._lists]
        self._heads.note_change(asked)
        # Before asking: what is pushed from here on may be newer than the answer.
        self._stale.difference_update(asked)
        answers = await connection.ask(*(("LLEN", key) for key in asked))
        at = time.time()
        for key, answer in zip(asked, answers, strict=True):
            if key in self._lists:
                self._take(key, answer, at)
        forbidden = [answer for answer in answers if isinstance(answer, NoPermissionError)]
        if forbidden and not self._readings:
            # Not one list may be read: that is "could not be asked", never "nothing waits".
            raise forbidden[0]

    async def _look_at_heads(self, connection: TrackingConnection) -> None:
        """Last, when those who waited for the depths have them: a message may be large."""
        keys, before = self._heads.due(self._lists, self._readings), self._heads.oldest_since
        # Not LINDEX, which answers null where a list has gone: no command here may.
        answers = await connection.ask(*(("LRANGE", key, -1, -1) for key in keys))
        for key, answer in zip(keys, answers, strict=True):
            self._heads.take(key, answer)
        if self._heads.oldest_since != before:
            self._on_change()

    def _take(self, key: bytes, answer: Any, at: float) -> None:
        if not isinstance(answer, ResponseError):
            self._readings[key] = Reading(answer, at)
            self._unreadable.discard(key)
            return
        if not _concerns_one_key(answer):
            raise answer
        self._readings.pop(key, None)
        if key not in self._unreadable:
            self._unreadable.add(key)
            logger.warning("broker: %r is left out: %s", key.decode("utf-8", "replace"), answer)

    # -- what it comes to

    def _set_depths(self, depths: dict[str, QueueDepth] | None) -> None:
        before, self._depths = self._depths, depths
        if not show_the_same(before, depths):
            self._on_change()

    # -- what makes a list worth reading

    def _note_change(self, keys: list[bytes] | None) -> None:
        self._stale.update(self._lists if keys is None else self._lists.keys() & keys)
        self._wake.ring()

    def _note_poll_due(self) -> None:
        """Where nothing tells of changes, anything may have changed since the last round."""
        if not self._tracked and time.monotonic() - self._last_round >= COALESCE_SECONDS:
            self._stale.update(self._lists)


def _concerns_one_key(refusal: ResponseError) -> bool:
    """Tell a key that is no list, or that an ACL hides, from a server that answers nothing."""
    return str(refusal).startswith("WRONGTYPE") or isinstance(refusal, NoPermissionError)
