"""A Redis connection that asks questions and hears, in between, which keys have changed.

Departures from the plain use of redis-py, each for one of its habits:

* One task reads everything. A push may come between a question and its answer, so a reader for
  each question would take the other's bytes.
* Reads keep ``timeout=None``, which means the connection's own limit. With a timeout given,
  redis-py takes the kernel's ETIMEDOUT for its own and answers None at once, for ever.
* The parser's handlers of pushes are set directly; without one a push comes out as None, and the
  names of the keys are lost.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn

import anyio
import anyio.lowlevel
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from sidecar.connections import make_dedicated_connection

logger = logging.getLogger(__name__)

Command = tuple[str | bytes | int, ...]
# What has changed: the keys, or None when everything may have (FLUSHALL).
OnInvalidation = Callable[[list[bytes] | None], None]

RESP2, RESP3 = 2, 3
PING_SECONDS: Final = 2.0
# Nothing heard for this long, though PING asks every 2 s: the connection is dead, whatever TCP says.
SILENCE_SECONDS: Final = 6.0
# A server with thousands of queues answers in one piece; reading it lets others run now and then.
ANSWERS_IN_A_ROW: Final = 200
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0
# What a broken connection raises; anything else is a mistake in this program and is not retried.
CONNECTION_FAULTS: Final = (RedisError, OSError)


class Bell:
    """What wakes a loop: a ring while nobody waits is kept until somebody does."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        self._rung.set()

    def silence(self) -> None:
        if self._rung.is_set():
            self._rung = anyio.Event()

    async def wait(self, seconds: float) -> bool:
        """Return when the bell rings, or after so many seconds; tell whether it rang."""
        with anyio.move_on_after(seconds):
            await self._rung.wait()
        rang = self._rung.is_set()
        self.silence()
        return rang


class _Push:
    """Something that the server said without being asked."""


_PUSH: Final = _Push()


class _Question:
    """Commands that were sent, and the answers that have come so far."""

    def __init__(self, commands: int) -> None:
        self.missing = commands
        self.answers: list[Any] = []
        self.answered = anyio.Event()

    def take(self, answer: object) -> bool:
        """Add an answer; return whether it was the last one."""
        self.answers.append(answer)
        if len(self.answers) < self.missing:
            return False
        self.answered.set()
        return True


class TrackingConnection:
    """Made by `connected`, which owns its tasks."""

    def __init__(self, connection: AbstractConnection, on_invalidation: OnInvalidation) -> None:
        self._connection = connection
        self._on_invalidation = on_invalidation
        # Questions without all of their answers, in the order in which they were sent …
        self._open: deque[_Question] = deque()
        # … which this lock makes the order on the wire too.
        self._sending = anyio.Lock()

    async def ask(self, *commands: Command) -> list[Any]:
        """Send commands in one piece; return their answers, a ResponseError in place of a refused one."""
        if not commands:
            return []
        question = _Question(len(commands))
        async with self._sending:
            self._open.append(question)
            await self._connection.send_packed_command(self._connection.pack_commands(commands))
        await question.answered.wait()
        return question.answers

    async def track(self, *options: str) -> bool:
        """Ask the server to say what changes; return False where it will not."""
        if self._connection.protocol != RESP3:
            return False
        [answer] = await self.ask(("CLIENT", "TRACKING", "ON", *options))
        if isinstance(answer, ResponseError):
            logger.debug("CLIENT TRACKING is refused: %s", answer)
        return not isinstance(answer, ResponseError)

    def hear_pushes(self) -> None:
        """Take pushes out of the parser's hands; RESP2 has none."""
        parser: Any = self._connection._parser
        if self._connection.protocol == RESP3:
            parser.set_invalidation_push_handler(self._take_invalidation)
            parser.set_pubsub_push_handler(self._take_other_push)

    async def _take_invalidation(self, push: Sequence[Any]) -> _Push:
        self._on_invalidation(push[1])
        return _PUSH

    async def _take_other_push(self, push: object) -> _Push:
        return _PUSH

    async def read(self) -> NoReturn:
        """Give each answer to the oldest open question, for ever."""
        while True:
            for _ in range(ANSWERS_IN_A_ROW):
                answer = await self._read_one()
                # None is a push of a kind that redis-py swallows: no command sent here answers null.
                if answer is not _PUSH and answer is not None:
                    self._hand_over(answer)
            await anyio.lowlevel.checkpoint()

    def _hand_over(self, answer: object) -> None:
        if not self._open:
            raise InvalidResponse("an answer to no question")
        if self._open[0].take(answer):
            self._open.popleft()

    async def _read_one(self) -> object:
        try:
            # Only `connected` disconnects, after all who send have ended: one that is just about
            # to write would find the writer gone, or connect anew behind everybody's back.
            return await self._connection.read_response(push_request=True, disconnect_on_error=False)
        except ResponseError as refusal:
            return refusal

    async def ping(self) -> NoReturn:
        """Keep the server talking: that it stops is how a dead connection is noticed."""
        while True:
            await anyio.sleep(PING_SECONDS)
            await self.ask(("PING",))


@asynccontextmanager
async def connected(client: Redis, on_invalidation: OnInvalidation) -> AsyncIterator[TrackingConnection]:
    """Open a connection and keep it alive; one of CONNECTION_FAULTS ends the block and is raised."""
    raw = await _open(client)
    faults: list[Exception] = []

    async def cancel_on_fault(work: Callable[[], Awaitable[NoReturn]]) -> None:
        try:
            await work()
        except CONNECTION_FAULTS as fault:
            faults.append(fault)
            tasks.cancel_scope.cancel()

    try:
        connection = TrackingConnection(raw, on_invalidation)
        connection.hear_pushes()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_fault, connection.read)
            tasks.start_soon(cancel_on_fault, connection.ping)
            try:
                yield connection
            except CONNECTION_FAULTS as fault:
                faults.append(fault)
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await raw.disconnect(nowait=True)
    if faults:
        raise faults[0]


async def _open(client: Redis) -> AbstractConnection:
    """Connect with RESP3, or with RESP2 where HELLO is refused (a proxy, a server before 6.0, an ACL)."""
    connection = make_dedicated_connection(client)
    try:
        return await _connect(connection)
    except ResponseError as refusal:
        logger.debug("RESP3 is refused: %s", refusal)
    pool = client.connection_pool
    # Notices of maintenance need RESP3: redis-py 8 will not make a connection of RESP2 with them.
    options = {name: value for name, value in pool.connection_kwargs.items() if "maint_" not in name}
    return await _connect(pool.connection_class(**{**options, "protocol": RESP2}))


async def _connect(connection: AbstractConnection) -> AbstractConnection:
    connection.socket_timeout = SILENCE_SECONDS
    try:
        await connection.connect()
    except BaseException:  # also a cancellation, or half a connection would stay open
        with anyio.CancelScope(shield=True):
            await connection.disconnect(nowait=True)
        raise
    return connection


async def supervise(session: Callable[[Callable[[], None]], Awaitable[None]], what: str) -> NoReturn:
    """Run the session for ever, with a pause after each failure.

    A session is given a function to call once it has had its first answer: from then on a failure
    is a new one, logged again and followed by the shortest pause.
    """
    failures, logged = 0, ""

    def answered() -> None:
        nonlocal failures, logged
        if logged:
            logger.info("%s: answers again", what)
        failures, logged = 0, ""

    while True:
        try:
            await session(answered)
        except CONNECTION_FAULTS as fault:
            if str(fault) != logged:
                logged = str(fault)
                logger.warning("%s: %s; trying again", what, fault)
            await anyio.sleep(_pause(failures))
            failures += 1


def _pause(failures: int) -> float:
    """Seconds until the next attempt; the jitter keeps replicas from knocking all at once."""
    pause: float = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failures, 10))
    return pause * random.uniform(0.5, 1.0)
