"""The one place where the plugin makes Redis clients."""

from __future__ import annotations

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# How long a stopped Redis may hold the writer; it holds nothing else.
SOCKET_TIMEOUT_SECONDS = 2.0


def make_client(url: str) -> Redis:
    """Make a client that never repeats a call by itself.

    With redis-py's defaults one call over a stall of 7 s ran twice (measured); the writer repeats a batch
    under its number instead.
    """
    return Redis.from_url(
        url,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        decode_responses=False,
        client_name="celery-sidecar-plugin",
    )
