"""A request that is too large is refused before anything looks into it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sidecar.request_limits import BODY_MAX_BYTES, PARAMETERS_MAX, QUERY_MAX_BYTES
from tests.support.guarded import EVENTS, STATUS, Client, bearer, serving
from tests.support.tokens import SECRET, token


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """An application with tokens, so that all that is refused here is refused without one."""
    with serving(auth_secrets=SECRET) as client:
        yield client


@pytest.mark.parametrize("path", [STATUS, EVENTS])
def test_query(client: Client, path: str) -> None:
    """A query has a length and a number of parameters."""
    assert (414, "query_too_long") == client.code("GET", f"{path}?q={'x' * QUERY_MAX_BYTES}")
    assert (400, "too_many_parameters") == client.code("GET", f"{path}?{'a&' * PARAMETERS_MAX}")
    most = f"{path}?{'&'.join(['a=b'] * PARAMETERS_MAX)}"
    assert (400, "") == client.code("GET", most, headers=bearer(token()))


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", [STATUS, EVENTS, "/livez"])
def test_no_body(client: Client, method: str, path: str) -> None:
    """Nothing but opening a session or a ticket has a body, whether its length is told or not."""
    assert 413 == client.code(method, path, content=b"x")[0]
    assert 413 == client.code(method, path, content=iter([b"x"]))[0]
    assert 413 != client.code(method, path, headers={"Content-Length": "0"})[0]


@pytest.mark.parametrize("path", ["/api/v1/session", "/api/v1/tickets"])
def test_a_small_body(client: Client, path: str) -> None:
    """Those two may have one, but none that is large or of which the length is not told."""
    headers = bearer(token())
    assert 200 == client.post(path, headers=headers, content=b"{}").status_code
    assert 200 == client.post(path, headers=headers, content=b" " * BODY_MAX_BYTES).status_code
    for body in (b" " * (BODY_MAX_BYTES + 1), iter([b"{}"])):
        assert (413, "body_too_large") == client.code("POST", path, headers=headers, content=body)
