"""The promises of what the other tests stand on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from celery import Celery
from redis import Redis

from deploy.demo.child import environment
from deploy.demo.redis_server import RedisDidNotStart, RedisServer
from tests.support.deadline import eventually
from tests.support.processes import Process, runs
from tests.support.sse import EventStream, Parser, StreamEnded, async_events
from tests.support.starters import StartProcess, StartRedis, StartWorker
from tests.support.tasks_app import Gate


def test_a_killed_redis_comes_back_with_what_was_saved(redis_server: RedisServer) -> None:
    """`start` after `kill` takes the same port and loads the RDB."""
    with Redis.from_url(redis_server.url, decode_responses=True) as client:
        client.set("name", "saved")
        client.save()
        client.set("name", "lost")
        url = redis_server.url
        redis_server.kill()
        redis_server.start()
        assert url == redis_server.url
        client.connection_pool.disconnect()
        assert client.get("name") == "saved"


def test_a_frozen_redis_does_not_answer_until_it_is_resumed(redis_server: RedisServer) -> None:
    """`pause` stops the answers, not the connections."""
    redis_server.pause()
    with pytest.raises(RedisDidNotStart):
        redis_server.wait(seconds=0.1)
    redis_server.resume()
    redis_server.wait()


def test_redis_never_shares_a_port(start_redis: StartRedis, redis_server: RedisServer) -> None:
    """A port that is taken is an error, not somebody else's data."""
    with pytest.raises(RedisDidNotStart, match="in use"):
        start_redis(port=redis_server.port)


def test_a_wrong_redis_setting_is_shown(start_redis: StartRedis) -> None:
    """What Redis says about its settings stands in the error."""
    with pytest.raises(RedisDidNotStart, match="bogus"):
        start_redis("--bogus", "1")


def test_a_redis_that_wants_a_password_is_up(start_redis: StartRedis) -> None:
    """The refusal of an anonymous PING is an answer."""
    server = start_redis("--requirepass", "secret/word")
    with Redis.from_url(server.url_db(2, password="secret/word")) as client:
        assert client.ping()


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL of the test run leaves no Redis behind."""
    code = """if True:
        from deploy.demo.redis_server import RedisServer
        import signal
        print(RedisServer().start().pid, flush=True)
        signal.pause()
    """
    env = environment(TMPDIR=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    eventually(lambda: not runs(pid), what="Redis is gone")


def test_a_process_tells_its_lines_and_its_end(start_process: StartProcess) -> None:
    """Lines are seen as they come, and the exit code is the process's own."""
    process = start_process(["sh", "-c", "echo one; echo two >&2; exec sleep 60"])
    assert process.wait_for_line("^tw(.)$")[1] == "o"
    assert process.output == "one\ntwo\n"
    assert process.stop() == -signal.SIGTERM
    with pytest.raises(AssertionError, match=r"no line 'three'(.|\n)*one"):
        process.wait_for_line("three")


def test_close_ends_the_children_of_a_process() -> None:
    """What a process has started goes with it."""
    process = Process(["sh", "-c", "sleep 60 & echo $!; wait"])
    child = int(process.wait_for_line(r"^\d+$")[0])
    process.close()
    eventually(lambda: not runs(child), what="the child is gone")


def test_a_worker_runs_until_the_gate_opens(
    start_worker: StartWorker, celery_app: Celery, gate: Gate
) -> None:
    """A test decides when its tasks end."""
    start_worker(plugin=False, concurrency=1)
    blocked = celery_app.tasks["tests.wait_for_file"].delay(str(gate))
    added = celery_app.tasks["tests.add"].delay(2, 3)
    gate.open()
    assert str(gate) == blocked.get(timeout=30)
    assert added.get(timeout=30) == 5


def test_parser_reads_what_the_standard_allows() -> None:
    """Every line end, comments, fields without a space, data over several lines, a bare id."""
    parser = Parser()
    stream = (
        ": hello\r\nretry: 3000\r\rid:7\nevent: a\ndata: x\u2028\r\ndata:y\n\nid: 8\n\ndata: z\n\n".encode()
    )
    events = [event for byte in stream for event in parser.feed(bytes([byte]))]
    assert [(event.event, event.id, event.text, event.own_id) for event in events] == [
        ("a", "7", "x\u2028\ny", True),
        ("message", "8", "z", False),
    ]
    assert (parser.retry_ms, parser.comments) == (3000, ["hello"])


class _Streamer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Send two events after the last id, then end, or go on for ever where the path says so."""
        first = int(self.headers.get("Last-Event-ID", 0)) + 1
        self.send_response(200)
        self.end_headers()
        for number in (first, first + 1):
            self.wfile.write(f'id: {number}\nevent: tick\ndata: {{"n":{number}}}\n\n'.encode())
        while self.path == "/endless" and self.connection.recv(1):
            pass

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def streamer() -> Iterator[str]:
    """A server of small streams."""
    server = HTTPServer(("127.0.0.1", 0), _Streamer)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stream_resumes_where_it_ended(streamer: str) -> None:
    """`reconnect` sends the last id."""
    with EventStream(f"{streamer}/") as stream:
        assert [event.data["n"] for event in stream] == [1, 2]
    with stream.reconnect() as again:
        assert again.until_type("tick").data == {"n": 3}
        again.next()
        with pytest.raises(StreamEnded):
            again.next()


def test_a_quiet_stream_fails_at_its_deadline_and_closes(streamer: str) -> None:
    """A test neither hangs in a stream nor in its end."""
    with EventStream(f"{streamer}/endless") as stream:
        stream.until(lambda event: event.id == "2")
        with pytest.raises(AssertionError, match=r"no event within 0.05 s(.|\n)*tick"):
            stream.next(seconds=0.05)


@pytest.mark.anyio
async def test_the_asynchronous_stream_gives_the_same_events(streamer: str) -> None:
    """Both clients read alike."""
    async with async_events(f"{streamer}/", last_event_id="4") as events:
        assert [event.id async for event in events] == ["5", "6"]
    async with async_events(f"{streamer}/endless", seconds=0.05) as events:
        with pytest.raises(TimeoutError):
            _ = [event async for event in events]


def test_processes_that_run_side_by_side_take_no_port_from_each_other() -> None:
    """Whoever gets a port listens on it a moment later; until then nobody else may be given it."""
    program = (
        "from deploy.demo.ports import free_port, share_ports\n"
        "share_ports({part}, 2)\n"
        "print(*(free_port() for _ in range(500)))"
    )
    given = [
        subprocess.run(
            [sys.executable, "-c", program.format(part=part)], capture_output=True, text=True, check=True
        ).stdout.split()
        for part in range(2)
    ]
    assert 1000 == len(set(given[0]) | set(given[1]))
