"""What the plugin costs a worker: no-op tasks, bare against -E, the plugin, and both, in turn.

A worker of each kind is there all the time, and each works for a second while the others are stopped: where
others use the machine, too, two runs of half a minute differ by more than what is measured. And some workers
are faster than others of their kind for as long as they live, by 2 to 5 %: so all are started several times.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from redis import Redis

from bench.figures import cpu_seconds, median, rss_mb
from deploy.demo.redis_server import RedisServer
from tests.support.celery_worker import Worker, launch_worker
from tests.support.processes import descendants
from tests.support.tasks_app import make_app

QUEUE = "celery"
# What a worker does first and what it needs to go on after it was stopped are not what is measured.
FIRST_TASKS = 500
SETTLE_SECONDS = 0.2
# No worker of two processes does more here, so none has nothing to do.
TASKS_PER_SECOND_MAX = 2500

VARIANTS = {
    "bare": {"plugin": False, "events": False},
    "bare again": {"plugin": False, "events": False},
    "-E": {"plugin": False, "events": True},
    "plugin": {"plugin": True, "events": False},
    "plugin -E": {"plugin": True, "events": True},
    "plugin; Redis stopped": {"plugin": True, "events": False},
}


@dataclass(frozen=True)
class Turn:
    """One turn: tasks a second, CPU of worker, children and both Redis servers in µs a task."""

    rate: float
    cpu_us: float


@dataclass(frozen=True)
class Start:
    """What the workers did that were started at a time: the turns of each kind, and its memory in MB."""

    turns: dict[str, list[Turn]]
    memory: dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--starts", type=int, default=6, help="how often the workers are started anew")
    parser.add_argument("--rounds", type=int, default=10, help="how many turns each of them has")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a turn is")
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
    """Measure in turns, in an order of its own each round, and print ratios to the base, round by round.

    Behind a ratio stands how far it went in the starts: from the lowest median of one to the highest.
    """
    chance = random.Random(1)  # who comes behind whom must not favour anybody
    starts = [_start(arguments, chance) for _ in range(arguments.starts)]
    print(f"{'':24}{'tasks/s':>8}{'ratio':>23}{'CPU µs':>9}{'ratio':>23}{'MB':>7}")
    for name in arguments.only:
        mine = [(start.turns[name], start.turns[arguments.only[0]]) for start in starts]
        rates = [[one.rate / other.rate for one, other in zip(*each, strict=True)] for each in mine]
        costs = [[one.cpu_us / other.cpu_us for one, other in zip(*each, strict=True)] for each in mine]
        turns = [turn for each, _ in mine for turn in each]
        print(
            f"{name:24}{median([turn.rate for turn in turns]):8.0f}{_spread(rates):>23}"
            f"{median([turn.cpu_us for turn in turns]):9.0f}{_spread(costs):>23}"
            f"{median([start.memory[name] for start in starts]):7.1f}"
        )


def _spread(ratios: list[list[float]]) -> str:
    each = [median(of_start) for of_start in ratios]
    whole = median([ratio for of_start in ratios for ratio in of_start])
    return f"{whole:.3f} ({min(each):.3f}-{max(each):.3f})"


def _start(arguments: argparse.Namespace, chance: random.Random) -> Start:
    turns: dict[str, list[Turn]] = {name: [] for name in arguments.only}
    with ExitStack() as stack:
        subjects = {name: stack.enter_context(_subject(name)) for name in arguments.only}
        for subject in subjects.values():
            subject.prepare()
        for _ in range(arguments.rounds):
            for name in chance.sample(arguments.only, len(arguments.only)):
                turns[name].append(subjects[name].turn(arguments.seconds))
        memory = {name: rss_mb(subject.worker.pid) for name, subject in subjects.items()}
    return Start(turns, memory)


@dataclass
class _Subject:
    """A worker with its two Redis servers, which works only while it has its turn."""

    broker: RedisServer
    state: RedisServer
    worker: Worker
    queue: Redis

    def prepare(self) -> None:
        """Let it do its first tasks, and stop it."""
        self._send(2 * FIRST_TASKS)
        _wait(self.queue, FIRST_TASKS)
        self._signal(signal.SIGSTOP)

    def turn(self, seconds: float) -> Turn:
        """Let it work for so long."""
        self._send(max(0, int(TASKS_PER_SECOND_MAX * (seconds + SETTLE_SECONDS)) - self._left()))
        pids = [self.worker.pid, *descendants(self.worker.pid), self.broker.pid, self.state.pid]
        self._signal(signal.SIGCONT)
        try:
            time.sleep(SETTLE_SECONDS)
            began, cpu, left = time.monotonic(), cpu_seconds(pids), self._left()
            time.sleep(seconds)
            done, took, used = left - self._left(), time.monotonic() - began, cpu_seconds(pids) - cpu
        finally:
            self._signal(signal.SIGSTOP)
        return Turn(done / took, used / done * 1e6)

    def _left(self) -> int:
        return int(self.queue.llen(QUEUE))

    def _send(self, tasks: int) -> None:
        app = make_app(self.broker.url, self.broker.url)
        with app.producer_pool.acquire(block=True) as producer:
            for number in range(tasks):
                app.send_task("tests.add", (number, 1), producer=producer, ignore_result=True)

    def _signal(self, number: int) -> None:
        os.killpg(self.worker.pid, number)


@contextmanager
def _subject(name: str) -> Iterator[_Subject]:
    with RedisServer() as broker, RedisServer() as state, Redis.from_url(broker.url) as queue:
        if name.endswith("Redis stopped"):
            state.pause()
        # At this log level the worker writes no line a task, which would cost more than what is measured.
        options = {**VARIANTS[name], "env": {"SIDECAR_REDIS_URL": state.url}}
        worker = launch_worker(broker.url, arguments=("--loglevel=WARNING",), **options)
        try:
            yield _Subject(broker, state, worker, queue)
        finally:
            state.resume()
            os.killpg(worker.pid, signal.SIGCONT)
            worker.close()


def _wait(broker: Redis, left: float) -> None:
    deadline = time.monotonic() + 120
    while broker.llen(QUEUE) > left:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{broker.llen(QUEUE)} tasks are still there")
        time.sleep(0.01)
