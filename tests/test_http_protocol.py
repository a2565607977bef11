"""What a connection takes at once of what a client sends; `test_misbehaving` has the rest."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from sidecar.http_protocol import REQUEST_MAX_BYTES, HttpProtocol

# asyncio reads so much at once.
READ_BYTES = 262_144
CHUNK = b"4\r\naaaa\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """Takes everything, and knows whether it has been closed."""

    def __init__(self, ours: socket.socket) -> None:
        super().__init__({"socket": ours})
        self._closed = False

    def is_closing(self) -> bool:
        """Tell it."""
        return self._closed

    def abort(self) -> None:
        """Close it."""
        self._closed = True

    close = abort

    def write(self, data: Any) -> None:
        """Forget it."""

    def pause_reading(self) -> None:
        """What has been read comes all the same."""

    def resume_reading(self) -> None:
        """Nothing more comes."""


@pytest.fixture
async def protocol() -> AsyncIterator[HttpProtocol]:
    """One whose requests nobody answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    protocol = HttpProtocol(config=uvicorn.Config(app), server_state=ServerState(), app_state={})
    with socket.socket() as ours:
        protocol.connection_made(Transport(ours))
        yield protocol
    for task in protocol.tasks:
        task.cancel()
    protocol.connection_lost(None)


async def test_what_is_cut_is_not_parsed_first(protocol: HttpProtocol) -> None:
    """A quarter of a megabyte that comes at once, in chunks of a few bytes, is read no further than one may
    send: while its 29,000 chunks are parsed nobody else is served."""
    protocol.data_received(HEAD + CHUNK * (READ_BYTES // len(CHUNK)))
    assert protocol.transport.is_closing()
    parsed = len(protocol.cycle.body) // 4 * len(CHUNK)
    assert REQUEST_MAX_BYTES / 2 < parsed < REQUEST_MAX_BYTES * 1.5
