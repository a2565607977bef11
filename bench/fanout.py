"""Many viewers: CPU of a delivered event and its age, beside Nchan and a bare C loop in the same run."""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import cpu_seconds, median
from deploy.demo import child
from deploy.demo.ports import HOST, free_port
from deploy.demo.redis_server import RedisServer
from tests.support.batches import step
from tests.support.deadline import eventually
from tests.support.processes import descendants
from tests.support.sidecar_process import launch_sidecar, wait_until_alive
from tests.support.writing import task, worker, writing

HERE = Path(__file__).parent
# All events that are compared are of tasks; the figures, ten a second, are the sidecar's alone.
EVERYTHING = "/api/v1/queue/events?types=task_status"
ONE_TASK = "/api/v1/queue/tasks/w%d/events"
NCHAN_MODULES = [Path("/usr/lib/nginx/modules/ngx_nchan_module.so")]
# Fills an event to the length of one that a worker tells.
PADDING = "x" * 120
SETTLE_SECONDS = 1.0


@dataclass(frozen=True)
class Load:
    """So many clients, and so many events a second in all."""

    clients: int
    rate: int
    path: str = EVERYTHING

    def __str__(self) -> str:
        return f"{self.clients:,} x {self.rate}/s" + (", one task each" if self.path == ONE_TASK else "")


LOADS = [
    Load(100, 100),
    Load(1000, 20),
    Load(1000, 200),
    Load(5000, 20),
    Load(50, 200, ONE_TASK),
    Load(5000, 200, ONE_TASK),
]


@dataclass(frozen=True)
class Run:
    """One run: µs of CPU of a delivered event, and the age of events in ms."""

    cpu_us: float
    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class Server:
    """Something that streams: its processes, and how to tell it an event by number."""

    name: str
    pids: list[int]
    port: int
    path: str
    tell: Callable[[int], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seconds", type=float, default=6, help="how long events come in each run")
    parser.add_argument("--rounds", type=int, default=3, help="how often each server has its turn")


def run(arguments: argparse.Namespace) -> None:
    """Measure in turn, A B C A B C …, and print medians."""
    if shutil.which("cc") is None:
        print("skipped: there is no C compiler for the clients (cc)")
        return
    with tempfile.TemporaryDirectory() as folder:
        programs = {name: _compile(name, Path(folder)) for name in ("sse_swarm", "send_loop")}
        print(f"{'':32}{'CPU µs':>8}{'p50 ms':>9}{'p99':>8}{'max':>8}")
        for load in LOADS:
            runs: dict[str, list[Run]] = {}
            for _ in range(arguments.rounds):
                for name, serve in _servers(load, programs).items():
                    with serve(load) as server:
                        runs.setdefault(name, []).append(_measure(server, load, arguments.seconds, programs))
            _print(load, runs)


def _print(load: Load, runs: dict[str, list[Run]]) -> None:
    print(load)
    for name, each in runs.items():
        figures = [median([getattr(one, field) for one in each]) for field in ("cpu_us", "p50", "p99", "max")]
        print(
            f"    {name:28}{figures[0]:8.2f}{figures[1]:9.1f}{figures[2]:8.1f}{figures[3]:8.1f}", flush=True
        )


def _compile(name: str, folder: Path) -> str:
    program = str(folder / name)
    subprocess.run(["cc", "-O2", "-o", program, str(HERE / f"{name}.c")], check=True)
    return program


def _servers(load: Load, programs: dict[str, str]) -> dict[str, Any]:
    servers: dict[str, Any] = {"sidecar": _sidecar}
    if load.path == EVERYTHING:
        if shutil.which("nginx") and _nchan_module():
            servers["Nchan"] = _nchan
        servers["bare loop in C"] = lambda load: _bare_loop(load, programs["send_loop"])
    return servers


def _measure(server: Server, load: Load, seconds: float, programs: dict[str, str]) -> Run:
    command = [programs["sse_swarm"], HOST, str(server.port), server.path, str(load.clients)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as swarm:
        assert swarm.stdin is not None
        assert swarm.stdout is not None
        ready = swarm.stdout.readline().split()
        assert ready == ["READY", str(load.clients)], f"{ready} instead of {load.clients} streams"
        # What each stream begins with is still on its way, and that of one task is asked of Redis.
        time.sleep(SETTLE_SECONDS + (load.clients / 1000 if load.path == ONE_TASK else 0))
        before, began = cpu_seconds(server.pids), time.monotonic()
        for number in range(int(seconds * load.rate)):
            time.sleep(max(0.0, began + number / load.rate - time.monotonic()))
            server.tell(number)
        time.sleep(SETTLE_SECONDS)
        used = cpu_seconds(server.pids) - before
        swarm.stdin.close()
        told = json.loads(swarm.stdout.readline())
    expected = int(seconds * load.rate) * (1 if load.path == ONE_TASK else load.clients)
    if told["events"] < expected:
        late = expected - told["events"]
        print(f"    {server.name}: {late:,} of {expected:,} events had not come {SETTLE_SECONDS:g} s later")
    return Run(used / told["events"] * 1e6, told["p50"], told["p99"], told["max"])


@contextmanager
def _sidecar(load: Load) -> Iterator[Server]:
    many = str(load.clients + 1)
    env = {"SIDECAR_MAX_STREAMS": many, "SIDECAR_MAX_STREAMS_PER_ADDRESS": many}
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        sidecar = launch_sidecar(redis.url, env=env)
        stack.callback(sidecar.close)
        wait_until_alive(sidecar)
        sender = stack.enter_context(writing(redis.url))
        sender.send(worker())
        eventually(lambda: sidecar.get("/readyz").status_code == 200)

        def tell(number: int) -> None:
            stamp = {"timestamp": round(time.time(), 6), "queue": "celery", "padding": PADDING}
            if load.path == ONE_TASK:
                # Run after run of each task, none of which ends it.
                count, phase = divmod(number, 3)
                status = ("reserved", "active", "retrying")[phase]
                sender.send(step(f"w{count % load.clients}", status, f"one/{count}", **stamp))
            else:
                count, phase = divmod(number, 3)
                sender.send(task(f"t{count}", ("reserved", "active", "completed")[phase], **stamp))

        yield Server("sidecar", [sidecar.pid], sidecar.port, load.path, tell)


def _payload() -> bytes:
    """An event about as long as one of the sidecar's."""
    event = {"type": "task_status", "status": "active", "worker": "celery@one", "offset": 12345}
    event |= {"previous": {"status": "reserved", "worker": "celery@one"}, "message": "…", "task_id": "t1234"}
    event |= {"task_name": "tests.add", "position": None, "received_at": 1_000_000_000.0}
    event |= {"timestamp": round(time.time(), 6), "queue": "celery", "padding": PADDING, "run": "one/t1234"}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def _nchan_module() -> Path | None:
    return next((module for module in NCHAN_MODULES if module.exists()), None)


NGINX = """
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections {files}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    server {{
        listen {host}:{port} backlog=4096;
        location = /publish {{
            nchan_publisher; nchan_channel_id events; nchan_message_buffer_length 2000;
        }}
        location = /events {{
            nchan_subscriber eventsource; nchan_channel_id events; nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


@contextmanager
def _nchan(load: Load) -> Iterator[Server]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        config = Path(folder) / "nginx.conf"
        values = {"module": _nchan_module(), "folder": folder, "host": HOST, "port": port}
        config.write_text(NGINX.format(files=load.clients + 1000, **values))
        nginx = child.spawn(["nginx", "-p", folder, "-c", str(config)])
        try:
            eventually(lambda: descendants(nginx.pid))
            publisher = http.client.HTTPConnection(HOST, port)
            eventually(lambda: _answers(publisher))

            def tell(_: int) -> None:
                publisher.request("POST", "/publish", _payload())
                publisher.getresponse().read()

            yield Server("Nchan", [nginx.pid, *descendants(nginx.pid)], port, "/events", tell)
            publisher.close()
        finally:
            child.kill_group(nginx)


def _answers(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except OSError:
        connection.close()
        return False
    return True


@contextmanager
def _bare_loop(load: Load, program: str) -> Iterator[Server]:
    port = free_port()
    command = [program, str(port), str(load.clients)]
    loop = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert loop.stdin is not None
    stdin = loop.stdin

    def tell(_: int) -> None:
        stdin.write(_payload() + b"\n")
        stdin.flush()

    try:
        time.sleep(0.2)
        yield Server("bare loop", [loop.pid], port, "/", tell)
    finally:
        child.kill_group(loop)
        stdin.close()
