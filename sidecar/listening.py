"""The socket on which the sidecar listens, and how several processes come to share its port."""

from __future__ import annotations

import socket

BACKLOG = 2048
SEND_BUFFER_BYTES = 65_536
# What a viewer has not taken may wait in the kernel up to this; what is on its way to it comes on top.
UNSENT_BYTES = 16_384
# A peer that acknowledges nothing for so long has gone, without a word; TCP itself waits for 15 minutes.
SILENT_PEER_MS = 20_000


class Listener(socket.socket):
    """Lets `BACKLOG` clients wait, whatever asyncio says, which takes as many at once as may wait."""

    def listen(self, backlog: int = BACKLOG) -> None:
        """Listen."""
        super().listen(BACKLOG)


def listen(host: str, port: int, *, shares: bool = False) -> Listener:
    """Listen; where the port is shared, the kernel deals the connections out among all who listen so."""
    made = socket.create_server((host, port), family=_family(host), backlog=BACKLOG, reuse_port=shares)
    listener = Listener(fileno=made.detach())
    # Each connection inherits it; asyncio leaves it out for sockets that it did not make itself, and then
    # the second of two small writes waits 40 ms for the viewer's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # What a viewer that has stopped reading holds in the kernel; it would grow to 4 MB.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Until then one that reads nothing costs what a viewer does; afterwards next to nothing.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_PEER_MS)
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """Take a port that processes are going to share, without listening on it.

    Sharing would also let in a second sidecar that was started by mistake; this one does not share, so it
    fails where anybody listens.
    """
    reserved = socket.socket(_family(host))
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reserved.family == socket.AF_INET6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as `create_server` does
        reserved.bind((host, port))
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        reserved.close()
        raise
    return reserved


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
