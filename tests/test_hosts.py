"""A page that has its own name point to this machine is not let in, and whoever asks rightly is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest

from sidecar.hosts import is_address, is_loopback_host
from tests.support.guarded import EVENTS, STATUS, Client, serving

ANYWHERE = {"host": "0.0.0.0", "allow_anonymous": "read"}  # noqa: S104  # what others reach is what is tested


@pytest.fixture(scope="module")
def loopback() -> Iterator[Client]:
    """An application on loopback without further settings."""
    with serving() as client:
        yield client


@pytest.fixture(scope="module")
def named() -> Iterator[Client]:
    """An application on loopback that is also asked under other names."""
    with serving(allowed_hosts="queue.example,*.lan") as client:
        yield client


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "localhost.",
        "x.localhost:8000",
        "127.0.0.1",
        "127.0.0.1:8000",
        "[::1]:8000",
        "10.0.0.1",
    ],
)
@pytest.mark.parametrize("path", [STATUS, EVENTS])
def test_loopback(loopback: Client, host: str, path: str) -> None:
    """Under the names of loopback and under addresses it answers, with any port."""
    assert (200, "") == loopback.code("GET", path, headers={"Host": host})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        ".localhost",
        "localhost:8000:8000",
        "evil@localhost",
        "localhost/evil",
        "localhost evil",
        "[::1",
        "",
    ],
)
@pytest.mark.parametrize("path", [STATUS, EVENTS])
def test_rebinding(loopback: Client, host: str, path: str) -> None:
    """Under any other name it does not."""
    assert (421, "host_not_allowed") == loopback.code("GET", path, headers={"Host": host})


def test_two_hosts(loopback: Client) -> None:
    """Of two names none is chosen."""
    # httpx sends no such request.
    connection = HTTPConnection(loopback.base_url.host, loopback.base_url.port or 0, timeout=10)
    with closing(connection):
        connection.putrequest("GET", STATUS, skip_host=True)
        connection.putheader("Host", "localhost")
        connection.putheader("Host", "evil.example")
        connection.endheaders()
        assert 421 == connection.getresponse().status


@pytest.mark.parametrize(
    ("expected", "host"),
    [
        (200, "queue.example"),
        (200, "Queue.Example:443"),
        (200, "a.lan"),
        (200, "a.b.lan"),
        (200, "localhost"),
        (421, "lan"),
        (421, ".lan"),
        (421, "xlan"),
        (421, "x.queue.example"),
    ],
)
def test_names_of_the_settings(named: Client, expected: int, host: str) -> None:
    """Names are added to those of loopback; a star stands for what is below."""
    assert expected == named.get(STATUS, headers={"Host": host}).status_code


def test_a_health_check_may_use_any_name(loopback: Client) -> None:
    """What tells nothing of the queue is answered under any name."""
    assert 200 == loopback.get("/livez", headers={"Host": "evil.example"}).status_code


@pytest.mark.parametrize(
    ("expected", "settings"),
    [
        (200, ANYWHERE),
        (421, ANYWHERE | {"allowed_hosts": "queue.example"}),
        (200, {"allowed_hosts": "*"}),
    ],
)
def test_elsewhere(expected: int, settings: dict[str, str]) -> None:
    """On another address any name will do, unless some are configured; a star allows any."""
    with serving(**settings) as client:
        assert expected == client.get(STATUS, headers={"Host": "other.example"}).status_code


def test_addresses() -> None:
    """What looks like an address is one only if it is."""
    assert is_address("127.0.0.1")
    assert is_address("[::1]")
    assert not is_address("127.0.0.1.example")
    assert not is_address("")
    assert is_loopback_host("127.9.9.9")
    assert not is_loopback_host("10.0.0.1")
