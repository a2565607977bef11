"""Every route with every kind of credential has the answer that is written here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest

from tests.support.guarded import Client, bearer, serving, without_id
from tests.support.tokens import OTHER_SECRET, SECRET, ec_key, signed, token
from tests.test_docs import listed_routes

AUDIENCE = "queue"
OURS = {"tasks": ["a"]}
OK, NONE, ODD = (200, ""), (401, "token_missing"), (401, "token_invalid")
LATE, LITTLE = (401, "token_expired"), (403, "scope_insufficient")
GONE = (404, "")

# What each credential is answered: where anything may be shown, where only everything, at /tasks/a, and at
# the two that take no credential but a header.
Expected = tuple[tuple[int, str], tuple[int, str], tuple[int, str], tuple[int, str]]


def _header(text: str) -> dict[str, Any]:
    return {"headers": bearer(text)}


def _cookie(text: str) -> dict[str, Any]:
    return {"headers": {"Cookie": f"__Host-celery-sidecar={text}"}}


def _ours(read: Any, fields: Any = (), **more: Any) -> str:
    return token(read, fields, **{"ttl": 600, "aud": AUDIENCE} | more)


def _none(**more: Any) -> str:
    return signed({"exp": time.time() + 600, "aud": AUDIENCE, "sidecar": {"read": "*"}} | more, None, "none")


CREDENTIALS: dict[str, tuple[Callable[[], dict[str, Any]], Expected]] = {
    "none": (dict, (NONE, NONE, NONE, NONE)),
    "expired": (lambda: _header(_ours("*", ttl=-1)), (LATE, LATE, LATE, LATE)),
    "another key": (lambda: _header(_ours("*", key=OTHER_SECRET)), (ODD, ODD, ODD, ODD)),
    "another kind of key": (
        lambda: _header(_ours("*", key=ec_key(), algorithm="ES256")),
        (ODD, ODD, ODD, ODD),
    ),
    "alg none": (lambda: _header(_none()), (ODD, ODD, ODD, ODD)),
    "no signature": (lambda: _header(_ours("*").rpartition(".")[0] + "."), (ODD, ODD, ODD, ODD)),
    "HS512": (lambda: _header(_ours("*", algorithm="HS512")), (ODD, ODD, ODD, ODD)),
    "another audience": (lambda: _header(_ours("*", aud="other")), (ODD, ODD, ODD, ODD)),
    "no audience": (lambda: _header(token("*", ttl=600)), (ODD, ODD, ODD, ODD)),
    "no exp": (
        lambda: _header(jwt.encode({"aud": AUDIENCE, "sidecar": {"read": "*"}}, SECRET)),
        (ODD, ODD, ODD, ODD),
    ),
    "no scope": (lambda: _header(_ours({})), (LITTLE, LITTLE, LITTLE, LITTLE)),
    "no claim": (
        lambda: _header(signed({"exp": time.time() + 600, "aud": AUDIENCE})),
        (LITTLE, LITTLE, LITTLE, LITTLE),
    ),
    "narrow": (lambda: _header(_ours(OURS)), (OK, LITTLE, OK, OK)),
    "another's": (lambda: _header(_ours({"queues": ["of_b"]})), (OK, LITTLE, GONE, OK)),
    "full": (lambda: _header(_ours("*", ["args"])), (OK, OK, OK, OK)),
    "expired cookie": (lambda: _cookie(_ours("*", ttl=-1)), (LATE, LATE, LATE, NONE)),
    "narrow cookie": (lambda: _cookie(_ours(OURS)), (OK, LITTLE, OK, NONE)),
    "full cookie": (lambda: _cookie(_ours("*")), (OK, OK, OK, NONE)),
    "token in the address": (lambda: {"params": {"token": _ours("*")}}, (NONE, NONE, NONE, NONE)),
}
ANY, ALL, ONE, HEADER = range(4)
REFUSED = [name for name, (_, expected) in CREDENTIALS.items() if expected[ANY] != OK]
ROUTES = {
    ("GET", "/api/v1/queue/events"): ANY,
    ("GET", "/api/v1/queue/tasks/{task_id}/events"): ANY,
    ("GET", "/api/v1/queue/status"): ANY,
    ("GET", "/api/v1/queue/tasks"): ANY,
    ("GET", "/api/v1/queue/history"): ANY,
    ("GET", "/api/v1/queue/tasks/{task_id}"): ONE,
    ("GET", "/api/v1/queue/workers"): ALL,
    ("GET", "/metrics"): ALL,
    ("POST", "/api/v1/session"): HEADER,
    ("POST", "/api/v1/tickets"): HEADER,
}
# Elsewhere: the look at a queue, which a scope names or not, and what is open.
OTHERS = {"/api/v1/queue/pending", "/", "/static/{path:path}", "/livez", "/readyz", "/openapi.json", "/docs"}


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Client]:
    """A sidecar that takes tokens for one audience."""
    with serving(auth_secrets=SECRET, auth_audience=AUDIENCE) as client:
        yield client


@pytest.fixture
def client(sidecar: Client) -> Client:
    """A client of it that has no cookie of a session from before."""
    sidecar.cookies.clear()
    return sidecar


def test_no_route_is_left_out() -> None:
    """A route that is added must say here who may ask it."""
    assert {path for _, path in ROUTES} | OTHERS == listed_routes()


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_every_route(client: Client, credential: str) -> None:
    """What is not right is refused everywhere alike, and what is right reaches as far as it says."""
    make, expected = CREDENTIALS[credential]
    answers = {route: client.code(route[0], route[1].format(task_id="a"), **make()) for route in ROUTES}
    assert {route: expected[kind] for route, kind in ROUTES.items()} == answers


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_what_is_open(client: Client, credential: str) -> None:
    """Health is told whoever asks, what can be asked and the page shown, also with what is not right."""
    for path in ("/livez", "/readyz", "/openapi.json", "/docs", "/", "/static/queue-viewer.js"):
        assert OK == client.code("GET", path, **CREDENTIALS[credential][0]())


@pytest.mark.parametrize(
    ("expected", "read"),
    [
        (200, "*"),
        (200, {"queues": ["of_a"]}),
        (200, {"queues": ["of_a", "x"], "names": ["y"]}),
        (404, {"queues": ["of_b"]}),
        (404, {"tasks": ["a"]}),
        (404, {"names": ["*"]}),
    ],
)
def test_pending(client: Client, expected: int, read: Any) -> None:
    """What waits in a queue is shown to who may read the queue; to others there is no such queue."""
    path, headers = "/api/v1/queue/pending", bearer(_ours(read))
    answer = client.get(path, params={"queue": "of_a"}, headers=headers)
    assert expected == answer.status_code
    if expected == 404:
        unknown = client.get(path, params={"queue": "of_x"}, headers=headers)
        assert without_id(unknown).replace("of_x", "of_a") == without_id(answer)


@pytest.mark.parametrize("credential", REFUSED)
def test_a_refusal_tells_nothing(client: Client, credential: str) -> None:
    """Who is not let in learns nothing, not even whether there is what was asked for."""
    make, _ = CREDENTIALS[credential]
    answers = {
        without_id(client.get(path, **make()))
        for path in ("/api/v1/queue/tasks/a", "/api/v1/queue/tasks/x", "/nothing", "/api/v1/queue/pending")
    }
    assert 1 == len(answers)
