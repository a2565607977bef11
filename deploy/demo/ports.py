"""TCP ports of 127.0.0.1."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

HOST = "127.0.0.1"

# Below the range from which Linux takes the ports of outgoing connections. A client that keeps
# trying to reach a server which is down can, inside that range, be given the server's own port,
# connect to itself, and keep the server from coming back.
_PORTS = range(10_000, 32_768)
# Those that may be given out here, and those that were: who gets one takes a moment to listen on it.
_ours: Sequence[int] = _PORTS
_given: set[int] = set()


def share_ports(part: int, parts: int) -> None:
    """Take only one part of the ports, where several processes look for free ones at a time."""
    global _ours  # noqa: PLW0603  # one process has one share
    _ours = _PORTS[part::parts]


class NoFreePort(RuntimeError):
    """Raised when a hundred random ports were all taken."""


def free_port() -> int:
    """Find a port on which nobody listens; somebody else may still be faster, so retry."""
    for _ in range(100):
        port = random.choice(_ours)
        if port not in _given and is_free(port):
            _given.add(port)
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
