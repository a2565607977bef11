"""What a connection takes at once of what a client sends; `test_misbehaving` has the rest."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import uvicorn
from uvicorn.server import ServerState

from deploy.demo.ports import HOST
from sidecar.http_protocol import READ_BYTES, REQUEST_MAX_BYTES, HttpProtocol

CHUNK = b"4\r\naaaa\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
# Much more than one may send, and than the kernel hands over at a time.
TOO_MUCH = HEAD + CHUNK * 30_000


class Listening(HttpProtocol):
    """Knows what it was given in each turn of the loop."""

    def __init__(self, pieces: list[int], **options: Any) -> None:
        super().__init__(**options)
        self._pieces = pieces

    def data_received(self, data: bytes) -> None:
        """Take a piece."""
        self._pieces.append(len(data))
        super().data_received(data)


class Served:
    """A server whose requests nobody answers, and what was read of its clients."""

    def __init__(self, server: asyncio.Server, pieces: list[int]) -> None:
        self.address: tuple[str, int] = server.sockets[0].getsockname()
        self.pieces = pieces


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """On asyncio's own loop."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    pieces: list[int] = []
    options: dict[str, Any] = {
        "config": uvicorn.Config(app),
        "server_state": ServerState(),
        "app_state": {},
    }
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Listening(pieces, **options), HOST, 0) as server:
        yield Served(server, pieces)


async def test_what_is_cut_is_not_parsed_first(served: Served) -> None:
    """A quarter of a megabyte that comes at once, in chunks of a few bytes, is read no further than one may
    send, and others have a turn in between: while its 30,000 chunks are parsed nobody else is served."""
    with socket.create_connection(served.address) as client, pytest.raises(ConnectionError):
        await anyio.to_thread.run_sync(_send_until_cut, client)
    assert max(served.pieces) <= READ_BYTES
    assert REQUEST_MAX_BYTES < sum(served.pieces) <= REQUEST_MAX_BYTES + READ_BYTES


def _send_until_cut(client: socket.socket) -> None:
    client.settimeout(10)
    client.sendall(TOO_MUCH)
    # What the kernel has taken may be all of it.
    client.recv(1)
