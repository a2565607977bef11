"""Clients that come in masses, or send without an end: nobody notices them, and nothing is left of them."""

from __future__ import annotations

import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bench.figures import rss_mb
from deploy.demo.ports import HOST
from tests.support.batches import Sender
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar
from tests.support.writing import life, many, task

EVENTS = "/api/v1/queue/events"


def request(method: str = "GET", path: str = EVENTS, *lines: str) -> bytes:
    """The head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


@pytest.fixture
def counted(sender: Sender, start_sidecar: StartSidecar) -> Sidecar:
    """A sidecar that counts its tasks, with some to show."""
    for batch in many(300):
        sender.send(*batch)
    sender.send(task("open", "active"))
    sidecar = start_sidecar(module="tests.support.counted_sidecar")
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    return sidecar


def tasks(sidecar: Sidecar) -> int:
    """How many tasks its event loop has."""
    lines = sidecar.line_count
    sidecar.send_signal(signal.SIGUSR1)
    return int(sidecar.wait_for_line(r"^tasks: (\d+)", after=lines)[1])


def connections(sidecar: Sidecar) -> int:
    """How many connections of clients it has open, also those that the client has closed."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Local address, and the state: ESTABLISHED or CLOSE_WAIT.
    return sum(row[1].endswith(f":{sidecar.port:04X}") and row[3] in ("01", "08") for row in rows)


def descriptors(sidecar: Sidecar) -> int:
    """How many files and sockets it has open."""
    return len(list(Path(f"/proc/{sidecar.pid}/fd").iterdir()))


@contextmanager
def watched(sidecar: Sidecar, sender: Sender, *, memory: float = 5.0, lag: float = 5.0) -> Iterator[None]:
    """See that a viewer is told in time (s), and that tasks, connections and memory (MB) come back."""
    with sidecar.events() as stream:
        stream.until_type("live")
        ran, connected, opened = tasks(sidecar), connections(sidecar), descriptors(sidecar)
        used = rss_mb(sidecar.pid)
        yield
        began = time.monotonic()
        last = sender.send(*life("after")).position
        stream.until(lambda event: event.id == str(last))
        assert time.monotonic() - began < lag
        eventually(lambda: connections(sidecar) <= connected)
        eventually(lambda: tasks(sidecar) <= ran)
        # Connections to Redis come and go: a question whose client has gone closes its own.
        eventually(lambda: descriptors(sidecar) <= opened + 4)
        assert rss_mb(sidecar.pid) - used < memory
    assert " ERROR " not in sidecar.output
    assert "Traceback" not in sidecar.output


# -- in masses

MASSES = {
    "nothing": (b"", False),
    "a stream": (request(), False),
    "a stream, and a reset": (request(), True),
    "the stream of a task": (request(path="/api/v1/queue/tasks/open/events"), False),
    "half a request": (request()[:20], False),
    "HEAD": (request("HEAD"), False),
    "POST": (request("POST", EVENTS, "Content-Length: 9"), True),
}


@pytest.mark.parametrize("kind", MASSES)
def test_a_thousand_a_second(counted: Sidecar, sender: Sender, kind: str) -> None:
    """Whoever connects a thousand times a second, and goes at once, costs others no time and no memory."""
    said, resets = MASSES[kind]
    # As fast as can be: more at a time than will be, so that the memory for it is there.
    with watched(counted, sender, memory=100, lag=30):
        come_and_go(counted.port, said, resets=resets, rate=100_000)
    with watched(counted, sender):
        come_and_go(counted.port, said, resets=resets, rate=1_000)


def come_and_go(port: int, said: bytes, *, resets: bool, rate: float) -> None:
    """Connect 3,000 times, so many in a second."""
    clock, began = threading.Event(), time.monotonic()
    for number in range(3_000):
        clock.wait(max(0.0, began + number / rate - time.monotonic()))
        with socket.create_connection((HOST, port)) as client:
            if resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(said)


# -- without an end

CHUNKED = "Transfer-Encoding: chunked"
CHUNK = b"1000\r\n" + b"x" * 4096 + b"\r\n"
ENDLESS = {
    "a body of a stream": (request("GET", EVENTS, CHUNKED), CHUNK),
    "a body that is not wanted": (request("POST", EVENTS, CHUNKED), CHUNK),
    "a body of a known length": (request("POST", EVENTS, "Content-Length: 99999999999"), b"x" * 4096),
    "trailers": (request("GET", EVENTS, CHUNKED) + b"0\r\n", b"X-a: b\r\n" * 500),
    "one trailer": (request("GET", EVENTS, CHUNKED) + b"0\r\nX-a: ", b"x" * 4096),
    "an extension of a chunk": (request("GET", EVENTS, CHUNKED) + b"1;", b"x" * 4096),
    "requests during a stream": (request(), b"GET / HTTP/1.1\r\n\r\n" * 500),
    "requests before an answer": (b"", b"GET / HTTP/1.1\r\n\r\n" * 500),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_without_an_end(counted: Sidecar, sender: Sender, kind: str) -> None:
    """Who sends and sends is cut, before it has taken memory or others' time."""
    head, more = ENDLESS[kind]
    with watched(counted, sender), socket.create_connection((HOST, counted.port)) as client:
        client.settimeout(20)
        client.sendall(head)
        with suppress(ConnectionError):
            for _ in range(40):
                client.sendall(more * 250)
            pytest.fail("40 MB were taken")


def test_many_headers(sidecar: Sidecar) -> None:
    """A stream keeps its headers, so there may not be any number of them."""
    assert 200 == sidecar.get("/livez", headers={f"X-{number}": "a" for number in range(90)}).status_code
    assert 400 == sidecar.get("/livez", headers={f"X-{number}": "a" for number in range(110)}).status_code
