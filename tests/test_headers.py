"""Every answer tells a browser to be careful, and a stream does not pay for that with each piece."""

from __future__ import annotations

import inspect
from itertools import product
from typing import Any

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from sidecar.guard import guard, make_access
from sidecar.headers import ResponseHeaders, add_header, raw_send
from sidecar.settings import Settings
from tests.support.guarded import EVENTS, STATUS, serving
from tests.support.tokens import SECRET

SECURE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@pytest.mark.parametrize("settings", [{}, {"auth_secrets": SECRET, "cors_origins": "*"}])
def test_every_answer(settings: dict[str, str]) -> None:
    """No type is guessed, no address told to others, and no other page frames it or runs a script in it."""
    paths = (STATUS, EVENTS, "/", "/livez", "/nothing", "/static/x.js", f"{STATUS}?q=%ff")
    with serving(**settings) as client:
        for path, host in product(paths, ("localhost", "evil.example")):
            headers = client.headers_of("GET", path, headers={"Host": host})
            assert SECURE == {name: headers[name] for name in SECURE}
            policy = headers["content-security-policy"].split("; ")
            assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)


def request(path: str, method: str = "GET") -> Scope:
    """A request as uvicorn hands it over."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
    }


async def no_body() -> Message:
    """Receive nothing."""
    return {"type": "http.request"}


async def test_a_stream_sends_past_all_guards() -> None:
    """Behind all of them what a stream sends through is the server's own function."""
    sent: list[Message] = []
    found: list[Any] = []

    async def server_send(message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        sent.append(message)

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(raw_send(scope, send))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    settings = Settings(cors_origins=("https://a.example",))
    await guard(stream, settings, make_access(settings))(request(EVENTS), no_body, server_send)
    assert [server_send] == found
    assert b"nosniff" in dict(sent[0]["headers"]).values()


async def test_without_guards_a_stream_sends_as_it_is_told() -> None:
    """Where nothing stands in front, there is nothing to get past."""
    assert no_body is raw_send(request(EVENTS), no_body)  # type: ignore[arg-type]  # any function will do


async def test_own_headers_stay() -> None:
    """What an answer says itself is not overruled; only Vary adds up."""
    sent: list[Message] = []
    own = [(b"Content-Security-Policy", b"default-src *"), (b"Vary", b"Accept")]

    async def server_send(message: Message) -> None:
        sent.append(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        add_header(scope, b"vary", b"Origin")
        await send({"type": "http.response.start", "status": 200, "headers": own})

    await ResponseHeaders(app)(request("/"), no_body, server_send)
    headers = [(name.lower(), value) for name, value in sent[0]["headers"]]
    assert [b"default-src *"] == [value for name, value in headers if name == b"content-security-policy"]
    assert [b"Accept", b"Origin"] == [value for name, value in headers if name == b"vary"]


async def test_what_is_no_request_passes() -> None:
    """Lifespan and others go through every guard untouched."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    settings = Settings(cors_origins=("*",), allowed_hosts=("a",), auth_secrets=(SECRET,))
    scope = {"type": "lifespan"}
    await guard(app, settings, make_access(settings))(scope, no_body, inspect.unwrap(no_body))  # type: ignore[arg-type]  # nothing is sent
    assert [scope] == seen
