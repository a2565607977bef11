"""Each request has an id, and a line in the log, without a price for streams and without a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.request_ids import choose
from tests.support.batches import Sender
from tests.support.guarded import STATUS, TASKS, Client, serving
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar
from tests.support.tokens import SECRET, token

ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A sidecar that wants tokens and logs JSON."""
    with serving(auth_secrets=SECRET, log_format="json") as found:
        yield found


def line_of(client: Client, request_id: str) -> dict[str, object]:
    """The line of a request."""
    match = client.sidecar.wait_for_line(rf'^(.*"logger": "sidecar.access".*"{re.escape(request_id)}".*)$')
    found: dict[str, object] = json.loads(match[1])
    return found


def test_an_id_is_answered(client: Client) -> None:
    """A sane id is taken over; where there is none, or no sane one, each request has one of its own."""
    bearer = {"Authorization": f"Bearer {token()}"}
    assert ID == client.get(STATUS, headers=bearer | {"X-Request-ID": ID}).headers["x-request-id"]
    made = [client.get(STATUS, headers=bearer).headers["x-request-id"] for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in made)
    assert made[0] != made[1]
    for bad in ("", "a b", "x" * 65, 'a"b', "é"):
        answer = client.get(STATUS, headers={**bearer, "X-Request-ID": bad.encode("latin-1")})
        assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


@given(st.lists(st.text(), max_size=3))
def test_no_id_is_anything_else(given_ids: list[str]) -> None:
    """Whatever comes in the header, an id is short and of letters, digits, dots, dashes and underscores."""
    assert re.fullmatch(r"[A-Za-z0-9._\-]{1,64}", choose(given_ids))


def test_a_problem_names_it(client: Client) -> None:
    """Who reports an error has the id under which the log has it, also with an answer of the guards."""
    answer = client.get(STATUS, headers={"X-Request-ID": ID})
    assert (401, ID, ID) == (answer.status_code, answer.json()["request_id"], answer.headers["x-request-id"])
    answer = client.get("/nothing")
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_a_line_a_request(client: Client) -> None:
    """The line has method, path, status, time and client, and nothing of query and token."""
    secret = token()
    headers = {"Authorization": f"Bearer {secret}", "X-Request-ID": "one-request"}
    client.get(TASKS, params={"q": "a-private-word"}, headers=headers)
    line = line_of(client, "one-request")
    expected = {"method": "GET", "path": TASKS, "status": 200, "client": "127.0.0.1", "level": "info"}
    assert expected.items() <= line.items()
    assert isinstance(line["duration_ms"], float)
    assert "a-private-word" not in client.sidecar.output
    assert secret not in client.sidecar.output


def test_what_a_path_holds(client: Client) -> None:
    """A path starts no line of its own, and a token in it is cut."""
    secret = token()
    client.get(f"/x%0a%1b[2J{secret}", headers={"X-Request-ID": "a-strange-path"})
    line = line_of(client, "a-strange-path")
    assert 401 == line["status"]
    assert str(line["path"]).startswith("/x\n\x1b[2J")
    assert secret not in client.sidecar.output


def test_a_stream_has_one_when_it_ends(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Its line comes when the client has gone; health checks have none; as text it has the id, too."""
    sidecar = start_sidecar()
    for path in ("/livez", "/readyz"):
        assert re.fullmatch("[0-9a-f]{16}", sidecar.get(path).headers["x-request-id"])
    with sidecar.events(headers={"X-Request-ID": "a-stream"}) as stream:
        stream.until_type("live")
        assert "a-stream" not in sidecar.output
    line = r"INFO sidecar.access \[a-stream\]: GET /api/v1/queue/events 200 in [0-9.]+ ms for 127.0.0.1$"
    sidecar.wait_for_line(line)
    assert "livez" not in sidecar.output
    assert "readyz" not in sidecar.output


def test_it_can_be_left_out(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Without access log there is an id, and no line."""
    sidecar = start_sidecar(arguments=("--access-log", "off"))
    assert sidecar.get("/nothing").headers["x-request-id"]
    assert 0 == sidecar.stop()
    assert "sidecar.access" not in sidecar.output


def test_a_client_is_whom_the_proxy_names(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Behind a trusted proxy the line names the client and not the proxy."""
    sidecar: Sidecar = start_sidecar(env={"SIDECAR_TRUSTED_PROXIES": "127.0.0.1"})
    sidecar.get("/nothing", headers={"X-Forwarded-For": "192.0.2.7"})
    sidecar.wait_for_line(r"GET /nothing 404 in [0-9.]+ ms for 192\.0\.2\.7$")
