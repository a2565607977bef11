"""Headers that every answer has, without a price for each piece of a stream.

`ResponseHeaders` stands outermost and alone wraps ``send``; what else adds headers puts them into the list of
the request. A stream sends its start through the wrapped ``send`` and all that follows through `raw_send`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar.request_log import RequestLog

RawHeaders = list[tuple[bytes, bytes]]

# Styles may stand in the page: a component puts its own into its shadow.
_CSP: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", _CSP),
)
_ADDED: Final = "sidecar.headers"
_RAW_SEND: Final = "sidecar.send"
_FOUND: Final = "sidecar.found"


class ResponseHeaders:
    """Adds headers to the start of each answer; one that the answer has itself stays as it is.

    It also lets the log know of each request: it alone sees all of them, and when their streams end.
    """

    def __init__(self, app: ASGIApp, log: RequestLog | None = None) -> None:
        self._app = app
        self._log = log or RequestLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answering = self._log.begin(scope)
        added: RawHeaders = [*SECURITY, answering.header]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answering.status = message["status"]
                message = {**message, "headers": _merged(message.get("headers", ()), added)}
            await send(message)

        found: list[ASGIApp] = []
        scope = {**scope, _ADDED: added, _RAW_SEND: send, _FOUND: found}
        # Here, and not in a layer of its own, whose frame each stream would keep.
        try:
            await self._app(scope, receive, send_with_headers)
            if found:
                await found[0](scope, receive, send_with_headers)
        finally:
            self._log.end(scope, answering)


def add_header(scope: Scope, name: bytes, value: bytes) -> None:
    """Add a header to the answer of a request, whoever makes it."""
    scope[_ADDED].append((name, value))


def raw_send(scope: Scope, send: Send) -> Send:
    """What a stream sends its pieces through, once its start has gone through ``send``."""
    raw: Send = scope.get(_RAW_SEND, send)
    return raw


def answer_behind(scope: Scope, answer: ASGIApp) -> None:
    """Let a stream answer when all that found it has returned.

    The frames of guards, middleware and routes would stay in memory as long as it is open, 3 KiB of 19.
    """
    scope[_FOUND].append(answer)


def read_headers(scope: Scope, name: bytes) -> list[str]:
    """Every value of a header of the request; the name in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _merged(own: Iterable[tuple[bytes, bytes]], added: RawHeaders) -> RawHeaders:
    headers = list(own)
    names = {name.lower() for name, _ in headers}
    # Several Vary add up.
    return headers + [(name, value) for name, value in added if name == b"vary" or name not in names]
