"""A web site of another origin that shows the viewer, and a gate that lets in only who has a token."""

from __future__ import annotations

import http.client
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from playwright.sync_api import Browser, Page

from deploy.demo.ports import HOST
from tests.support.browser import open_page
from tests.support.sidecar_process import Sidecar
from tests.support.tokens import token

PAGE = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>A shop</title>
<script type="module" src="{script}"></script>
<body><main><h1>A shop</h1>{body}</main>"""

# Adds the progress of the task `one`, in a page whose clock is the test's by then.
ADD_PROGRESS = """(main, url) => {
  const element = document.createElement("task-progress");
  for (const [name, value] of Object.entries({ src: url, "token-url": "/token", "task-id": "one" })) {
    element.setAttribute(name, value);
  }
  main.append(element);
}"""

# The empty line ends an event that was cut.
UNAUTHORIZED = b'\n\nevent: unauthorized\ndata: {"type":"unauthorized"}\n\n'


class _Server:
    """Serves on a port, each request in a thread; use it in a `with`."""

    def __init__(self, port: int = 0) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def do_OPTIONS(self) -> None:
                owner.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, port), Handler)
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
        # To whom it passes requests on from now.
        self.sidecar_port = sidecar_port
        self.good_for = good_for
        self.issued = 0
        self.refused = 0
        self.wants_token = True
        # What it takes off each address, as a proxy does that shows a sidecar among other things.
        self.prefix = ""
        # Whether a stream whose token ends is told so, or just cut.
        self.says_why = False
        # Before these bytes it cuts the next stream that has them.
        self.cuts_before = b""
        # The addresses of the streams that were asked for.
        self.streams: list[str] = []
        self._ends: dict[str, float] = {}
        self._open: set[socket.socket] = set()

    def cut(self) -> None:
        """Cut what is being passed on."""
        for connection in list(self._open):
            _cut(connection)

    def expire(self) -> None:
        """Let every token end now."""
        self._ends = dict.fromkeys(self._ends, 0.0)
        self.cut()

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
        elif self._is_guarded(request) and end < time.monotonic():
            self.refused += 1
            _head(request, 401, {"Content-Length": "0"})
        else:
            self._pass(request, end if self._is_guarded(request) else float("inf"))

    def _is_guarded(self, request: BaseHTTPRequestHandler) -> bool:
        return self.wants_token and "/api/" in request.path

    def _pass(self, request: BaseHTTPRequestHandler, end: float) -> None:
        if request.path.partition("?")[0].endswith("/events"):
            self.streams.append(request.path)
        connection = http.client.HTTPConnection(HOST, self.sidecar_port, timeout=30)
        connection.connect()
        passed_on = connection.sock
        self._open.add(passed_on)
        cutter = threading.Timer(end - time.monotonic(), _cut, [passed_on])
        try:
            if end < float("inf"):
                cutter.start()
            connection.request("GET", request.path.removeprefix(self.prefix))
            response = connection.getresponse()
            _head(request, response.status, {"Content-Type": response.headers["content-type"]})
            while data := response.read1(65536):
                request.wfile.write(self._cut_off(data))
                if self.cuts_before and self.cuts_before in data:
                    self.cuts_before = b""
                    break
            if self.says_why and end < time.monotonic():
                request.wfile.write(UNAUTHORIZED)
        except (OSError, http.client.HTTPException):
            pass  # The browser has left, or the sidecar.
        finally:
            cutter.cancel()
            self._open.discard(passed_on)
            connection.close()

    def _cut_off(self, data: bytes) -> bytes:
        return data.partition(self.cuts_before)[0] if self.cuts_before else data


@dataclass
class Mint:
    """Gives out tokens for a sidecar that takes them, as an application would."""

    url: str = ""
    read: Any = "*"
    fields: tuple[str, ...] = ()
    good_for: float = 60.0
    issued: int = 0

    def issue(self) -> str:
        """Make a token."""
        self.issued += 1
        return token(self.read, self.fields, ttl=self.good_for)


class Shop(_Server):
    """A site with a strict policy that shows elements of the viewer, and gives out tokens at /token."""

    def __init__(
        self,
        gate: Gate | Mint,
        body: str,
        *,
        more: dict[str, tuple[str, bytes]] | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port)
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
            page = PAGE.format(
                script=f"{self._gate.url}/static/queue-viewer.js", body=self._body.format(gate=self._gate.url)
            )
            sources = f"'self' {self._gate.url}"
            policy = f"default-src 'none'; script-src {sources}; connect-src {sources}"
            policy += "; require-trusted-types-for 'script'" if not self._more else ""
            _send(request, "text/html", page.encode(), {"Content-Security-Policy": policy})


@contextmanager
def shop(
    browser: Browser, sidecar: Sidecar, body: str, good_for: float = 60.0
) -> Iterator[tuple[Page, Gate]]:
    """Open a page of another origin, behind a gate that wants a token."""
    with Gate(sidecar.port, good_for) as gate, Shop(gate, body) as site:
        page = open_page(browser, site.url)
        yield page, gate
        complaints = page.complaints  # type: ignore[attr-defined] # set by open_page
        page.context.close()
        assert [] == complaints


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
