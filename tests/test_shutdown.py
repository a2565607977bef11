"""The sidecar begins and ends cleanly."""

from __future__ import annotations

import signal
import socket
import time

import httpx
import pytest

from deploy.demo.ports import HOST
from deploy.demo.redis_server import RedisServer
from tests.support.sidecar_process import Sidecar
from tests.support.sse import EventStream
from tests.support.starters import StartSidecar
from tests.support.writing import life, worker, writing


def assert_clean(sidecar: Sidecar) -> None:
    """No error and no traceback."""
    assert "Traceback" not in sidecar.output
    assert " ERROR " not in sidecar.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_end(
    redis_server: RedisServer, start_sidecar: StartSidecar, number: signal.Signals
) -> None:
    """A signal ends every stream as HTTP ends a body, and the process with code 0, spread over 5 s."""
    with writing(redis_server.url) as sender:
        sender.send(worker(), *life("a"))
    sidecar = start_sidecar()
    streams = [EventStream(f"{sidecar.url}/api/v1/queue/events") for _ in range(20)]
    try:
        for stream in streams:
            stream.__enter__()
            stream.until_type("live")
        assert 0 == sidecar.stop(7, number)
        for stream in streams:
            stream.wait_for_end(1)
    finally:
        for stream in streams:
            stream.close()
    assert "stopped" in sidecar.output
    assert_clean(sidecar)


def test_the_body_is_complete(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """A strict client sees the last chunk of the body, not a connection that broke."""
    sidecar = start_sidecar()
    with httpx.stream("GET", f"{sidecar.url}/api/v1/queue/events", trust_env=False, timeout=10) as response:
        assert "chunked" == response.headers["transfer-encoding"]
        chunks = response.iter_raw()
        next(chunks)
        sidecar.send_signal(signal.SIGTERM)
        # httpx raises RemoteProtocolError when the body ends before its last chunk.
        assert all(isinstance(chunk, bytes) for chunk in chunks)
    assert 0 == sidecar.wait(7)


def test_while_redis_is_frozen(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """A Redis that does not answer holds nothing up."""
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        stream.until_type("live")
        redis_server.pause()
        started = time.monotonic()
        assert 0 == sidecar.stop(6)
        assert time.monotonic() - started < 5
        stream.wait_for_end(1)
    redis_server.resume()
    assert_clean(sidecar)


def test_without_redis(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """Nor does one that is not there."""
    redis_server.stop()
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        stream.until_type("stale")
        assert 0 == sidecar.stop(5)
        stream.wait_for_end(1)
    assert_clean(sidecar)


def test_a_kept_connection_does_not_hold_the_end_up(start_sidecar: StartSidecar) -> None:
    """A client that keeps its connection open without a request is let go."""
    sidecar = start_sidecar()
    with httpx.Client(base_url=sidecar.url, trust_env=False) as client:
        client.get("/livez")
        assert 0 == sidecar.stop(3)
    assert_clean(sidecar)


def test_small_answers_are_not_held_back(start_sidecar: StartSidecar) -> None:
    """No answer waits for a delayed acknowledgement, which takes 40 ms."""
    sidecar = start_sidecar()
    with httpx.Client(base_url=sidecar.url, trust_env=False) as client:
        client.get("/livez")
        started = time.monotonic()
        for _ in range(50):
            client.get("/livez")
        assert time.monotonic() - started < 50 * 0.03


def test_the_port_is_free_at_once(start_sidecar: StartSidecar) -> None:
    """The next sidecar takes the place of one that ended, though connections of that one linger."""
    sidecar = start_sidecar()
    with sidecar.events() as stream:
        stream.until_type("live")
        sidecar.stop(5)
    assert 200 == start_sidecar(port=sidecar.port).get("/livez").status_code


def test_port_in_use(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """A port that somebody else has is told in one line, with exit code 1."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        sidecar = start_sidecar(ready=False, port=port)
        assert 1 == sidecar.wait()
    [line] = sidecar.output.splitlines()
    assert f"cannot listen on {HOST} port {port}: " in line
    assert "in use" in line


def test_no_such_host(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """An address that is not this machine's is told in one line, with exit code 1."""
    sidecar = start_sidecar(ready=False, env={"SIDECAR_HOST": "192.0.2.1", "SIDECAR_ALLOW_ANONYMOUS": "read"})
    assert 1 == sidecar.wait()
    [line] = sidecar.output.splitlines()
    assert "cannot listen on 192.0.2.1" in line
