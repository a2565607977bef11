"""Pages of other origins read nothing unless the settings name their origin."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.guarded import EVENTS, STATUS, Client, bearer, serving
from tests.support.tokens import SECRET, token

ORIGIN = "https://app.example"
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """An application whose answers one other origin may read."""
    with serving(auth_secrets=SECRET, cors_origins=f"{ORIGIN},http://b:8080") as client:
        yield client


def cors_of(headers: httpx.Headers) -> dict[str, str]:
    """What an answer says to the browser about other origins."""
    return {name: value for name, value in headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", [STATUS, EVENTS, "/livez", "/nothing"])
@pytest.mark.parametrize("headers", [{}, bearer(token(ttl=600)), bearer("x")])
def test_an_allowed_origin(client: Client, path: str, headers: dict[str, str]) -> None:
    """It may read every answer, also a refusal, and with its cookies."""
    answer = client.headers_of("GET", path, headers={"Origin": ORIGIN, **headers})
    assert {
        "access-control-allow-origin": ORIGIN,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": "Retry-After, WWW-Authenticate, X-Request-ID",
    } == cors_of(answer)
    assert "Origin" == answer["vary"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.evil", "http://app.example", "null", "*", ""]
)
def test_other_origins(client: Client, origin: str) -> None:
    """They may read nothing, and no cache gives them what was for another."""
    answer = client.get(STATUS, headers={"Origin": origin, **bearer(token())})
    assert {} == cors_of(answer.headers)
    assert "Origin" == answer.headers["vary"]
    preflight = client.options(STATUS, headers={"Origin": origin, **PREFLIGHT})
    assert ({}, 403) == (cors_of(preflight.headers), preflight.status_code)
    assert "origin_not_allowed" == preflight.json()["code"]


def test_two_origins(client: Client) -> None:
    """Of two origins none is chosen."""
    headers = [("Origin", ORIGIN), ("Origin", "http://b:8080")]
    assert {} == cors_of(client.get(STATUS, headers=headers).headers)


def test_without_an_origin(client: Client) -> None:
    """Who is no browser gets no such headers, but a cache is told that the answer may differ."""
    answer = client.get(STATUS, headers=bearer(token()))
    assert ({}, "Origin") == (cors_of(answer.headers), answer.headers["vary"])


@pytest.mark.parametrize("path", [STATUS, EVENTS, "/api/v1/session", "/api/v1/tickets"])
def test_preflight(client: Client, path: str) -> None:
    """It needs no token, and says what may be asked and for how long that holds."""
    answer = client.options(path, headers={"Origin": ORIGIN, **PREFLIGHT})
    assert (204, b"") == (answer.status_code, answer.content)
    cors = cors_of(answer.headers)
    assert (ORIGIN, "true") == (
        cors["access-control-allow-origin"],
        cors["access-control-allow-credentials"],
    )
    assert "GET, HEAD, POST, DELETE" == cors["access-control-allow-methods"]
    assert "Authorization, Last-Event-ID" == cors["access-control-allow-headers"]
    assert "600" == cors["access-control-max-age"]
    assert "Access-Control-Request-Headers" in answer.headers["vary"]


def test_options_that_are_no_preflight(client: Client) -> None:
    """They are a request like any other."""
    assert (401, "token_missing") == client.code("OPTIONS", STATUS, headers={"Origin": ORIGIN})


def test_any_origin() -> None:
    """A star lets every page read, and never with a cookie."""
    with serving(auth_secrets=SECRET, cors_origins="*") as client:
        for answer in (
            client.get(STATUS, headers={"Origin": "https://x.example", **bearer(token())}),
            client.options(STATUS, headers={"Origin": "null", **PREFLIGHT}),
        ):
            cors = cors_of(answer.headers)
            assert "*" == cors["access-control-allow-origin"]
            assert "access-control-allow-credentials" not in cors
            assert "vary" not in answer.headers


def test_no_origin() -> None:
    """Without the setting no page of another origin reads anything, and a preflight is any request."""
    with serving() as client:
        answer = client.get(STATUS, headers={"Origin": ORIGIN})
        assert {} == cors_of(answer.headers)
        assert "vary" not in answer.headers
        assert 405 == client.options(STATUS, headers={"Origin": ORIGIN, **PREFLIGHT}).status_code
