"""From the last of 20 tasks that are sent, with no worker ever, to the figure in a stream."""

from __future__ import annotations

import argparse
import time

from redis import Redis

from bench.figures import median, percentile
from deploy.demo.ports import free_port
from deploy.demo.redis_server import RedisServer
from tests.support.deadline import eventually
from tests.support.sidecar_process import launch_sidecar, wait_until_alive
from tests.support.sse import Event
from tests.support.tasks_app import make_app

TASKS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rounds", type=int, default=50, help="how often 20 tasks are sent")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    with RedisServer() as redis:
        sidecar = launch_sidecar(redis.url, port=free_port())
        try:
            wait_until_alive(sidecar)
            eventually(lambda: sidecar.get("/readyz").status_code == 200)
            app = make_app(redis.url, redis.url)
            with sidecar.events() as stream, Redis.from_url(redis.url) as broker:
                stream.until_type("live")
                taken = []
                for _ in range(arguments.rounds):
                    for number in range(TASKS):
                        app.send_task("tests.add", (number, 1), ignore_result=True)
                    sent = time.monotonic()
                    stream.until(lambda event: _shows(event, TASKS))
                    taken.append((time.monotonic() - sent) * 1000)
                    broker.delete("celery")
                    stream.until(lambda event: _shows(event, 0))
        finally:
            sidecar.close()
    print(
        f"{len(taken)} times {TASKS} tasks, ms from the last send to the stream's figure:"
        f" median {median(taken):.1f}, p90 {percentile(taken, 0.9):.1f}, max {max(taken):.1f}"
    )


def _shows(event: Event, tasks: int) -> bool:
    return event.event == "queue_status" and event.data["pending_tasks"] == tasks
