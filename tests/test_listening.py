"""The socket on which the sidecar listens gives its connections what viewers need."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress

from deploy.demo.ports import HOST
from sidecar.listening import UNSENT_BYTES, listen

EVENT = b"x" * 400


def test_who_reads_nothing_is_soon_full() -> None:
    """The kernel takes a few events more than such a client has room for, not a hundred kilobytes: each is
    sent, at the cost of one for a viewer who reads."""
    with ExitStack() as stack:
        listener = stack.enter_context(listen(HOST, 0))
        client = stack.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(listener.getsockname())
        ours = stack.enter_context(listener.accept()[0])
        ours.setblocking(False)
        taken = 0
        with suppress(BlockingIOError):
            while taken < UNSENT_BYTES * 2:
                taken += ours.send(EVENT)
        assert UNSENT_BYTES / 2 < taken < UNSENT_BYTES * 2
