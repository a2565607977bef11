"""How many messages wait in the queues of a broker that the sidecar cannot read itself: not a Redis.

A native thread asks the worker's broker over a connection of its own. Nobody waits for it, neither a task nor
the end of the worker: where the broker hangs, so does this thread alone, until the broker has been silent for
``SILENCE_SECONDS``. Under gevent the sockets of this thread are gevent's, with an event loop of their own.

What is told is what the broker calls ready: not what it has delivered and nobody has acknowledged, which the
workers tell of. Transports whose figure is another one are not asked: Azure's and PGMQ's count both, Kafka's
and Google's are right only for their own consumers, and those of a third party may be anything.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol

from celery_plugin import native
from celery_plugin.contract import encode
from celery_plugin.writer import DEPTH, Observe

logger = logging.getLogger("celery_plugin")

# A broker that answers nothing for this long is given up; until then only this thread waits.
SILENCE_SECONDS = 5.0
LAST_RETRY_SECONDS = 30.0
# RabbitMQ writes an error into its log each time somebody asks for a queue that is not there.
MISSING_SECONDS = 60.0
# Kept open longer without a word, a connection is one that firewalls and brokers drop.
IDLE_SECONDS = 30.0


class Asker(Protocol):
    """Asks one kind of broker over one connection."""

    def queues(self) -> list[str]:
        """The queues to ask for."""
        ...

    def pending(self, queue: str) -> int | None:
        """How many messages are ready; None where the broker does not know the queue."""
        ...

    def drop(self) -> None:
        """Let go of the connection without a goodbye, for which a broker that hangs would be waited for."""
        ...


class AmqpAsker:
    """Declares queues passively, which changes nothing; also queues that the worker only knows."""

    def __init__(self, app: Any, connection: Any) -> None:
        self._app = app
        # Asked for later, it would be made anew where it is broken.
        self._amqp = connection.connection
        self._channel_errors = connection.channel_errors
        self._channel: Any = None
        self._ask_again_at: dict[str, float] = {}
        self._limit_silence()

    def queues(self) -> list[str]:
        """The worker's queues, without those that were not there a moment ago."""
        known = {*self._app.amqp.queues, *self._app.amqp.queues.consume_from}
        now = time.monotonic()
        return sorted(queue for queue in known if self._ask_again_at.get(queue, 0.0) <= now)

    def pending(self, queue: str) -> int | None:
        """Ask; a refusal closes the channel, not the connection."""
        try:
            self._channel = self._channel or self._amqp.channel()
            return int(self._channel.queue_declare(queue=queue, passive=True).message_count)
        except self._channel_errors as error:
            self._channel = None
            self._ask_again_at[queue] = time.monotonic() + MISSING_SECONDS
            logger.debug("celery_plugin: the broker does not tell how many wait in %r: %s", queue, error)
            return None

    def drop(self) -> None:
        """Close the socket."""
        self._amqp.collect()

    def _limit_silence(self) -> None:
        # py-amqp waits for ever, and its own read_timeout is no end: it goes on after EAGAIN.
        sock = getattr(self._amqp.transport, "sock", None)
        if sock is not None:
            sock.settimeout(SILENCE_SECONDS)


class VirtualAsker:
    """Asks a transport that kombu makes itself, for what the worker consumes.

    Kombu's passive declaration would make a queue that is missing, and calls an empty one of a Redis missing.
    """

    def __init__(self, app: Any, connection: Any) -> None:
        self._app = app
        self._channel = connection.channel()

    def queues(self) -> list[str]:
        """The queues that the worker consumes, which are therefore there."""
        return sorted(self._app.amqp.queues.consume_from)

    def pending(self, queue: str) -> int | None:
        """Ask."""
        return int(self._channel._size(queue))

    def drop(self) -> None:
        """Nothing to do: what kombu makes itself needs no goodbye."""


# By the type of kombu's driver; the lists of a Redis the sidecar reads itself.
_ASKERS: dict[str, Callable[[Any, Any], Asker]] = {
    "amqp": AmqpAsker,
    "filesystem": VirtualAsker,
    "memory": VirtualAsker,
    "sqs": VirtualAsker,
}


def asker_of(app: Any) -> tuple[Any, Callable[[Any, Any], Asker]] | None:
    """Make the connection, still closed, with who asks over it; None where nobody needs to ask, or can."""
    # A heartbeat would have to be sent between two rounds.
    connection = app.connection_for_read(heartbeat=0)
    kind = connection.transport.driver_type
    if kind == "redis":
        return None
    if kind not in _ASKERS:
        logger.debug("celery_plugin: a broker of type %s does not tell how many messages wait", kind)
        return None
    return connection, _ASKERS[kind]


class DepthMeter:
    """Measures at each interval; all but ``start`` and ``stop`` runs in its thread."""

    def __init__(self, app: Any, observe: Observe, every_seconds: float) -> None:
        self._app = app
        self._observe = observe
        self._every_seconds = every_seconds
        self._connection: Any = None
        self._asker: Asker | None = None
        self._away = False
        self._retry_seconds = every_seconds
        self._wake = native.Signal()
        self._stopping = False

    def start(self) -> None:
        """Start the thread."""
        native.start_thread(self._run)

    def stop(self) -> None:
        """Let the thread close its connection; nobody waits for that."""
        self._stopping = True
        self._wake.set()

    def _run(self) -> None:
        try:
            found = asker_of(self._app)
            if found is not None:
                self._connection, make_asker = found
                self._measure_until_stopped(make_asker)
        except Exception:
            # Where the broker's driver is odd, the depths are missing, and nothing else.
            logger.exception("celery_plugin: the broker is not asked how many messages wait")

    def _measure_until_stopped(self, make_asker: Callable[[Any, Any], Asker]) -> None:
        while not self._stopping:
            self._wake.wait(self._round(make_asker))
        self._connection.release()

    def _round(self, make_asker: Callable[[Any, Any], Asker]) -> float:
        """Measure once; return after how many seconds to measure again."""
        try:
            if self._asker is None:
                # One more attempt: it goes to the next URL where there are several.
                self._connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
                self._asker = make_asker(self._app, self._connection)
            for queue, pending in self._depths(self._asker):
                depth = {"pending": pending, "measured_at": round(time.time(), 6)}
                self._observe(DEPTH, {"of": queue, "json": encode(depth)})
        except Exception as error:
            return self._on_failure(error)
        return self._on_success()

    def _depths(self, asker: Asker) -> Iterator[tuple[str, int]]:
        for queue in asker.queues():
            pending = None if self._stopping else asker.pending(queue)
            if pending is not None:
                yield queue, pending

    def _on_success(self) -> float:
        if self._away:
            logger.debug("celery_plugin: the broker tells again how many messages wait")
        self._away, self._retry_seconds = False, self._every_seconds
        if self._every_seconds > IDLE_SECONDS:
            self._disconnect()
        return self._every_seconds

    def _on_failure(self, error: Exception) -> float:
        if not self._away and not self._stopping:
            logger.warning(
                "celery_plugin: cannot ask the broker how many messages wait, trying again: %s",
                self._without_password(error),
            )
        self._away = True
        self._disconnect()
        seconds = self._retry_seconds * random.uniform(0.5, 1.0)
        self._retry_seconds = min(self._retry_seconds * 2, max(LAST_RETRY_SECONDS, self._every_seconds))
        return seconds

    def _disconnect(self) -> None:
        asker, self._asker = self._asker, None
        with suppress(Exception):  # It is broken anyway.
            if asker is not None:
                asker.drop()
            self._connection.release()

    def _without_password(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        password = self._connection.password
        return text.replace(password, "***") if isinstance(password, str) and password else text
