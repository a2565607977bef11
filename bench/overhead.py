"""What the plugin costs a worker: no-op tasks, bare against -E, the plugin, and both, in turn."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

from redis import Redis

from bench.figures import cpu_seconds, median, rss_mb
from deploy.demo.redis_server import RedisServer
from tests.support.celery_worker import launch_worker
from tests.support.processes import descendants
from tests.support.tasks_app import make_app

QUEUE = "celery"
# Start and end of a run are not what is measured.
FIRST, LAST = 0.15, 0.95

VARIANTS = {
    "bare": {"plugin": False, "events": False},
    "bare again": {"plugin": False, "events": False},
    "-E": {"plugin": False, "events": True},
    "plugin": {"plugin": True, "events": False},
    "plugin -E": {"plugin": True, "events": True},
    "plugin; Redis stopped": {"plugin": True, "events": False},
}


@dataclass(frozen=True)
class Run:
    """One run: tasks a second, CPU of worker, children and both Redis servers in µs a task, memory in MB."""

    rate: float
    cpu_us: float
    rss_mb: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--tasks", type=int, default=6000, help="tasks a run")
    parser.add_argument("--rounds", type=int, default=9, help="how often each variant runs")
    parser.add_argument(
        "--only",
        type=_variants,
        default=list(VARIANTS),
        help="variants with commas between, the first is the base",
    )


def _variants(names: str) -> list[str]:
    wanted = names.split(",")
    if unknown := [name for name in wanted if name not in VARIANTS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(VARIANTS)}")
    return wanted


def run(arguments: argparse.Namespace) -> None:
    """Measure in turn, A B C A B C …, and print ratios to bare, round by round."""
    runs: dict[str, list[Run]] = {name: [] for name in arguments.only}
    for _ in range(arguments.rounds):
        for name in arguments.only:
            runs[name].append(_run(name, arguments.tasks))
    base = runs[arguments.only[0]]
    print(f"{'':24}{'tasks/s':>9}{'ratio':>8}{'CPU µs':>9}{'ratio':>8}{'MB':>7}")
    for name, each in runs.items():
        rate = median([one.rate / other.rate for one, other in zip(each, base, strict=True)])
        cpu = median([one.cpu_us / other.cpu_us for one, other in zip(each, base, strict=True)])
        memory = median([one.rss_mb for one in each])
        print(
            f"{name:24}{median([one.rate for one in each]):9.0f}{rate:8.3f}"
            f"{median([one.cpu_us for one in each]):9.0f}{cpu:8.3f}{memory:7.1f}"
        )


def _run(name: str, tasks: int) -> Run:
    with RedisServer() as broker, RedisServer() as state:
        app = make_app(broker.url, broker.url)
        with app.producer_pool.acquire(block=True) as producer:
            for number in range(tasks):
                app.send_task("tests.add", (number, 1), producer=producer, ignore_result=True)
        if name.endswith("Redis stopped"):
            state.pause()
        # At this log level the worker writes no line a task, which would cost more than what is measured.
        options = {**VARIANTS[name], "env": {"SIDECAR_REDIS_URL": state.url}}
        worker = launch_worker(broker.url, arguments=("--loglevel=WARNING",), **options)
        try:
            return _drain(Redis.from_url(broker.url), tasks, worker.pid, [broker.pid, state.pid])
        finally:
            state.resume()
            worker.close()


def _drain(broker: Redis, tasks: int, worker: int, servers: list[int]) -> Run:
    _wait(broker, tasks * (1 - FIRST))
    pids = [worker, *descendants(worker), *servers]
    began, cpu, left = time.monotonic(), cpu_seconds(pids), broker.llen(QUEUE)
    _wait(broker, tasks * (1 - LAST))
    done = left - broker.llen(QUEUE)
    seconds, used = time.monotonic() - began, cpu_seconds(pids) - cpu
    return Run(done / seconds, used / done * 1e6, rss_mb(worker))


def _wait(broker: Redis, left: float) -> None:
    deadline = time.monotonic() + 120
    while broker.llen(QUEUE) > left:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{broker.llen(QUEUE)} tasks are still there")
        time.sleep(0.01)
