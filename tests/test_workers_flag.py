"""Several processes behind one port: each streams all, and one that dies is replaced without a loss."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from celery_plugin.contract import Position
from deploy.demo.ports import HOST
from deploy.demo.redis_server import RedisServer
from sidecar.cli import main
from sidecar.listening import listen, reserve
from tests.support.batches import Sender
from tests.support.deadline import eventually
from tests.support.processes import descendants, runs
from tests.support.sidecar_process import Sidecar
from tests.support.sse import EventStream
from tests.support.starters import StartProcess, StartSidecar
from tests.support.writing import life, many, worker, writing

STREAMS = 40


@pytest.fixture
def two(redis_server: RedisServer, start_sidecar: StartSidecar) -> Sidecar:
    """Two processes, beside a worker that is there."""
    with writing(redis_server.url) as sender:
        sender.send(worker())
    return started(start_sidecar, 2)


@pytest.fixture
def sender(redis_server: RedisServer) -> Iterator[Sender]:
    """The writing side of one more worker."""
    with writing(redis_server.url, "two") as sender:
        sender.send(worker("two"))
        yield sender


def started(start_sidecar: StartSidecar, count: int, **env: str) -> Sidecar:
    """Start so many processes, and wait until each serves."""
    sidecar = start_sidecar(arguments=("--workers", str(count)), env=env)
    for number in range(1, count + 1):
        sidecar.wait_for_line(f"process-{number} .*listening on")
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    return sidecar


@contextmanager
def many_streams(sidecar: Sidecar) -> Iterator[list[EventStream]]:
    """Open streams enough that each process has some."""
    with ExitStack() as stack:
        streams = [stack.enter_context(sidecar.events()) for _ in range(STREAMS)]
        for stream in streams:
            stream.until_type("live")
        yield streams


def connections(pid: int) -> int:
    """How many sockets a process has open."""
    return sum(os.readlink(each).startswith("socket:") for each in Path(f"/proc/{pid}/fd").iterdir())


def from_log(stream: EventStream) -> list[int]:
    """The offsets of the events that a stream has brought."""
    return [Position.parse(event.id).offset for event in stream.seen if event.event == "task_status"]


def assert_clean(sidecar: Sidecar) -> None:
    """No error and no traceback."""
    assert "Traceback" not in sidecar.output
    assert " ERROR " not in sidecar.output


# -- serving


def test_each_serves(two: Sidecar, sender: Sender) -> None:
    """The streams are dealt out to the processes, and each has every event once and in order."""
    children = sorted(descendants(two.pid))
    before = [connections(pid) for pid in children]
    with many_streams(two) as streams:
        taken = [connections(pid) - before[number] for number, pid in enumerate(children)]
        assert STREAMS == sum(taken)
        assert all(taken)
        last = [sender.send(*batch) for batch in many(300)][-1].position
        for stream in streams:
            stream.until(lambda event: event.id == str(last))
            assert list(range(last.offset - 899, last.offset + 1)) == from_log(stream)
    assert_clean(two)


def test_one_alone_has_no_parent(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """Who wants one process gets one, and its log has no name of a process."""
    sidecar = start_sidecar(arguments=("--workers", "1"))
    assert set() == descendants(sidecar.pid)
    assert "process-" not in sidecar.output


def test_logs_name_the_process(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """It is told whose line it is, in JSON as well."""
    sidecar = started(start_sidecar, 2)
    assert re.search(r" INFO process-2 sidecar\.server: listening on", sidecar.output)
    sidecar = start_sidecar(env={"SIDECAR_WORKERS": "2", "SIDECAR_LOG_FORMAT": "json"})
    told = json.loads(sidecar.wait_for_line(r".*listening on.*")[0])
    assert told["process"] in ("process-1", "process-2")


# -- dying


def test_one_is_killed(two: Sidecar, sender: Sender) -> None:
    """Its clients come back and have missed nothing, others notice nothing, and a new process comes."""
    with ExitStack() as stack, many_streams(two) as streams:
        victim, survivor = sorted(descendants(two.pid))
        first = sender.send(*life("before")).position.offset - 2
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: any(stream.ended for stream in streams))
        for batch in many(200):
            sender.send(*batch)
        two.wait_for_line(r"process-\d was ended by SIGKILL; the next one comes in 0\.5 s")
        cut = [stream for stream in streams if stream.ended]
        again = [stack.enter_context(stream.reconnect()) for stream in cut]
        last = sender.send(*life("after")).position
        for stream in again:
            stream.until(lambda event: event.id == str(last))
        for stream in streams:
            if stream not in cut:
                stream.until(lambda event: event.id == str(last))
                assert list(range(first, last.offset + 1)) == from_log(stream)
        for stream, resumed in zip(cut, again, strict=True):
            assert list(range(first, last.offset + 1)) == from_log(stream) + from_log(resumed)
            assert not [event for event in resumed.seen if event.event in ("reset", "snapshot")]
        assert 0 < len(cut) < STREAMS
        eventually(lambda: len(descendants(two.pid)) == 2)
        assert survivor in descendants(two.pid)
        assert 0 == two.stop(10)


def test_one_that_dies_again_and_again(two: Sidecar) -> None:
    """Each time the next one takes longer to come, so that a fault does not take the machine's time."""
    for delay in ("0.5", "1", "2"):
        lines = two.line_count
        os.kill(max(descendants(two.pid)), signal.SIGKILL)
        name = two.wait_for_line(
            rf"(process-\d) was ended by SIGKILL; the next one comes in {delay} s", after=lines
        )
        died = time.monotonic()
        two.wait_for_line(f"{name[1]} sidecar.server: listening on", after=lines)
        assert time.monotonic() - died > float(delay) * 0.9
    assert 200 == two.get("/livez").status_code


def test_the_parent_is_killed(two: Sidecar, sender: Sender) -> None:
    """Without a parent the others drain and end: nobody is left who holds the port."""
    children = descendants(two.pid)
    with many_streams(two) as streams:
        os.kill(two.pid, signal.SIGKILL)
        for stream in streams:
            stream.wait_for_end()
            assert "drain" == stream.seen[-1].event
        eventually(lambda: not any(map(runs, children)))


def test_none_can_serve(two: Sidecar) -> None:
    """Where no process is left and none can begin, the parent ends, and the exit code tells of it."""
    for child in descendants(two.pid):
        os.kill(child, signal.SIGKILL)
    with eventually(lambda: took(two.port)):
        assert 1 == two.wait(10)
    assert "ended with exit code 1 before it listened, and no other one does" in two.output


def took(port: int) -> socket.socket | None:
    """Listen on a port and share it with nobody, if that is possible."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError:
        listener.close()
        return None
    return listener


# -- ending


def test_sigterm(redis_server: RedisServer, start_sidecar: StartSidecar, sender: Sender) -> None:
    """All drain at the same time, as one does, and the exit code is 0."""
    sidecar = started(start_sidecar, 2, SIDECAR_DRAIN_SECONDS="2")
    children = descendants(sidecar.pid)
    with many_streams(sidecar) as streams:
        began = time.monotonic()
        sidecar.send_signal(signal.SIGTERM)
        eventually(lambda: sidecar.get("/readyz").status_code == 503)
        last = sender.send(*life("a")).position
        for stream in streams:
            stream.wait_for_end()
            assert "drain" == stream.seen[-1].event
        assert 1.5 < time.monotonic() - began < 3.5
        assert any(event.id == str(last) for stream in streams for event in stream.seen)
    assert 0 == sidecar.wait(5)
    assert not any(map(runs, children))
    assert_clean(sidecar)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all(
    redis_server: RedisServer, start_sidecar: StartSidecar, sender: Sender, number: signal.Signals
) -> None:
    """What a terminal or systemd sends to each process counts once."""
    sidecar = started(start_sidecar, 2, SIDECAR_DRAIN_SECONDS="2")
    with many_streams(sidecar) as streams:
        began = time.monotonic()
        os.killpg(sidecar.pid, number)
        for stream in streams:
            stream.wait_for_end()
            assert "drain" == stream.seen[-1].event
        assert time.monotonic() - began > 1.5
    assert 0 == sidecar.wait(5)
    assert_clean(sidecar)


def test_the_second_signal(redis_server: RedisServer, start_sidecar: StartSidecar, sender: Sender) -> None:
    """Who cannot wait is not kept waiting."""
    sidecar = started(start_sidecar, 2, SIDECAR_DRAIN_SECONDS="60")
    with many_streams(sidecar):
        sidecar.send_signal(signal.SIGTERM)
        eventually(lambda: sidecar.get("/readyz").status_code == 503)
        assert 0 == sidecar.stop(2)
    assert_clean(sidecar)


STUBBORN = """
import time
from sidecar import log_setup, processes

def serve(line):
    line.say_listening()
    print("here", flush=True)
    time.sleep(600)
    return 0

log_setup.set_up("info", "text")
raise SystemExit(processes.run(2, serve, 0.5))
"""


def test_one_that_does_not_end(start_process: StartProcess) -> None:
    """A process that hangs is killed in the end, and the exit code tells of it."""
    parent = start_process([sys.executable, "-c", STUBBORN])
    eventually(lambda: parent.output.count("here") == 2)
    assert 1 == parent.stop(5)
    assert 2 == parent.output.count("does not end")


# -- starting


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "1000", ""])
def test_a_wrong_number(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A number that cannot be meant is a mistake in the settings."""
    assert 2 == main(["serve", f"--workers={given}"])
    assert f"--workers is '{given}': processes are a whole number from 1 to 256" in capsys.readouterr().err


def test_a_port_that_is_taken(redis_server: RedisServer, two: Sidecar, start_sidecar: StartSidecar) -> None:
    """A second sidecar does not share the port of the first, it ends."""
    second = start_sidecar(port=two.port, arguments=("--workers", "2"), ready=False)
    assert 1 == second.wait()
    assert f"cannot listen on {HOST} port {two.port}: Address already in use" in second.output


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_sharing(host: str) -> None:
    """A reserved port takes no connection, several share it, and nobody else can take it meanwhile."""
    with reserve(host, 0) as reserved:
        port = reserved.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port))
        with listen(host, port, shares=True), listen(host, port, shares=True):
            socket.create_connection((host, port)).close()
            with pytest.raises(OSError, match="in use"):
                listen(host, port)
            with pytest.raises(OSError, match="in use"):
                reserve(host, port)
