"""The one place where the plugin makes Redis clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# How long a stopped Redis may hold the writer; it holds nothing else.
SOCKET_TIMEOUT_SECONDS = 2.0


class BadUrl(ValueError):
    """Raised when redis-py does not understand a URL; does not repeat it, it may hold a password."""


def make_client(url: str, tls: Mapping[str, Any] | None = None) -> Redis:
    """Make a client that never repeats a call by itself; ``tls`` has redis-py's options, the URL's go before.

    With redis-py's defaults one call over a stall of 7 s ran twice (measured); the writer repeats a batch
    under its number instead.
    """
    try:
        client = _client(url, tls or {})
        # An option that redis-py does not know would come out only when the writer connects.
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError):
        raise BadUrl(
            "redis-py does not understand the URL of the Redis for the state, or its TLS options"
        ) from None
    return client


def _client(url: str, tls: Mapping[str, Any]) -> Redis:
    # Not every redis-py knows these for a unix socket.
    only_tcp = {"socket_connect_timeout": SOCKET_TIMEOUT_SECONDS, "socket_keepalive": True}
    return Redis.from_url(
        url,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        decode_responses=False,
        client_name="celery-sidecar-plugin",
        **({} if url.startswith("unix:") else only_tcp),
        **tls,
    )
