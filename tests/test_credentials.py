"""However a header, a cookie or a query is written, it is read or refused, and never anything else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Scope

from sidecar.credentials import COOKIE, LOOPBACK_COOKIE, bearer_token, cookie_token, ticket_of
from sidecar.denials import TokenInvalid

any_bytes = st.binary(max_size=40)
pieces = st.sampled_from(
    [b"Bearer", b"bearer ", b" ", b"=", b";", b"&", b"ticket=", b"%", b"a", b",", COOKIE.encode()]
)
values = st.lists(any_bytes | st.lists(pieces, max_size=8).map(b"".join), max_size=3)


def request(**parts: list[bytes]) -> Scope:
    """A request with these values of a header, or this query."""
    headers = [(name.encode(), value) for name, given in parts.items() for value in given if name != "query"]
    query = b"&".join(parts.get("query", []))
    return {"type": "http", "scheme": "http", "headers": headers, "query_string": query}


@pytest.mark.parametrize(
    ("read", "where"), [(bearer_token, "authorization"), (cookie_token, "cookie"), (ticket_of, "query")]
)
@given(given_values=values, host=any_bytes)
def test_any_bytes(
    read: Callable[[Scope], str | None], where: str, given_values: list[bytes], host: bytes
) -> None:
    """What is no credential is none, or refused."""
    try:
        found = read(request(**{where: given_values, "host": [host]}))
    except TokenInvalid:
        return
    assert found is None or isinstance(found, str)


@pytest.mark.parametrize(
    ("expected", "host"), [("x", b"localhost:8000"), ("x", b"[::1]"), (None, b"a.example"), (None, b"")]
)
def test_the_plain_cookie(expected: str | None, host: bytes) -> None:
    """The cookie without a prefix is taken under the names of loopback alone."""
    assert expected == cookie_token(request(cookie=[f"{LOOPBACK_COOKIE}=x".encode()], host=[host]))
    assert "y" == cookie_token(request(cookie=[f"{COOKIE}=y; {LOOPBACK_COOKIE}=x".encode()], host=[host]))
