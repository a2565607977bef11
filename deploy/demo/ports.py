"""TCP ports of 127.0.0.1."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"

# Below the range from which Linux takes the ports of outgoing connections. A client that keeps
# trying to reach a server which is down can, inside that range, be given the server's own port,
# connect to itself, and keep the server from coming back.
_PORTS = range(10_000, 32_768)


class NoFreePort(RuntimeError):
    """Raised when a hundred random ports were all taken."""


def free_port() -> int:
    """Find a port on which nobody listens; somebody else may still be faster, so retry."""
    for _ in range(100):
        port = random.choice(_PORTS)
        if is_free(port):
            return port
    raise NoFreePort(f"a hundred random ports of {HOST} are all in use")


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port now."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier server that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError:
            return False
    return True
