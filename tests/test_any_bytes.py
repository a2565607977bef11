"""Whatever bytes come in for a request, the sidecar answers them as it should, and goes on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.demo.ports import HOST
from tests.support.guarded import Client, serving
from tests.support.tokens import SECRET, token

PATHS = (
    "/api/v1/queue/events",
    "/api/v1/queue/status",
    "/api/v1/queue/tasks",
    "/api/v1/queue/history",
    "/api/v1/queue/pending",
    "/api/v1/queue/workers",
    "/api/v1/session",
    "/api/v1/tickets",
    "/livez",
    "/readyz",
    "/",
)
NAMES = (
    *("task_id", "task_name", "queue", "status", "worker", "q", "limit", "cursor", "types", "include"),
    *("snapshot", "last_event_id", "ticket", "x"),
)
VALUES = (
    b"a",
    b"*",
    b"active",
    b"1",
    b"all",
    b"args",
    b"of_a",
    b"task_status",
    b"",
    b"W10",
    b"0" * 16 + b"-1",
)

# None at all where the connection was closed: not each request can be read as one.
ANSWERS = {b"", *b"200 204 307 400 401 403 404 405 413 421 501".split()}

any_bytes = st.binary(max_size=20)
values = st.sampled_from(VALUES) | any_bytes
paths = st.sampled_from(PATHS).map(str.encode) | st.one_of(
    any_bytes.map(lambda some: b"/api/v1/queue/tasks/" + quote_from_bytes(some).encode()),
    any_bytes.map(lambda some: b"/api/v1/queue/tasks/" + quote_from_bytes(some).encode() + b"/events"),
    any_bytes.map(lambda some: b"/" + some),
)
pairs = st.tuples(st.sampled_from(NAMES), values, st.booleans())
names_of_headers = st.sampled_from(
    [b"Cookie", b"Origin", b"Last-Event-ID", b"X-Forwarded-For", b"Accept", b"Content-Length", b"Host"]
)
headers = st.lists(st.tuples(names_of_headers, any_bytes), max_size=2)
methods = st.sampled_from([b"GET", b"GET", b"GET", b"HEAD", b"POST", b"DELETE", b"OPTIONS", b"X"])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A sidecar that wants tokens."""
    with serving(auth_secrets=SECRET, log_level="debug") as client:
        yield client
        assert " ERROR " not in client.sidecar.output
        assert "Traceback" not in client.sidecar.output


@settings(deadline=None)
@given(methods, paths, st.lists(pairs, max_size=3), headers, st.sampled_from(["", "narrow", "full"]))
def test_any_request(
    client: Client,
    method: bytes,
    path: bytes,
    query: list[tuple[str, bytes, bool]],
    more: list[tuple[bytes, bytes]],
    who: str,
) -> None:
    """No request is answered by an internal error, and none is left without an answer."""
    given_query = "&".join(f"{name}={quote_from_bytes(value)}" for name, value, quoted in query if quoted)
    raw = b"&".join(name.encode() + b"=" + value for name, value, quoted in query if not quoted)
    lines = [method + b" " + path + b"?" + given_query.encode() + b"&" + raw + b" HTTP/1.1"]
    lines += [b"Host: localhost", *(name + b": " + value for name, value in more)]
    if who:
        read = "*" if who == "full" else {"tasks": ["a"]}
        lines.append(f"Authorization: Bearer {token(read, ttl=600)}".encode())
    status = first_line(client, b"\r\n".join(lines) + b"\r\n\r\n")
    assert status in ANSWERS


def first_line(client: Client, request: bytes) -> bytes:
    """The status of the answer; empty where the connection was closed without one."""
    with socket.create_connection((HOST, client.sidecar.port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(1000).partition(b" ")[2][:3]
