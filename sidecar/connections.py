"""The one place where the sidecar makes Redis clients."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from celery_plugin.redis_servers import read_servers
from celery_plugin.redis_urls import name_check
from sidecar.located import locate

# A question that takes longer than this is answered with "Redis is away": a viewer waits no longer.
SOCKET_TIMEOUT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 3.0


def make_client(url: str, *, protocol: int = 3, key: str = "") -> Redis:
    """Make a client that answers bytes, fails at once and never retries by itself.

    redis-py's own retries hide an outage from the one who must tell the viewers of it. ``key`` is one that a
    Cluster is asked for.
    """
    plain, servers = read_servers(url, key)
    limits: dict[str, Any] = {
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
    }
    client = Redis.from_url(
        plain,
        protocol=protocol,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
        client_name="celery-sidecar",
        # redis-py does not know it for a unix socket.
        **({} if plain.startswith("unix:") else {"socket_keepalive": True}),
        **name_check(plain),
        **limits,
    )
    if servers is not None:
        locate(client, servers, limits)
    return client


def make_dedicated_connection(client: Redis) -> AbstractConnection:
    """Make a connection outside the pool, for one that only listens; not connected yet."""
    connection: AbstractConnection = client.connection_pool.make_connection()
    return connection
