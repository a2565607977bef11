"""Connections to a server that others name: the master of Sentinels, the node of a Cluster with the keys.

As `celery_plugin.located`, for asyncio. The connections of a pool may outlive the place they lead to: one
that is told that the keys have moved is closed, and when the server is another one, all that are not in use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004  # redis-py's
    RedisError,
    ResponseError,
)

from celery_plugin.redis_servers import (
    Address,
    Away,
    Found,
    NotFound,
    Question,
    Servers,
    read_moved,
    read_refusal,
)


def locate(client: Redis, servers: Servers, limits: Mapping[str, Any]) -> None:
    """Let the client's connections be opened where the servers say; ``limits`` are of those to Sentinels."""
    pool = client.connection_pool
    finder = _Finder(servers, pool.connection_class, dict(pool.connection_kwargs), limits)
    before: Address | None = None

    async def find() -> Address:
        nonlocal before
        found = await finder.find()
        if found != before:
            before = found
            await pool.disconnect(inuse_connections=False)
        return found

    pool.connection_class = _located(pool.connection_class, find)


def _located(base: Any, find: Callable[[], Awaitable[Address]]) -> Any:
    class Located(base):  # type: ignore[misc]  # chosen at run time
        async def _connect(self) -> None:
            self.host, self.port = await find()
            await super()._connect()

        async def read_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().read_response(*args, **kwargs)
            except ResponseError as error:
                if read_moved(error) is None:
                    raise
                await self.disconnect()
                raise ConnectionError("the keys have moved to another node") from None

    return Located


class _Finder:
    """Asks over connections that live for one question."""

    def __init__(
        self, servers: Servers, connection_class: Any, options: dict[str, Any], limits: Mapping[str, Any]
    ) -> None:
        self._servers = servers
        self._connection_class = connection_class
        self._options = options
        self._limits = limits
        # Who answered last, and is asked first: the first of the URL may be the one that is away.
        self._first: Address | None = None

    async def find(self) -> Address:
        """Find the server; raises redis-py's ConnectionError."""
        search = self._servers.search(self._first)
        try:
            question = next(search)
            while True:
                question = search.send(await self._ask(question))
        except StopIteration as stop:
            found: Found = stop.value
            self._first = found.by
            return found.address
        except NotFound as error:
            raise ConnectionError(str(error)) from None

    async def _ask(self, question: Question) -> Any:
        connection = self._connection(question)
        try:
            await connection.connect()
            await connection.send_command(*question.command)
            return await connection.read_response()
        except (ResponseError, AuthenticationError) as error:
            return read_refusal(error)
        except (RedisError, OSError) as error:
            return Away(str(error) or type(error).__name__)
        finally:
            await connection.disconnect(nowait=True)

    def _connection(self, question: Question) -> Any:
        host, port = question.address
        if question.options is None:
            return self._connection_class(**{**self._options, "host": host, "port": port})
        options = {**self._limits, **question.options, "host": host, "port": port}
        return Redis(**options, retry=Retry(NoBackoff(), 0)).connection_pool.make_connection()
