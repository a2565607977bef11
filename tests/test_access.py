"""Nobody comes in without a right to, wherever a credential stands and however it is wrong."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.ports import HOST
from deploy.demo.redis_server import RedisServer
from sidecar.credentials import COOKIE, COOKIE_TOKEN_MAX_CHARS, LOOPBACK_COOKIE
from sidecar.guard import make_access
from sidecar.paths import is_open, is_stream
from sidecar.settings import Settings
from tests.support.guarded import (
    EVENTS,
    SESSION,
    STATUS,
    TASK,
    TASK_EVENTS,
    TASKS,
    TICKETS,
    WORKERS,
    Client,
    bearer,
    serving,
)
from tests.support.starters import StartSidecar
from tests.support.tokens import OTHER_SECRET, SECRET, ec_key, jwk, jwks_file, token

NARROW = {"tasks": ["a"]}
INVALID, MISSING, EXPIRED = (401, "token_invalid"), (401, "token_missing"), (401, "token_expired")
OPEN_ADDRESS = "0.0.0.0"  # noqa: S104  # what others reach is what is tested


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A sidecar that takes tokens of two secrets."""
    with serving(auth_secrets=f"{OTHER_SECRET},{SECRET}") as client:
        yield client


def ticket_for(client: Client, text: str) -> str:
    """Exchange a token for a ticket."""
    answer = client.post(TICKETS, headers=bearer(text)).raise_for_status().json()
    ticket: str = answer["ticket"]
    return ticket


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/static/x.js"])
@pytest.mark.parametrize("headers", [{}, bearer("x"), {"Host": "evil.example"}])
def test_open_paths(client: Client, path: str, headers: dict[str, str]) -> None:
    """Health and what is the same for all need no token."""
    assert client.get(path, headers=headers).status_code in (200, 404)


@pytest.mark.parametrize(
    "path", [STATUS, EVENTS, TASK_EVENTS, WORKERS, TASK, "/nothing", "/metrics", "/openapi", "/livez/"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_everything_else_is_closed(client: Client, path: str, method: str) -> None:
    """Whatever is not open needs a token, also what is not there, and the answer says which kind."""
    answer = client.request(method, path)
    assert 401 == answer.status_code
    assert "Bearer" == answer.headers["www-authenticate"]
    if method != "HEAD":
        assert "application/problem+json" == answer.headers["content-type"]
        assert ("token_missing", 401) == (answer.json()["code"], answer.json()["status"])


@pytest.mark.parametrize("path", [TASKS, EVENTS, TASK_EVENTS, TASK])
@pytest.mark.parametrize("fields", [[], ["args"]])
def test_bearer(client: Client, path: str, fields: list[str]) -> None:
    """With a token a request sees what the token says."""
    headers = bearer(token(NARROW, fields))
    params = {"include": "args"} if "events" in path else None
    assert "a" == client.sees(path, headers=headers, params=params)
    [task] = client.shown(path, headers=headers, params=params)
    assert bool(fields) == ("args" in task)


@pytest.mark.parametrize("key", [SECRET, OTHER_SECRET])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_secrets_and_schemes(client: Client, key: str, scheme: str) -> None:
    """Each secret is good, and the scheme may be written in any case."""
    assert 200 == client.get(STATUS, headers={"Authorization": f"{scheme} {token(key=key)}"}).status_code


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (INVALID, "Bearer"),
        (INVALID, "Bearer x"),
        (INVALID, "Bearer x y"),
        (INVALID, f"Bearer {token(ttl=600)}, Bearer {token(ttl=600)}"),
        (INVALID, "Bearer " + "x" * 20_000),
        (INVALID, "Bearer \xff"),
        (INVALID, f"Bearer {token(algorithm='HS512', ttl=600)}"),
        (EXPIRED, f"Bearer {token(ttl=-1)}"),
        (MISSING, "Basic eDp5"),
        (MISSING, ""),
        (MISSING, f"Token {token(ttl=600)}"),
        ((403, "scope_insufficient"), f"Bearer {token({}, ttl=600)}"),
    ],
)
@pytest.mark.parametrize("path", [STATUS, EVENTS])
def test_wrong_headers(client: Client, expected: tuple[int, str], value: str, path: str) -> None:
    """Each way of being wrong has its code; another scheme is as good as none."""
    assert expected == client.code("GET", path, headers={"Authorization": value.encode("latin-1")})


def test_two_headers(client: Client) -> None:
    """Of two headers none is chosen, whichever is good."""
    for texts in ((token(), token()), (token(), "x"), ("x", token())):
        headers = [("Authorization", f"Bearer {text}") for text in texts]
        assert INVALID == client.code("GET", STATUS, headers=headers)


@pytest.mark.parametrize("name", [COOKIE, LOOPBACK_COOKIE])
@pytest.mark.parametrize("path", [TASKS, EVENTS])
def test_cookie(client: Client, name: str, path: str) -> None:
    """A cookie is as good as the header; on loopback under both of its names."""
    headers = {"Cookie": f"other=1; {name}={token(NARROW, ttl=600)}; {name}x=5"}
    assert "a" == client.sees(path, headers=headers)


@pytest.mark.parametrize(
    ("expected", "cookie"),
    [
        (INVALID, f"{COOKIE}={token(ttl=600)}; {COOKIE}={token(ttl=600)}"),
        (INVALID, f"{LOOPBACK_COOKIE}={token(ttl=600)};{LOOPBACK_COOKIE}="),
        (INVALID, f"{COOKIE}="),
        (INVALID, f"{COOKIE}"),
        (INVALID, f'{COOKIE}="{token(ttl=600)}"'),
        (INVALID, f"{COOKIE}=x; {LOOPBACK_COOKIE}={token(ttl=600)}"),
        (EXPIRED, f"{COOKIE}={token(ttl=-1)}"),
        (MISSING, f"x{COOKIE}={token(ttl=600)}"),
        (MISSING, f"{COOKIE.lower()}={token(ttl=600)}"),
        (MISSING, ";;=;"),
    ],
)
def test_wrong_cookies(client: Client, expected: tuple[int, str], cookie: str) -> None:
    """Of several values none is chosen: another path or host may have put one beside ours."""
    assert expected == client.code("GET", STATUS, headers={"Cookie": cookie})


def test_two_cookie_headers(client: Client) -> None:
    """The same holds across headers."""
    headers = [("Cookie", f"{COOKIE}={token()}"), ("Cookie", f"{COOKIE}={token()}")]
    assert INVALID == client.code("GET", STATUS, headers=headers)


def test_the_plain_cookie_is_for_loopback() -> None:
    """Under any other name of the sidecar the cookie without a prefix is not looked at."""
    with serving(auth_secrets=SECRET, allowed_hosts="queue.example") as client:
        headers = {"Host": "queue.example", "Cookie": f"{LOOPBACK_COOKIE}={token()}"}
        assert MISSING == client.code("GET", STATUS, headers=headers)


def test_a_bad_credential_is_not_made_good(client: Client) -> None:
    """The one that a request shows first is judged alone: header, then ticket, then cookie."""
    good = {"Cookie": f"{COOKIE}={token()}"}
    assert EXPIRED == client.code("GET", STATUS, headers={**good, **bearer(token(ttl=-1))})
    assert INVALID == client.code("GET", EVENTS, params={"ticket": "x"}, headers=good)
    assert "a" == client.sees(EVENTS, params={"ticket": "x"}, headers=bearer(token(NARROW)))


@pytest.mark.parametrize("path", [EVENTS, TASK_EVENTS])
def test_ticket(client: Client, path: str) -> None:
    """A ticket opens any stream, again within its life, as who had the token."""
    answer = client.post(TICKETS, headers=bearer(token(NARROW, ["args"], ttl=600)))
    assert (200, "no-store") == (answer.status_code, answer.headers["cache-control"])
    assert 60 == answer.json()["expires_in"]
    for _ in range(2):
        [task] = client.shown(path, params={"ticket": answer.json()["ticket"], "include": "args"})
        assert ("a", "()") == (task["task_id"], task["args"])


@pytest.mark.parametrize(
    "path",
    [STATUS, WORKERS, "/api/v1/queue/tasks/events", "/api/v1/queue/tasks/a/events/x", "/nothing/events"],
)
def test_a_ticket_answers_no_question(client: Client, path: str) -> None:
    """A ticket at anything but a stream is refused, and is no token in any other place."""
    ticket = ticket_for(client, token())
    assert INVALID == client.code("GET", path, params={"ticket": ticket})
    assert INVALID == client.code("GET", EVENTS, headers=bearer(ticket))
    assert INVALID == client.code("POST", TICKETS, headers=bearer(ticket))


@pytest.mark.parametrize(
    "query",
    ["ticket=", "ticket=x", f"ticket={token(ttl=600)}", "ticket=x&ticket=y", "ticket=%ff%00", "%74icket=x"],
)
def test_wrong_tickets(client: Client, query: str) -> None:
    """What is no ticket is refused, also a token."""
    assert INVALID == client.code("GET", f"{EVENTS}?{query}")


def test_a_token_in_the_query_is_not_looked_at(client: Client) -> None:
    """A token has no place in an address."""
    for name in ("token", "access_token", "Ticket"):
        assert MISSING == client.code("GET", EVENTS, params={name: token()})


def test_another_replica_takes_the_ticket(client: Client) -> None:
    """A ticket is good at every sidecar with the same secrets."""
    with serving(auth_secrets=OTHER_SECRET) as other:
        assert "a" == other.sees(EVENTS, params={"ticket": ticket_for(client, token(NARROW))})


@pytest.mark.parametrize("path", [TICKETS, SESSION])
def test_only_the_header_opens_session_and_ticket(client: Client, path: str) -> None:
    """A cookie, which a browser sends by itself, gives neither."""
    assert MISSING == client.code("POST", path)
    assert MISSING == client.code("POST", path, headers={"Cookie": f"{COOKIE}={token()}"})
    assert MISSING == client.code("POST", path, params={"ticket": ticket_for(client, token())})
    assert EXPIRED == client.code("POST", path, headers=bearer(token(ttl=-1)))
    assert (403, "scope_insufficient") == client.code("POST", path, headers=bearer(token({})))


@pytest.mark.parametrize("path", [TICKETS, SESSION])
def test_no_get_changes_anything(client: Client, path: str) -> None:
    """A link or an image can neither open nor close a session."""
    for method in ("GET", "HEAD"):
        answer = client.request(method, path, headers=bearer(token()))
        assert 405 == answer.status_code
        assert "set-cookie" not in answer.headers


def test_session_on_loopback(client: Client) -> None:
    """The cookie that a session sets is good, not to be read by scripts, and gone when it is closed."""
    answer = client.post(SESSION, headers=bearer(token(NARROW, ttl=600)), json={})
    assert (200, "no-store") == (answer.status_code, answer.headers["cache-control"])
    pair, *attributes = answer.headers["set-cookie"].split("; ")
    assert ["Path=/", "HttpOnly", "SameSite=Strict"] == attributes[1:]
    assert 570 <= int(attributes[0].removeprefix("Max-Age=")) <= 600
    assert pair.startswith(f"{LOOPBACK_COOKIE}=")
    assert "a" == client.sees()
    assert 204 == client.delete(SESSION).status_code
    assert MISSING == client.code("GET", STATUS)


def test_session_elsewhere(client: Client) -> None:
    """Under any other name the cookie is bound to this host and to TLS."""
    answer = client.post(SESSION, headers={**bearer(token()), "Host": "127.0.0.1.example"})
    assert (421, "host_not_allowed") == (answer.status_code, answer.json()["code"])
    with serving(host=OPEN_ADDRESS, auth_secrets=SECRET) as elsewhere:
        for method in ("POST", "DELETE"):
            answer = elsewhere.request(method, SESSION, headers={**bearer(token()), "Host": "queue.example"})
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith(f"{COOKIE}=")
            assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict; Secure")
            assert "Domain" not in cookie


def test_a_token_too_long_for_a_cookie(client: Client) -> None:
    """A browser would drop such a cookie without a word, so the session is refused."""
    text = token(padding="x" * COOKIE_TOKEN_MAX_CHARS)
    assert 200 == client.get(STATUS, headers=bearer(text)).status_code
    assert INVALID == client.code("POST", SESSION, headers=bearer(text))


def test_a_narrow_token_at_what_is_for_all(client: Client) -> None:
    """A route for who may read everything answers a narrow token with 403."""
    assert (403, "scope_insufficient") == client.code("GET", WORKERS, headers=bearer(token(NARROW)))
    assert (200, "") == client.code("GET", WORKERS, headers=bearer(token()))


def test_loopback_without_authentication() -> None:
    """On loopback anyone may read everything, and credentials, which nobody could check, are passed over."""
    with serving() as client:
        for headers in ({}, bearer("x"), {"Cookie": f"{COOKIE}=x"}):
            assert ["()", "()"] == [task["args"] for task in client.shown(TASKS, headers=headers)]
        assert "ab" == client.sees(EVENTS, params={"ticket": "x"})
        assert "a" == client.sees(TASK_EVENTS, params={"ticket": "x"})
        for path in (SESSION, TICKETS):
            assert (404, "not_configured") == client.code("POST", path, headers=bearer("x"))


@pytest.mark.parametrize(("sees_args", "words"), [(False, "read"), (True, "read,args")])
def test_anonymous(sees_args: bool, words: str) -> None:
    """Where it is said that anyone may read, a token is not needed, but a bad one is still refused."""
    with serving(host=OPEN_ADDRESS, auth_secrets=SECRET, allow_anonymous=words) as client:
        for path, params in ((TASKS, None), (EVENTS, {"include": "args"})):
            assert [sees_args] * 2 == ["args" in task for task in client.shown(path, params=params)]
        assert "a" == client.sees(headers=bearer(token(NARROW)))
        assert INVALID == client.code("GET", STATUS, headers=bearer("x"))


def test_nothing_is_configured_elsewhere() -> None:
    """Should it ever run on another address without any guard, nobody would come in."""
    access = make_access(Settings(host=OPEN_ADDRESS))
    assert (None, None, None) == (access.tokens, access.tickets, access.anonymous)


def test_public_key(tmp_path: Path) -> None:
    """With a public key only its tokens are good, and the secrets serve for tickets."""
    key = ec_key()
    path = jwks_file(tmp_path, jwk(key.public_key()))
    text = token(key=key, algorithm="ES256")
    with serving(auth_public_key=path, auth_secrets=SECRET) as client:
        assert 200 == client.get(STATUS, headers=bearer(text)).status_code
        assert INVALID == client.code("GET", STATUS, headers=bearer(token()))
        assert "ab" == client.sees(EVENTS, params={"ticket": ticket_for(client, text)})
    with serving(auth_public_key=path) as client:
        assert (404, "not_configured") == client.code("POST", TICKETS, headers=bearer(text))
        assert INVALID == client.code("GET", EVENTS, params={"ticket": "x"})


@pytest.mark.parametrize("root", ["", "/queue"])
def test_below_a_path_of_a_proxy(root: str) -> None:
    """Where it is mounted below a path, the same paths are open, streams and closed."""

    def scope(path: str) -> dict[str, str]:
        return {"path": root + path, "root_path": root}

    assert [True, False, False] == [is_open(scope(path)) for path in ("/livez", STATUS, "/livezz")]
    assert [True, True, False] == [is_stream(scope(path)) for path in (EVENTS, TASK_EVENTS, TASKS)]


def test_a_stream_ends_with_its_token(client: Client) -> None:
    """At the end of the token it says so in band, as the last that it says, and its end is soon."""
    for path in (EVENTS, TASK_EVENTS, f"{EVENTS}?task_id=none"):
        end = time.time() + 2
        *_, last = client.events(path, headers=bearer(token(NARROW, exp=end)))
        assert ("unauthorized", {"type": "unauthorized", "code": "token_expired"}) == (last.event, last.data)
        assert 0 <= time.time() - end < 1


def test_a_stream_of_a_ticket_ends_with_the_token(client: Client) -> None:
    """It neither ends with the ticket nor outlives what the ticket was made from."""
    end = time.time() + 2
    ticket = ticket_for(client, token(NARROW, exp=end))
    *_, last = client.events(params={"ticket": ticket})
    assert "unauthorized" == last.event
    assert 0 <= time.time() - end < 1


# -- what stays secret


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_in_the_log(log_format: str) -> None:
    """Whatever a credential is and wherever it stands, neither it nor a secret is in any line."""
    good, late, foreign = token(ttl=600), token(ttl=-1), token(key=OTHER_SECRET)
    with serving(auth_secrets=SECRET, log_level="debug", log_format=log_format) as client:
        ticket = ticket_for(client, good)
        for text in (good, late, foreign, ticket, "mistyped" * 5):
            # In a path only what looks like a token is taken for one.
            for path in (STATUS, EVENTS, *([f"{TASKS}/{text}", f"/{text}"] if "." in text else [])):
                client.code("GET", path, headers=bearer(text))
                client.code("GET", path, headers={"Cookie": f"{COOKIE}={text}"})
                client.code("GET", path, params={"ticket": text, "token": text})
                client.code(
                    "GET", path, headers={"Authorization": text, "Referer": f"http://x/?ticket={text}"}
                )
            client.code("POST", SESSION, headers=bearer(text))
            client.code("POST", TICKETS, headers=bearer(text))
        with socket.create_connection((HOST, client.sidecar.port)) as connection:
            connection.sendall(f"GET {good} HTTP/1.1\r\nAuthorization: Bearer {good}\x00\r\n\r\n".encode())
            connection.recv(1000)
        assert 0 == client.sidecar.stop(10)
        output = client.sidecar.output
    assert "is refused" in output
    for secret in (SECRET, good, late, foreign, ticket, "mistyped"):
        assert all(part not in output for part in secret.split("."))


@pytest.mark.parametrize("secret", ["hunter2", f"{SECRET},hunter2"])
def test_no_secret_in_a_mistake(redis_server: RedisServer, start_sidecar: StartSidecar, secret: str) -> None:
    """A secret that is refused at start is not shown."""
    sidecar = start_sidecar(ready=False, env={"SIDECAR_AUTH_SECRETS": secret})
    assert 2 == sidecar.wait()
    assert "32 bytes" in sidecar.output
    assert "hunter2" not in sidecar.output


def test_no_open_address_by_mistake(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """Where others would reach it, it does not start until it is said who may read, and tells both ways."""
    sidecar = start_sidecar(ready=False, env={"SIDECAR_HOST": OPEN_ADDRESS})
    assert 2 == sidecar.wait()
    assert "SIDECAR_AUTH_SECRETS" in sidecar.output
    assert "SIDECAR_ALLOW_ANONYMOUS=read" in sidecar.output
