"""How fast questions are answered of a large and busy queue, and what the sidecar takes of memory."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from redis import Redis

from bench.figures import cpu_seconds, median, percentile, rss_mb
from bench.meanwhile import meanwhile
from celery_plugin.operations import Operation
from deploy.demo import child
from deploy.demo.ports import HOST, free_port
from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.batches import step
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar, launch_sidecar, wait_until_alive
from tests.support.tasks_app import make_app
from tests.support.writing import worker, writing

QUEUE = "/api/v1/queue"
# The first one does nothing: what it takes is this machine.
QUESTIONS = (
    "/livez",
    f"{QUEUE}/status",
    f"{QUEUE}/tasks?limit=100",
    f"{QUEUE}/tasks?limit=100&queue=high",
    f"{QUEUE}/pending?queue=celery&limit=100",
    f"{QUEUE}/tasks/nobody",
)
BATCH = 500
FACTS = {
    "task_name": "app.tasks.generate",
    "queue": "celery",
    "attempt": 1,
    "position": None,
    "message": "Runs",
}
EXTRA = {"args": "('a text of some length', 5)", "kwargs": "{'size': 3}"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--active", type=int, default=10_000, help="tasks that run")
    parser.add_argument(
        "--waiting", type=int, default=100_000, help="tasks in workers, and as many in the broker"
    )
    parser.add_argument("--rate", type=int, default=500, help="events a second meanwhile")
    parser.add_argument("--times", type=int, default=500, help="how often each question is asked")
    parser.add_argument(
        "--streams", type=int, default=400, help="idle streams of which the memory is measured"
    )
    parser.add_argument("--flower", default=shutil.which("flower"), help="a celery command that has Flower")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    with RedisServer(*acl.arguments()) as redis:
        _fill(redis.url, arguments.active, arguments.waiting)
        with _sidecar(redis.url) as sidecar:
            _print_memory(sidecar, "110,000 tasks" if arguments.waiting == 100_000 else "all tasks")
            with meanwhile(_send_events, redis.url, arguments.rate):
                for question in QUESTIONS:
                    _ask(sidecar.port, question, arguments.times, sidecar.pid)
            _print_memory(sidecar, "the questions")
        _flower(redis.url, arguments)
    with RedisServer(*acl.arguments()) as redis, _sidecar(redis.url) as sidecar:
        _streams(sidecar, arguments.streams)


@contextmanager
def _sidecar(url: str) -> Iterator[Sidecar]:
    # All of them come from one address here.
    limits = {"SIDECAR_RATE_LIMIT": "0", "SIDECAR_MAX_STREAMS_PER_ADDRESS": "10000"}
    sidecar = launch_sidecar(acl.as_user(url), port=free_port(), env=limits)
    try:
        wait_until_alive(sidecar)
        eventually(lambda: sidecar.get("/readyz").status_code == 200)
        yield sidecar
    finally:
        sidecar.close()


def _print_memory(sidecar: Sidecar, what: str) -> None:
    print(f"{rss_mb(sidecar.pid):.0f} MB after {what}", flush=True)


def _fill(url: str, active: int, waiting: int) -> None:
    """What workers have, and what waits in the broker."""
    with writing(url) as sender, Redis.from_url(url) as broker:
        sender.settings = type(sender.settings)(log_max=1000)
        sender.send(worker(), lease=3600)
        steps = [("active", number) for number in range(active)] + [("reserved", n) for n in range(waiting)]
        for start in range(0, len(steps), BATCH):
            sender.send(*(_step(*each) for each in steps[start : start + BATCH]), lease=3600)
        messages = [_message(number) for number in range(waiting)]
        for start in range(0, waiting, BATCH):
            broker.lpush("celery", *messages[start : start + BATCH])


def _step(status: str, number: int) -> Operation:
    name = f"{status}-{number:06}-4316-90a6-7ab189ebf5b5"
    return step(name, status, f"one/{name}", extra=EXTRA, received_at=time.time(), **FACTS)


def _message(number: int) -> bytes:
    headers = {"id": f"queued-{number:06}-4316-90a6-7ab189ebf5b5", "task": FACTS["task_name"], "retries": 0}
    shown = {"argsrepr": EXTRA["args"], "kwargsrepr": EXTRA["kwargs"], "eta": None, "lang": "py"}
    properties = {"priority": 0, "body_encoding": "base64"}
    body = {"body": "W1sxXSwge31d" * 20, "content-type": "application/json", "content-encoding": "utf-8"}
    return json.dumps({**body, "headers": headers | shown, "properties": properties}).encode()


def _send_events(url: str, rate: int) -> None:
    began, sent = time.monotonic(), 0
    with writing(url, "two") as sender:
        sender.send(worker("two"), lease=3600)
        while True:
            time.sleep(max(0.0, began + sent / rate - time.monotonic()))
            name = f"new-{sent}"
            run = f"two/{name}"
            for status in ("reserved", "active", "completed"):
                sender.send(step(name, status, run, received_at=time.time(), **FACTS), lease=3600)
            sent += 3


def _ask(port: int, path: str, times: int, pid: int) -> None:
    connection = http.client.HTTPConnection(HOST, port)
    taken, cpu = [], cpu_seconds([pid])
    for _ in range(times):
        began = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        size = len(answer.read())
        taken.append((time.perf_counter() - began) * 1000)
    used = (cpu_seconds([pid]) - cpu) / times * 1000
    connection.close()
    print(
        f"{path:48} {answer.status} {size:8} bytes, ms: median {median(taken):.2f},"
        f" p99 {percentile(taken, 0.99):.2f}, max {max(taken):.2f}; CPU {used:.2f}",
        flush=True,
    )


def _streams(sidecar: Sidecar, number: int) -> None:
    """What a viewer costs to whom nothing is told; the first hundred warm up what is shared."""
    sockets = [_stream(sidecar.port) for _ in range(100)]
    before = rss_mb(sidecar.pid)
    sockets += [_stream(sidecar.port) for _ in range(number)]
    print(f"{(rss_mb(sidecar.pid) - before) * 1e6 / 1024 / number:.1f} KiB for each of {number} idle streams")
    for each in sockets:
        each.close()


def _stream(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port))
    connection.sendall(f"GET {QUEUE}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    text = b""
    while b"event: queue_status" not in text:
        more = connection.recv(1 << 16)
        assert more, f"the stream has ended: {text!r}"
        text += more
    return connection


def _flower(url: str, arguments: argparse.Namespace) -> None:
    if arguments.flower is None:
        print("Flower: left out, there is no command `flower`; --flower names a celery command that has it")
        return
    port = free_port()
    # All that there is to see, and room for what comes meanwhile.
    options = [
        f"--port={port}",
        f"--address={HOST}",
        f"--max_tasks={arguments.active + arguments.waiting + 10**5}",
    ]
    environment = child.environment(FLOWER_UNAUTHENTICATED_API="true", CELERY_BROKER_URL=url)
    flower = subprocess.Popen(
        [arguments.flower, f"--broker={url}", "flower", *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: _flower_tasks(port, 1) is not None, 60, what="Flower answers")
        app = make_app(url, url)
        _tell_celery_events(app, arguments)
        last = f"waiting-{arguments.waiting - 1}"
        eventually(lambda: _knows(port, last), 300, what="Flower has heard all")
        print(f"Flower: {rss_mb(flower.pid):.0f} MB", flush=True)
        with meanwhile(_send_celery_events, url, arguments.rate):
            _ask(port, "/api/tasks?limit=100", max(10, arguments.times // 20), flower.pid)
    finally:
        flower.terminate()
        flower.wait(10)


def _flower_tasks(port: int, limit: int) -> Any:
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        connection.request("GET", f"/api/tasks?limit={limit}")
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


def _knows(port: int, task_id: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    connection.request("GET", f"/api/task/info/{task_id}")
    status = connection.getresponse().status
    connection.close()
    return status == 200


def _tell_celery_events(app: Celery, arguments: argparse.Namespace) -> None:
    with app.connection() as connection, app.events.Dispatcher(connection, hostname="celery@one") as events:
        for kind, count in (("active", arguments.active), ("waiting", arguments.waiting)):
            for number in range(count):
                name = f"{kind}-{number}"
                events.send("task-received", uuid=name, name=FACTS["task_name"], **EXTRA, retries=0)
                if kind == "active":
                    events.send("task-started", uuid=name)


def _send_celery_events(url: str, rate: int) -> None:
    app, began, sent = make_app(url, url), time.monotonic(), 0
    with app.connection() as connection, app.events.Dispatcher(connection, hostname="celery@two") as events:
        while True:
            time.sleep(max(0.0, began + sent / rate - time.monotonic()))
            name = f"new-{os.getpid()}-{sent}"
            events.send("task-received", uuid=name, name=FACTS["task_name"], **EXTRA, retries=0)
            events.send("task-started", uuid=name)
            events.send("task-succeeded", uuid=name, result="1", runtime=0.1)
            sent += 3
