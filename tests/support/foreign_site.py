"""A web site of another origin that shows the viewer, and a gate that lets in only who has a token."""

from __future__ import annotations

import http.client
import secrets
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from deploy.demo.ports import HOST

PAGE = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>A shop</title>
<script type="module" src="{script}"></script>
<body><main><h1>A shop</h1>{body}</main>"""


class _Server:
    """Serves on a free port, each request in a thread; use it in a `with`."""

    def __init__(self) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def do_OPTIONS(self) -> None:
                owner.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self._server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class Gate(_Server):
    """Passes requests on to a sidecar, for a while that a token is good for."""

    def __init__(self, sidecar_port: int, good_for: float = 60.0) -> None:
        super().__init__()
        self.good_for = good_for
        self.issued = 0
        self.refused = 0
        self._sidecar_port = sidecar_port
        self._ends: dict[str, float] = {}

    def issue(self) -> str:
        """Make a token."""
        self.issued += 1
        token = secrets.token_urlsafe(8)
        self._ends[token] = time.monotonic() + self.good_for
        return token

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Refuse, or pass on until the token ends."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        end = self._ends.get(token, 0.0)
        if request.command == "OPTIONS":
            _head(request, 204, {"Access-Control-Allow-Headers": "Authorization"})
        elif "/api/" in request.path and end < time.monotonic():
            self.refused += 1
            _head(request, 401, {"Content-Length": "0"})
        else:
            self._pass(request, end if "/api/" in request.path else float("inf"))

    def _pass(self, request: BaseHTTPRequestHandler, end: float) -> None:
        connection = http.client.HTTPConnection(HOST, self._sidecar_port, timeout=30)
        connection.connect()
        cutter = threading.Timer(end - time.monotonic(), _cut, [connection.sock])
        try:
            if end < float("inf"):
                cutter.start()
            connection.request("GET", request.path)
            response = connection.getresponse()
            _head(request, response.status, {"Content-Type": response.headers["content-type"]})
            while data := response.read1(65536):
                request.wfile.write(data)
        except (OSError, http.client.HTTPException):
            pass  # The browser has left, or the sidecar.
        finally:
            cutter.cancel()
            connection.close()


class Shop(_Server):
    """A site with a strict policy that shows elements of the viewer, and gives out tokens at /token."""

    def __init__(self, gate: Gate, body: str, *, more: dict[str, tuple[str, bytes]] | None = None) -> None:
        super().__init__()
        self._gate = gate
        self._body = body
        self._more = more or {}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Give the page, a token, or one more file."""
        if request.path == "/token":
            _send(request, "text/plain", self._gate.issue().encode())
        elif request.path in self._more:
            _send(request, *self._more[request.path])
        else:
            page = PAGE.format(script=f"{self._gate.url}/static/queue-viewer.js", body=self._body)
            sources = f"'self' {self._gate.url}"
            policy = f"default-src 'none'; script-src {sources}; connect-src {sources}"
            policy += "; require-trusted-types-for 'script'" if not self._more else ""
            _send(request, "text/html", page.encode(), {"Content-Security-Policy": policy})


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _send(
    request: BaseHTTPRequestHandler, kind: str, body: bytes, headers: dict[str, str] | None = None
) -> None:
    _head(request, 200, {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})})
    request.wfile.write(body)


def _head(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in {"Access-Control-Allow-Origin": "*", **headers}.items():
        request.send_header(name, value)
    request.end_headers()
