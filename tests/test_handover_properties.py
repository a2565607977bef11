"""Whatever happens in whichever order, a client has everything exactly once, or is told to start over.

Random histories of writes, lost and doubled messages, trims, new epochs, outages, killed sidecars, and of
clients that come, go, are slow and change their sidecar. `python -m bench fuzz` looks at more of them.
"""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from hypothesis import given, note, settings
from hypothesis import strategies as st

from sidecar import backlog, catching_up, lost, pump, snapshot, subscriber
from sidecar.feed import Link
from tests.support.asked import Asked
from tests.support.examination import faults_of
from tests.support.handover import MemorySidecar, Page, settle, until
from tests.support.memory_redis import MemoryRedis

WORKERS = ("one", "two")
TASKS = tuple("abcd")
STATUSES = ("reserved", "scheduled", "active", "active", "completed", "failed", "retrying", "pending", "lost")
ASKED = (
    Asked(),
    Asked((("include", "args"), ("snapshot", "all"))),
    Asked((("status", "active"),)),
    Asked((("status", "lost"),)),
    Asked((("task_name", "app.a"), ("task_name", "*.c"))),
    Asked((("queue", "slow"),)),
    Asked((("worker", "celery@one"),)),
    Asked((("task_id", "a"), ("task_id", "b"), ("status", "reserved"), ("status", "scheduled"))),
    Asked((("types", "worker_status"),)),
    Asked((("types", "queue_status"),)),
    Asked(task_id="a"),
    Asked(task_id="c"),
)
# Many more than anything takes until the next of it arrives.
QUIET_TURNS = 200
DOWN_TURNS = 30

step = st.tuples(st.sampled_from(TASKS), st.sampled_from(STATUSES), st.sampled_from(WORKERS))
# To which of the two sidecars a message comes, and how often.
fates = st.sampled_from(((0, 1), (0, 1), (0, 1), (0,), (1,), (), (0, 0, 1, 1)))
which = st.integers(0, 1)
page = st.integers(0, 4)
# After how many a connection is cut; the first two are the head of the answer and how long to wait.
pieces = st.sampled_from((None, None, 3, 4, 5))
writes = st.tuples(st.just("write"), st.lists(step, min_size=1, max_size=5), fates)
operations = st.one_of(
    writes,
    writes,
    writes,
    st.tuples(st.just("worker"), st.sampled_from(WORKERS), st.sampled_from(("online", "offline")), fates),
    st.tuples(st.sampled_from(("nonsense",)), fates),
    st.tuples(st.just("open"), st.sampled_from(ASKED), which, pieces),
    st.tuples(st.sampled_from(("reload", "reconnect", "reconnect")), page, which, pieces),
    st.tuples(st.sampled_from(("block", "unblock", "hang_up")), page),
    st.tuples(st.sampled_from(("cut", "follow", "follow", "pulse", "kill")), which),
    st.tuples(st.sampled_from(("save", "restore", "restart", "empty", "away", "back", "hear_again"))),
    st.tuples(st.just("trim"), st.integers(0, 6)),
    st.tuples(st.just("lease"), st.sampled_from(WORKERS), st.booleans()),
)
histories = st.lists(st.tuples(operations, st.integers(0, 12)), min_size=5, max_size=40)
# How long the log in memory is, and how much is sent, filled and replayed at once.
sizes = st.fixed_dictionaries(
    {
        "log_length": st.sampled_from((3, 10, 1000)),
        "piece": st.sampled_from((1, 3, 250)),
        "turn": st.sampled_from((1, 500)),
        "fill": st.sampled_from((5, 1000)),
        "part": st.sampled_from((1, 200)),
        "age": st.sampled_from((0.0, 1.0)),
        "bookmarks": st.booleans(),
    }
)


class History:
    """Two sidecars beside one Redis, and pages that watch either."""

    def __init__(self, log_length: int, tasks: TaskGroup) -> None:
        self.redis = MemoryRedis()
        self.sidecars: list[MemorySidecar] = []
        self.pages: list[Page] = []
        self._log_length, self._tasks = log_length, tasks
        self._heard: list[bytes] = []

    async def begin(self) -> None:
        """Start both sidecars, and open a page that sees everything."""
        self.sidecars = [await self._start(), await self._start()]
        self.open(ASKED[0], 0, None)

    async def _start(self) -> MemorySidecar:
        sidecar = MemorySidecar(self.redis, self._log_length)
        await self._tasks.start(sidecar.run)
        return sidecar

    def _tell(self, message: bytes, fate: tuple[int, ...]) -> None:
        self._heard.append(message)
        for number in fate:
            self.sidecars[number].subscriber.hear(message)

    def write(self, steps: list[tuple[str, str, str]], fate: tuple[int, ...]) -> None:
        self._tell(self.redis.write(steps), fate)

    def worker(self, worker_id: str, status: str, fate: tuple[int, ...]) -> None:
        self._tell(self.redis.write_worker(worker_id, status), fate)

    def nonsense(self, fate: tuple[int, ...]) -> None:
        self._tell(self.redis.write_nonsense(), fate)

    def hear_again(self) -> None:
        for message in self._heard[-3:]:
            for sidecar in self.sidecars:
                sidecar.subscriber.hear(message)

    def open(self, asked: Asked, which: int, pieces: int | None) -> None:
        self.pages.append(Page(asked))
        self.pages[-1].connect(self.sidecars[which], fresh=True, pieces=pieces)

    def reload(self, number: int, which: int, pieces: int | None) -> None:
        self._page(number).connect(self.sidecars[which], fresh=True, pieces=pieces)

    def reconnect(self, number: int, which: int, pieces: int | None) -> None:
        self._page(number).connect(self.sidecars[which], pieces=pieces)

    def block(self, number: int) -> None:
        self._page(number).block()

    def unblock(self, number: int) -> None:
        self._page(number).unblock()

    def hang_up(self, number: int) -> None:
        self._page(number).hang_up()

    def _page(self, number: int) -> Page:
        return self.pages[number % len(self.pages)]

    def cut(self, which: int) -> None:
        self.sidecars[which].subscriber.cut()

    def follow(self, which: int) -> None:
        self.sidecars[which].connect()

    def pulse(self, which: int) -> None:
        self.sidecars[which].tasks.start_soon(self.sidecars[which].pulse)

    async def kill(self, which: int) -> None:
        """Kill a sidecar; another takes its place."""
        self.sidecars[which].kill()
        self.sidecars[which] = await self._start()

    def lease(self, worker_id: str, runs: bool) -> None:
        (self.redis.alive.add if runs else self.redis.alive.discard)(worker_id)

    async def restart(self) -> None:
        """Redis ends, and is started with all that there was."""
        self.redis.restart()
        await self._down()

    async def restore(self) -> None:
        """The same, with what was saved."""
        self.redis.restore()
        await self._down()

    async def _down(self) -> None:
        # Whoever asks it for several things in a row finds that it is away.
        self.redis.available = False
        for sidecar in self.sidecars:
            sidecar.subscriber.cut()
        await settle(DOWN_TURNS)
        self.redis.available = True

    def away(self) -> None:
        self.redis.available = False

    def back(self) -> None:
        self.redis.available = True

    async def end(self) -> None:
        """Let all be well, and every page be connected; each task and worker that is left is told of again.

        Of what a killed sidecar showed as lost, and nobody else has seen lost, only that brings the truth.
        """
        self.back()
        for sidecar in self.sidecars:
            sidecar.subscriber.cut()
            await until(lambda sidecar=sidecar: not sidecar.subscriber.connected)
            sidecar.connect()
            await until(lambda sidecar=sidecar: sidecar.feed.link is Link.LIVE)
        for number, page in enumerate(self.pages):
            page.keep()
            await settle(5)
            if not page.connected:
                page.connect(self.sidecars[number % 2])
        await self._quiet()
        for task_id, task in list(self.redis.data.tasks.items()):
            self.write([(task_id, task["status"], task["run"].partition("/")[0])], (0, 1))
        for worker_id, record in list(self.redis.data.workers.items()):
            self.worker(worker_id, record["status"], (0, 1))
        await self._quiet()
        for which in (0, 1):
            self.pulse(which)
        await self._quiet()

    async def _quiet(self) -> None:
        """Wait until everything that is on its way has arrived."""
        before = -1
        while before != (now := sum(len(page.told.journal) for page in self.pages)):
            before = now
            await settle(QUIET_TURNS)

    def faults(self) -> list[str]:
        """What is wrong with what the pages were told, and with what they show."""
        shown, truth = self.redis.shown, self.redis.truth
        truth.last = self.redis.position
        found = []
        for page in self.pages:
            found += faults_of(page.told, truth, left=page.told.ended)
            found += shown.differences(page.told, figures=False)
        return found


async def live_through(history: list[tuple[tuple[Any, ...], int]], log_length: int) -> list[str]:
    async with anyio.create_task_group() as tasks:
        lived = History(log_length, tasks)
        await lived.begin()
        for (name, *arguments), turns in history:
            operation = getattr(lived, name, None) or getattr(lived.redis, name)
            if (result := operation(*arguments)) is not None:
                await result
            await settle(turns)
        await lived.end()
        faults = lived.faults()
        for page in lived.pages:
            note(f"{page.told.asked.name}: {page.told.journal}")
        tasks.cancel_scope.cancel()
    return faults


def with_sizes(patch: pytest.MonkeyPatch, sizes: dict[str, Any]) -> None:
    """Make everything small, and nothing wait."""
    for module, name, value in (
        (backlog, "LAG_SECONDS", 0),
        (backlog, "REPLAY_MAX", sizes["fill"]),
        (catching_up, "AGAIN_SECONDS", 0),
        (catching_up, "PIECE_FRAMES", sizes["piece"]),
        (lost, "PATIENCE_SECONDS", 0),
        (pump, "BEAT_SECONDS", 0 if sizes["bookmarks"] else 5),
        (pump, "SILENCE_SECONDS", 1000),
        (pump, "BOOKMARK_EVENTS", 1),
        (pump, "ROUND_FRAMES", sizes["piece"]),
        (pump, "TURN_VIEWERS", sizes["turn"]),
        (snapshot, "MAX_AGE_SECONDS", sizes["age"]),
        (snapshot, "PART_TASKS", sizes["part"]),
        (snapshot, "STEP_TASKS", 1),
        (subscriber, "FILL_MAX", sizes["fill"]),
    ):
        patch.setattr(module, name, value)


@settings(deadline=None, max_examples=settings().max_examples * 2)
@given(histories, sizes)
def test_every_client_is_right(history: list[tuple[tuple[Any, ...], int]], sizes: dict[str, Any]) -> None:
    """Nothing is missed, told twice or kept back in silence; and what is shown is what Redis says."""
    with pytest.MonkeyPatch.context() as patch:
        # Each loss of a connection is told, and Hypothesis keeps all that is.
        patch.setattr(logging.root.manager, "disable", logging.CRITICAL)
        with_sizes(patch, sizes)
        assert [] == anyio.run(live_through, history, sizes["log_length"])
