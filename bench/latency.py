"""From the worker's event to a curl client: how old an event is when curl prints it."""

from __future__ import annotations

import argparse
import json
import subprocess
import threading
import time

from bench.figures import median, percentile
from deploy.demo import child
from deploy.demo.ports import free_port
from deploy.demo.redis_server import RedisServer
from tests.support.celery_worker import launch_worker, wait_until_ready
from tests.support.sidecar_process import launch_sidecar, wait_until_alive
from tests.support.tasks_app import make_app

EVENTS_PER_TASK = 3  # reserved, active, completed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rate", type=float, default=50, help="events a second")
    parser.add_argument("--seconds", type=float, default=20, help="how long")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    with RedisServer() as redis:
        worker = launch_worker(redis.url)
        sidecar = launch_sidecar(redis.url, port=free_port())
        try:
            wait_until_ready(worker)
            wait_until_alive(sidecar)
            ages = _measure(redis.url, f"{sidecar.url}/api/v1/queue/events", arguments)
        finally:
            sidecar.close()
            worker.close()
    print(
        f"{len(ages)} events at {arguments.rate:g}/s, ms from the worker's event to curl: median"
        f" {median(ages):.2f}, p90 {percentile(ages, 0.9):.2f}, p99 {percentile(ages, 0.99):.2f},"
        f" max {max(ages):.2f}"
    )


def _measure(broker: str, url: str, arguments: argparse.Namespace) -> list[float]:
    app = make_app(broker, broker)
    curl = child.spawn(["curl", "-sN", url], stdout=subprocess.PIPE)
    ages: list[float] = []
    live = threading.Event()
    reader = threading.Thread(target=_read, args=(curl, live, ages), daemon=True)
    reader.start()
    live.wait(10)
    gap = EVENTS_PER_TASK / arguments.rate
    count = int(arguments.seconds / gap)
    start = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + number * gap - time.monotonic()))
        app.send_task("tests.add", (number, 1), ignore_result=True)
    deadline = time.monotonic() + 10
    while len(ages) < count * EVENTS_PER_TASK and time.monotonic() < deadline:
        time.sleep(0.05)
    child.kill_group(curl)
    reader.join()
    return ages


def _read(curl: subprocess.Popen[bytes], live: threading.Event, ages: list[float]) -> None:
    assert curl.stdout is not None
    for line in curl.stdout:
        now = time.time()
        if line.startswith(b'data: {"type":"live"'):
            live.set()
        elif line.startswith(b'data: {"type":"task_status"'):
            ages.append((now - json.loads(line[6:])["timestamp"]) * 1000)
