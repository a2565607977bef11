"""A TCP proxy that loses answers, as a network does that breaks after the request has arrived."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType

from deploy.demo.ports import HOST


class Proxy:
    """Forwards connections to a port of this machine; use it in a `with`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._answers_left: int | None = None  # Answers to let through before one is lost.
        self._open: list[socket.socket] = []
        self._changed = threading.Condition()  # Protects the two above.
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
                server = socket.create_connection((HOST, self._target))
                with self._changed:
                    self._open += (client, server)
                for target, source, sink in ((self._ask, client, server), (self._answer, server, client)):
                    threading.Thread(target=target, args=(source, sink), name="proxy", daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        _cut(server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while (data := server.recv(65536)) and not self._loses():
                client.sendall(data)
        _cut(client)
        _cut(server)

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


def _cut(connection: socket.socket) -> None:
    # Closing a socket does not wake the thread that reads it; shutting it down does.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
