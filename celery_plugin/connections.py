"""The one place where the plugin makes Redis clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_plugin.located import locate
from celery_plugin.redis_servers import Servers

# How long a stopped Redis may hold the writer; it holds nothing else.
SOCKET_TIMEOUT_SECONDS = 2.0
# Not every redis-py knows these for a unix socket.
_TCP = {"socket_connect_timeout": SOCKET_TIMEOUT_SECONDS, "socket_keepalive": True}


class BadUrl(ValueError):
    """Raised when redis-py does not understand a URL; does not repeat it, it may hold a password."""


def make_client(url: str, tls: Mapping[str, Any] | None = None, servers: Servers | None = None) -> Redis:
    """Make a client that never repeats a call by itself; ``tls`` has redis-py's options, the URL's go before.

    With redis-py's defaults one call over a stall of 7 s ran twice (measured); the writer repeats a batch
    under its number instead. ``servers`` know what is to stand in the URL.
    """
    try:
        client = _client(url, tls or {})
        # An option that redis-py does not know would come out only when the writer connects.
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)
        if servers is not None:
            locate(client, servers, _TCP | {"socket_timeout": SOCKET_TIMEOUT_SECONDS})
    except (TypeError, ValueError):
        raise BadUrl(
            "redis-py does not understand the URL of the Redis for the state, or its TLS options"
        ) from None
    return client


def _client(url: str, tls: Mapping[str, Any]) -> Redis:
    client = Redis.from_url(
        url,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        decode_responses=False,
        client_name="celery-sidecar-plugin",
        **({} if url.startswith("unix:") else _TCP),
        **tls,
    )
    pool = client.connection_pool
    pool.connection_class = _whole(pool.connection_class)
    return client


def _whole(base: Any) -> Any:
    """Make a connection class that sends a call in one write.

    redis-py cuts it every 6,000 bytes: 15 writes a batch, each with a system call here and one in Redis; and
    it copies what it has so far with each argument.
    """

    class Whole(base):  # type: ignore[misc]  # chosen at run time
        def send_command(self, *args: Any, **kwargs: Any) -> None:
            if args[0] != "EVALSHA":
                super().send_command(*args, **kwargs)
                return
            parts = [b"*%d\r\n" % len(args)]
            for arg in args:
                data = arg if isinstance(arg, bytes) else self.encoder.encode(arg)
                parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
            self.send_packed_command([b"".join(parts)], **kwargs)

    return Whole
