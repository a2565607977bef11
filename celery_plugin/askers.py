"""Asks a broker that is not a Redis how many messages wait, over one connection of kombu's.

What is told is what the broker calls ready: not what it has delivered and nobody has acknowledged, which the
workers tell of. Transports whose figure is another one are not asked: Azure's and PGMQ's count both, Kafka's
and Google's are right only for their own consumers, and those of a third party may be anything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

logger = logging.getLogger("celery_plugin")

# A broker that answers nothing for this long is given up; until then only the thread that asks waits.
SILENCE_SECONDS = 5.0
# RabbitMQ writes an error into its log each time somebody asks for a queue that is not there.
MISSING_SECONDS = 60.0

# The queues of now that are worth asking for.
Names = Callable[[], Iterable[str]]


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


def _missing_seconds(_: str) -> float:
    return MISSING_SECONDS


class AmqpAsker:
    """Declares queues passively, which changes nothing; one that was refused after a pause, in seconds."""

    def __init__(
        self, names: Names, connection: Any, pause_of: Callable[[str], float] = _missing_seconds
    ) -> None:
        self._names = names
        self._pause_of = pause_of
        # Asked for later, it would be made anew where it is broken.
        self._amqp = connection.connection
        self._channel_errors = connection.channel_errors
        self._channel: Any = None
        self._refused_at: dict[str, float] = {}
        self._limit_silence()

    def queues(self) -> list[str]:
        """The queues by name, without those that were not there a moment ago."""
        return sorted(filter(self._is_due, set(self._names())))

    def _is_due(self, queue: str) -> bool:
        refused_at = self._refused_at.get(queue)
        return refused_at is None or time.monotonic() - refused_at >= self._pause_of(queue)

    def pending(self, queue: str) -> int | None:
        """Ask; a refusal closes the channel, not the connection."""
        try:
            self._channel = self._channel or self._amqp.channel()
            return int(self._channel.queue_declare(queue=queue, passive=True).message_count)
        except self._channel_errors as error:
            self._channel = None
            self._refused_at[queue] = time.monotonic()
            logger.debug("the broker does not tell how many wait in %r: %s", queue, error)
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
    """Asks a transport that kombu makes itself, for queues that somebody consumes, which are therefore there.

    Kombu's passive declaration would make a queue that is missing, and calls an empty one of a Redis missing.
    """

    def __init__(self, names: Names, connection: Any) -> None:
        self._names = names
        self._channel = connection.channel()

    def queues(self) -> list[str]:
        """The queues by name."""
        return sorted(self._names())

    def pending(self, queue: str) -> int | None:
        """Ask."""
        return int(self._channel._size(queue))

    def drop(self) -> None:
        """Nothing to do: what kombu makes itself needs no goodbye."""
