"""A TCP proxy that loses answers, or everything, as a network does that breaks without a word."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType

from deploy.demo.ports import HOST


class Proxy:
    """Forwards connections to a port of this machine; use it in a `with`."""

    def __init__(self, target: int, port: int = 0) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, port))
        self.port: int = self._listener.getsockname()[1]
        self._answers_left: int | None = None  # Answers to let through before one is lost.
        self._open: list[socket.socket] = []
        self._vanished = False
        self._bytes_per_second: float | None = None
        self._lost: set[socket.socket] = set()  # Those of the open ones that lead nowhere.
        self._changed = threading.Condition()  # Protects the four above.
        self._acceptor = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        """The URL of database 0 behind it."""
        return f"redis://{HOST}:{self.port}/0"

    def lose_answer(self, after: int = 0) -> None:
        """Let so many answers through, then forward a request and cut the connection before its answer."""
        with self._changed:
            self._answers_left = after

    def wait_until_lost(self, seconds: float = 30.0) -> None:
        """Wait until the answer was lost."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._answers_left is None, seconds), "nothing was lost"

    def vanish(self) -> None:
        """Swallow everything, both ways and on new connections too, and tell nobody: no FIN, no RST."""
        with self._changed:
            self._vanished = True
            self._lost |= set(self._open)

    def slow_down(self, bytes_per_second: float | None) -> None:
        """Let so much of the answers through on each connection; None for as fast as it goes."""
        self._bytes_per_second = bytes_per_second

    def come_back(self) -> None:
        """Serve new connections; those from before stay lost."""
        with self._changed:
            self._vanished = False

    def close(self) -> None:
        """Refuse new connections and cut those there are."""
        _cut(self._listener)
        self._acceptor.join(5)
        with self._changed:
            for connection in self._open:
                _cut(connection)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection((HOST, self._target))
                except ConnectionRefusedError:
                    _cut(client)
                    continue
                with self._changed:
                    self._open += (client, server)
                    if self._vanished:
                        self._lost |= {client, server}
                for target, source, sink in ((self._ask, client, server), (self._answer, server, client)):
                    threading.Thread(target=target, args=(source, sink), name="proxy", daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if not self._leads_nowhere(client):
                    server.sendall(data)
        _cut(server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while (data := server.recv(self._at_once)) and not self._loses():
                if self._bytes_per_second is not None:
                    time.sleep(len(data) / self._bytes_per_second)
                if not self._leads_nowhere(server):
                    client.sendall(data)
        _cut(client)
        _cut(server)

    @property
    def _at_once(self) -> int:
        return 65536 if self._bytes_per_second is None else 4096

    def _leads_nowhere(self, connection: socket.socket) -> bool:
        with self._changed:
            return connection in self._lost

    def _loses(self) -> bool:
        with self._changed:
            if self._answers_left is None:
                return False
            if self._answers_left:
                self._answers_left -= 1
                return False
            self._answers_left = None
            self._changed.notify_all()
            return True


class DeafPort:
    """A port that answers no SYN: its queue of connections is full. A `Proxy` can take its place."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=0)
        self.port: int = self._listener.getsockname()[1]
        self._fillers: list[socket.socket] = []
        with suppress(TimeoutError):
            while True:
                self._fillers.append(socket.create_connection((HOST, self.port), timeout=0.2))

    def close(self) -> None:
        """Give the port up."""
        for connection in (*self._fillers, self._listener):
            _cut(connection)


def _cut(connection: socket.socket) -> None:
    # Closing a socket does not wake the thread that reads it; shutting it down does.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
