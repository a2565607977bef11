"""One queue, asked of the sidecar, Celery's inspect, Flower, celery-exporter; then its worker is killed.

    python -m venv flower && flower/bin/pip install 'celery[redis]' flower
    python -m bench peers --flower flower/bin/celery --exporter 'exporter/bin/python cli.py'

with the dependencies of github.com/danihodovic/celery-exporter in the environment `exporter`. Who is not
named is left out.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from celery import Celery

from bench.figures import median
from deploy.demo import child
from deploy.demo.ports import HOST, free_port
from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.celery_worker import launch_worker, wait_until_ready
from tests.support.deadline import eventually
from tests.support.processes import Process
from tests.support.sidecar_process import launch_sidecar, wait_until_alive
from tests.support.tasks_app import Gate, make_app

QUEUE = "/api/v1/queue"
# So often each is asked: what takes a second, less often.
TIMES, SLOW_TIMES = 50, 5
TASK = "tests.wait_for_file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--flower", help="a celery command that has Flower")
    parser.add_argument("--exporter", help="the command of celery-exporter")
    parser.add_argument("--seconds", type=float, default=60, help="how long to look after the kill")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(*acl.arguments()))
        worker = launch_worker(redis.url, events=True)
        stack.callback(worker.close)
        wait_until_ready(worker)
        sidecar = launch_sidecar(acl.as_user(redis.url), port=free_port(), env={"SIDECAR_RATE_LIMIT": "0"})
        stack.callback(sidecar.close)
        wait_until_alive(sidecar)
        ports = Ports(sidecar.port, free_port(), free_port())
        stack.enter_context(_flower(arguments.flower, redis.url, ports.flower))
        stack.enter_context(_exporter(arguments.exporter, redis.url, ports.exporter))
        app = stack.enter_context(make_app(redis.url, redis.url))
        gate = Gate(Path(stack.enter_context(TemporaryDirectory())) / "gate")
        task_id = app.send_task(TASK, [str(gate)]).id
        eventually(lambda: task_id in _get(ports.sidecar, f"{QUEUE}/tasks"))
        _ask_all(app, ports, arguments)
        worker.kill()
        _watch(task_id, ports, arguments)


class Ports(NamedTuple):
    """Where each of them listens, if it is there."""

    sidecar: int
    flower: int
    exporter: int


def _ask_all(app: Celery, ports: Ports, arguments: argparse.Namespace) -> None:
    for path in (f"{QUEUE}/workers", f"{QUEUE}/tasks", f"{QUEUE}/status", "/metrics"):
        _print(f"sidecar {path}", TIMES, partial(_get, ports.sidecar, path))
    _print("celery inspect active", SLOW_TIMES, app.control.inspect().active)
    if arguments.flower:
        eventually(lambda: TASK in _get(ports.flower, "/api/tasks"), what="Flower knows the task")
        _print("Flower /api/tasks", TIMES, partial(_get, ports.flower, "/api/tasks"))
        path = "/api/workers?refresh=1"
        _print(f"Flower {path}", SLOW_TIMES, partial(_get, ports.flower, path))
    if arguments.exporter:
        eventually(lambda: "celery_worker_up" in _get(ports.exporter, "/metrics"), what="it has heard")
        _print("celery-exporter /metrics", SLOW_TIMES, partial(_get, ports.exporter, "/metrics"))


def _watch(task_id: str, ports: Ports, arguments: argparse.Namespace) -> None:
    """What each says of a task whose worker was just killed."""
    killed = time.monotonic()
    eventually(lambda: '"lost"' in _get(ports.sidecar, f"{QUEUE}/tasks/{task_id}"), 60)
    print(f"sidecar: lost after {time.monotonic() - killed:.1f} s")
    time.sleep(max(0.0, arguments.seconds - (time.monotonic() - killed)))
    if arguments.flower:
        state = json.loads(_get(ports.flower, f"/api/task/info/{task_id}"))["state"]
        print(f"Flower: {state} after {arguments.seconds:g} s")
    if arguments.exporter:
        lines = _get(ports.exporter, "/metrics").splitlines()
        shown = [
            line for line in lines if line.startswith(("celery_worker_up{", "celery_worker_tasks_active{"))
        ]
        print(f"celery-exporter after {arguments.seconds:g} s:", *shown)


def _print(what: str, times: int, ask: Callable[[], object]) -> None:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - began) * 1000)
    print(f"{what:36} {times:3} times, ms: median {median(taken):.1f}, max {max(taken):.1f}", flush=True)


def _get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


@contextmanager
def _flower(command: str | None, url: str, port: int) -> Iterator[None]:
    options = [f"--broker={url}", "flower", f"--port={port}", f"--address={HOST}"]
    environment = child.environment(FLOWER_UNAUTHENTICATED_API="true")
    with _running(command, options, environment):
        eventually(lambda: not command or _get(port, "/api/tasks").startswith("{"), 60, what="it answers")
        yield


@contextmanager
def _exporter(command: str | None, url: str, port: int) -> Iterator[None]:
    options = [f"--broker-url={url}", f"--port={port}", f"--host={HOST}"]
    with _running(command, options, child.environment()):
        eventually(lambda: not command or _get(port, "/health") != "", 60, what="it answers")
        yield


@contextmanager
def _running(command: str | None, options: list[str], environment: Mapping[str, str]) -> Iterator[None]:
    if not command:
        yield
        return
    process = Process([*shlex.split(command), *options], env=environment)
    try:
        yield
    finally:
        process.close()
