"""Clients that come in masses, or send without an end: nobody notices them, and nothing is left of them."""

from __future__ import annotations

import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.figures import rss_mb
from deploy.demo.ports import HOST
from tests.support.batches import Sender
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar
from tests.support.writing import life, many, task

EVENTS = "/api/v1/queue/events"
# Connections that an error's traceback may hold a little longer.
FEW = 10


def request(method: str = "GET", path: str = EVENTS, *lines: str) -> bytes:
    """The head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


@pytest.fixture
def counted(sender: Sender, start_sidecar: StartSidecar) -> Sidecar:
    """A sidecar that counts its tasks, with some to show."""
    for batch in many(300):
        sender.send(*batch)
    sender.send(task("open", "active"))
    sidecar = start_sidecar(module="tests.support.counted_sidecar")
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    return sidecar


class Kept(NamedTuple):
    """What its event loop has: tasks, sockets that take turns, connections that ended and are in memory."""

    tasks: int
    clients: int
    ended: int


def kept(sidecar: Sidecar) -> Kept:
    """Ask it."""
    lines = sidecar.line_count
    sidecar.send_signal(signal.SIGUSR1)
    said = sidecar.wait_for_line(r"^tasks: (\d+), clients: (\d+), ended connections: (\d+)", after=lines)
    return Kept(*map(int, said.groups()))


def connections(sidecar: Sidecar) -> int:
    """How many connections of clients it has open, also those that the client has closed."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Local address, and the state: ESTABLISHED or CLOSE_WAIT.
    return sum(row[1].endswith(f":{sidecar.port:04X}") and row[3] in ("01", "08") for row in rows)


def descriptors(sidecar: Sidecar) -> int:
    """How many files and sockets it has open."""
    return len(list(Path(f"/proc/{sidecar.pid}/fd").iterdir()))


def little(has: Kept, had: Kept) -> bool:
    """Tell whether there is no more than before."""
    return has.tasks <= had.tasks and has.clients <= had.clients and has.ended <= FEW


@contextmanager
def watched(sidecar: Sidecar, sender: Sender, *, memory: float = 5.0, lag: float = 5.0) -> Iterator[None]:
    """See that a viewer is told in time (s), and that tasks, connections and memory (MB) come back."""
    with sidecar.events() as stream:
        stream.until_type("live")
        had, connected, opened = kept(sidecar), connections(sidecar), descriptors(sidecar)
        assert had.clients >= 1
        used = rss_mb(sidecar.pid)
        yield
        began = time.monotonic()
        last = sender.send(*life("after")).position
        stream.until(lambda event: event.id == str(last))
        assert time.monotonic() - began < lag
        eventually(lambda: connections(sidecar) <= connected)
        # Thousands that waited for Python's collector would halt everybody when it finds them.
        eventually(lambda: little(kept(sidecar), had))
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
    "requests behind a stream": (request() * 3, True),
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
        come_and_go(counted.port, said, resets=resets, times=1_500, rate=100_000)
    with watched(counted, sender):
        come_and_go(counted.port, said, resets=resets, times=3_000, rate=1_000)


def come_and_go(port: int, said: bytes, *, resets: bool, times: int, rate: float) -> None:
    """Connect so many times, so many in a second."""
    clock, began = threading.Event(), time.monotonic()
    for number in range(times):
        clock.wait(max(0.0, began + number / rate - time.monotonic()))
        with socket.create_connection((HOST, port)) as client:
            if resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(said)


def test_the_memory_of_a_crowd(counted: Sidecar, sender: Sender) -> None:
    """Streams that nobody reads hold what waits for them, tens of kilobytes each; the system has most of that
    back when they have gone."""
    used = rss_mb(counted.pid)
    with ExitStack() as stack:
        for number in range(240):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.bind((f"127.0.0.{2 + number % 3}", 0))
            client.connect((HOST, counted.port))
            client.sendall(request())
        eventually(lambda: "\nsidecar_streams 240.0\n" in counted.get("/metrics").text)
        for batch in many(300, "more"):
            sender.send(*batch)
        eventually(lambda: rss_mb(counted.pid) > used + 10)
        # They would be cut, one after the other, when they have taken nothing for 20 s.
        crowded = rss_mb(counted.pid)
    eventually(lambda: rss_mb(counted.pid) < crowded - (crowded - used) / 2)


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
