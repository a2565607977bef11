"""How many messages wait in the queues of an AMQP broker, e.g. RabbitMQ, which this sidecar asks itself.

Workers measure it, too, and what they say of their own broker goes first (`sidecar.pulse`). This is for when
no worker is left to say it, which is when queues back up.

The thread that asks is nobody's business: neither the loop nor the end of the process waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from functools import partial
from typing import Final

from celery_plugin import askers
from celery_plugin.askers import AmqpAsker
from celery_plugin.meter import Found, Meter
from sidecar.depths import DEFAULT_QUEUE, QueueDepth

logger = logging.getLogger(__name__)

# As often as workers measure.
INTERVAL_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 5.0
# A round that has taken so long hangs in a way that nobody thought of.
MAX_AGE_SECONDS: Final = 30.0
# After which a queue that only old records name is asked for again where it was not there: somebody may have
# sent something, or the broker's node that has it was away.
FORMER_SECONDS: Final = 600.0


class AmqpWatcher:
    """Asks from the first `watch` until `stop`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._known: frozenset[str] = frozenset()
        self._former: frozenset[str] = frozenset()
        # Queue → its depth, and when by the monotonic clock.
        self._depths: dict[str, tuple[QueueDepth, float]] = {}
        # Of all of the above: the loop and the thread have both in hand.
        self._lock = threading.Lock()
        self._meter = Meter(self, INTERVAL_SECONDS)
        self._started = False

    def watch(self, known: Iterable[str], former: Iterable[str]) -> None:
        """Ask for these: queues that are known, and those of which somebody once told."""
        with self._lock:
            self._known, self._former = frozenset(known), frozenset(former)
        if not self._started:
            self._started = True
            self._meter.start()

    def stop(self) -> None:
        """Let the thread close its connection; nobody waits for that."""
        self._meter.stop()

    def depths(self) -> dict[str, QueueDepth]:
        """What was measured lately; nothing while the broker cannot be asked."""
        oldest = time.monotonic() - MAX_AGE_SECONDS
        with self._lock:
            return {queue: depth for queue, (depth, at) in self._depths.items() if at >= oldest}

    # -- in the thread

    def find(self) -> Found | None:
        """Ask the broker of the URL."""
        try:
            from kombu.connection import Connection
        except ImportError:
            logger.warning("broker: kombu is not installed, so only workers say how many tasks wait in it")
            return None
        # A heartbeat would have to be sent between two rounds.
        connection = Connection(self._url, connect_timeout=CONNECT_SECONDS, heartbeat=0)
        return connection, partial(AmqpAsker, self._names, pause_of=self._pause_of)

    def _names(self) -> frozenset[str]:
        with self._lock:
            return self._known | self._former or frozenset({DEFAULT_QUEUE})

    def _pause_of(self, queue: str) -> float:
        """Asking in vain puts an error into RabbitMQ's log: seldom for what only old records name."""
        with self._lock:
            return FORMER_SECONDS if queue in self._former - self._known else askers.MISSING_SECONDS

    def on_depth(self, queue: str, pending: int | None) -> None:
        """Keep it with its time."""
        with self._lock:
            if pending is None:
                self._depths.pop(queue, None)
            else:
                self._depths[queue] = QueueDepth(pending, None, time.time()), time.monotonic()

    def on_away(self, reason: str) -> None:
        """Forget what was measured: nobody knows how it is now."""
        with self._lock:
            self._depths.clear()
        logger.warning("broker: %s; trying again", reason)

    def on_back(self) -> None:
        """Say so."""
        logger.info("broker: answers again")

    def on_fault(self) -> None:
        """Say where."""
        with self._lock:
            self._depths.clear()
        logger.exception("broker: it is not asked any more how many tasks wait")
