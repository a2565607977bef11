"""The one place where the plugin makes Redis clients."""

from __future__ import annotations

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# How long a stopped Redis may hold the writer; it holds nothing else.
SOCKET_TIMEOUT_SECONDS = 2.0


class BadUrl(ValueError):
    """Raised when redis-py does not understand a URL; does not repeat it, it may hold a password."""


def make_client(url: str) -> Redis:
    """Make a client that never repeats a call by itself.

    With redis-py's defaults one call over a stall of 7 s ran twice (measured); the writer repeats a batch
    under its number instead.
    """
    try:
        client = _client(url)
        # An option that redis-py does not know would come out only when the writer connects.
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError):
        raise BadUrl("redis-py does not understand the URL of the Redis for the state") from None
    return client


def _client(url: str) -> Redis:
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
