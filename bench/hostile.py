"""What honest viewers notice of attacks: how old events are, and how long an answer takes."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection

from bench.figures import cpu_seconds, median, percentile, rss_mb
from bench.ingest import Viewers, lives
from bench.meanwhile import meanwhile
from deploy.demo.ports import HOST, free_port
from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar, launch_sidecar, wait_until_alive
from tests.support.writing import worker, writing

STREAM = b"GET /api/v1/queue/events HTTP/1.1\r\nHost: localhost\r\n"
BATCH = 5
# How long an attack is felt after it has ended: what it has left is put away.
AFTERMATH_SECONDS = 1.0
# How often somebody asks for the status; at ten times a second p99 would be the slowest of all.
ASK_EVERY_SECONDS = 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rate", type=int, default=100, help="events a second")
    parser.add_argument("--viewers", type=int, default=50, help="honest viewers")
    parser.add_argument(
        "--seconds", type=float, default=2, help="how long each attack, and each rest before it"
    )
    parser.add_argument("--addresses", type=int, default=3, help="of attackers, up to 250")
    parser.add_argument("--rounds", type=int, default=12, help="how often each attack")
    parser.add_argument("--only", action="append", choices=ATTACKS, help="one attack; may be repeated")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print; exits with 1 where an attack made p99 more than twice as long."""
    with RedisServer(*acl.arguments()) as redis, ExitStack() as stack:
        sidecar = launch_sidecar(acl.as_user(redis.url), port=free_port())
        stack.callback(sidecar.close)
        wait_until_alive(sidecar)
        eventually(lambda: sidecar.get("/readyz").status_code == 200)
        stack.enter_context(meanwhile(_write, redis.url, arguments.rate))
        honest = Honest(sidecar, stack.enter_context(Viewers(sidecar.url, arguments.viewers)))
        honest.watch(arguments.seconds)
        memory = rss_mb(sidecar.pid)
        names = arguments.only or list(ATTACKS)
        slow = [name for name in names if not _attacked(honest, name, arguments)]
        lost = max(honest.viewers.counts) - min(honest.viewers.counts)
        print(f"resets {honest.viewers.resets}, events that one viewer has and another lacks: {lost}")
        print(f"memory: {memory:.0f} MB before, {rss_mb(sidecar.pid):.0f} MB after all")
    if slow:
        sys.exit(f"more than twice as long with: {', '.join(slow)}")


def _attacked(honest: Honest, name: str, arguments: argparse.Namespace) -> bool:
    """Measure in turns without and with an attack; tell whether p99 is at most twice as long.

    Of all turns together, as the goal has it, and beside that the median of the turns, each with the one
    before it: where others use the machine, a few turns of one side have what those others did.
    """
    without, attacked = Seen(), Seen()
    pairs: list[tuple[Seen, Seen]] = []
    for _ in range(arguments.rounds):
        before = honest.watch(arguments.seconds)
        with _attack(name, Target(honest.sidecar.port, arguments.addresses)) as tries:
            during = honest.watch(arguments.seconds)
            during.tries = tries.value
        during.add(honest.watch(AFTERMATH_SECONDS))
        without.add(before)
        attacked.add(during)
        pairs.append((before, during))
    events, answers = attacked.slower_than(without)
    by_turn = [during.slower_than(before) for before, during in pairs]
    print(
        f"{name} ({attacked.tries / (arguments.rounds * arguments.seconds):.0f}/s):"
        f" p99 x {events:.2f} of events, x {answers:.2f} of answers;"
        f" median of the turns x {median([ratio for ratio, _ in by_turn]):.2f}"
        f" and x {median([ratio for _, ratio in by_turn]):.2f}"
    )
    print(f"  without {without}\n  with    {attacked}")
    return max(events, answers) <= 2


def _p99(milliseconds: list[float]) -> float:
    return percentile(milliseconds, 0.99)


@dataclass
class Seen:
    """What honest viewers saw in some seconds."""

    seconds: float = 0.0
    lags: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    cpu: float = 0.0
    memory: float = 0.0
    tries: int = 0

    def add(self, other: Seen) -> None:
        """Add another turn."""
        self.lags += other.lags
        self.answers += other.answers
        self.seconds, self.cpu = self.seconds + other.seconds, self.cpu + other.cpu
        self.memory = max(self.memory, other.memory)
        self.tries += other.tries

    def slower_than(self, other: Seen) -> tuple[float, float]:
        """How many times as long p99 is, of events and of answers."""
        return _p99(self.lags) / _p99(other.lags), _p99(self.answers) / _p99(other.answers)

    def __str__(self) -> str:
        return (
            f"events ms median {median(self.lags):.1f}, p99 {_p99(self.lags):.1f};"
            f" /status ms median {median(self.answers):.1f}, p99 {_p99(self.answers):.1f};"
            f" {self.cpu / self.seconds:.2f} cores, {self.memory:.0f} MB"
        )


@dataclass
class Honest:
    """Viewers, and one who asks for the status fifty times a second."""

    sidecar: Sidecar
    viewers: Viewers

    def watch(self, seconds: float) -> Seen:
        """Look for so long."""
        self.viewers.lags = []
        connection = HTTPConnection(HOST, self.sidecar.port)
        seen, cpu = Seen(), cpu_seconds([self.sidecar.pid])
        began = asked = time.monotonic()
        while time.monotonic() < began + seconds:
            self.viewers.read(0.01)
            if time.monotonic() > asked + ASK_EVERY_SECONDS:
                asked = time.monotonic()
                connection.request("GET", "/api/v1/queue/status")
                answer = connection.getresponse()
                assert answer.status == 200
                answer.read()
                seen.answers.append((time.monotonic() - asked) * 1000)
        connection.close()
        seen.seconds, seen.lags = time.monotonic() - began, self.viewers.lags
        seen.cpu, seen.memory = cpu_seconds([self.sidecar.pid]) - cpu, rss_mb(self.sidecar.pid)
        return seen


# -- what attackers do; each makes its next try when it is asked for one


@dataclass(frozen=True)
class Target:
    """What is attacked, from addresses that are not those of honest viewers: limits are by address."""

    port: int
    addresses: int

    def connect(self, number: int, buffer: int = 0) -> socket.socket:
        """Connect from one of the addresses after the other."""
        attacker = socket.socket()
        if buffer:
            attacker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        attacker.settimeout(1)
        attacker.bind((f"127.0.0.{2 + number % self.addresses}", 0))
        attacker.connect((HOST, self.port))
        return attacker


def _slowloris(target: Target) -> Iterator[None]:
    """Up to 1,000 connections that send one byte of a head now and then."""
    head = itertools.cycle(STREAM + b"X-a: b\r\n" * 100)
    opened: list[socket.socket] = []
    for number in itertools.count():
        if len(opened) < 1000:
            opened.append(target.connect(number))
        attacker = opened[number % len(opened)]
        try:
            attacker.send(bytes([next(head)]))
        except OSError:
            opened.remove(attacker)
        yield


def _stalled(target: Target) -> Iterator[None]:
    """As many streams as the limits let the addresses have, 1,000 at most, which nobody reads."""
    opened: list[socket.socket] = []
    for number in itertools.count():
        attacker = target.connect(number, buffer=2048)
        attacker.sendall(STREAM + b"\r\n")
        opened.append(attacker)
        if len(opened) > 1000:
            opened.pop(0).close()
        yield


def _flood(target: Target) -> Iterator[None]:
    """Connections that open a stream and are gone."""
    for number in itertools.count():
        with target.connect(number) as attacker:
            attacker.sendall(STREAM + b"\r\n")
        yield


def _oversized(target: Target) -> Iterator[None]:
    """Heads, headers, queries, bodies and pipelines without an end."""
    name = b"GET /api/v1/queue/tasks?"
    kinds = itertools.cycle(
        [
            (STREAM + b"X-a: ", b"x" * 65536),
            (STREAM, b"X-a: b\r\n" * 8192),
            (name, b"task_id=a&" * 8192),
            (
                b"POST /api/v1/tickets HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"4\r\naaaa\r\n" * 8192,
            ),
            (b"", b"GET /api/v1/queue/tasks HTTP/1.1\r\nHost: a\r\n\r\n" * 2048),
        ]
    )
    for number in itertools.count():
        head, more = next(kinds)
        with target.connect(number) as attacker:
            attacker.sendall(head + more * 4)
        yield


def _questions(target: Target) -> Iterator[None]:
    """As many searches as the limits let the addresses make."""
    for number in itertools.count():
        with target.connect(number) as attacker:
            attacker.sendall(
                b"GET /api/v1/queue/tasks?q=nothing&limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            attacker.recv(1 << 16)
        yield


# What attackers do, and how often a second they try.
ATTACKS: dict[str, tuple[Callable[[Target], Iterator[None]], float]] = {
    "slowloris": (_slowloris, 500),
    "stalled readers": (_stalled, 250),
    "connection flood": (_flood, 500),
    "oversized": (_oversized, 100),
    "questions": (_questions, 500),
}


@contextmanager
def _attack(name: str, target: Target) -> Iterator[multiprocessing.sharedctypes.Synchronized[int]]:
    tries = multiprocessing.Value("i", 0)
    with meanwhile(_keep_trying, name, target, tries):
        eventually(lambda: tries.value > 0)
        yield tries


def _keep_trying(name: str, target: Target, tries: multiprocessing.sharedctypes.Synchronized[int]) -> None:
    # Else what is measured is who gets the processor.
    os.nice(10)
    attack, rate = ATTACKS[name]
    began, turns = time.monotonic(), attack(target)
    while True:
        time.sleep(max(0.0, began + tries.value / rate - time.monotonic()))
        tries.value += 1
        try:
            next(turns)
        except OSError:
            pass  # cut off, as it should be
        except StopIteration:
            turns = attack(target)


# -- what there is to see


def _write(url: str, rate: int) -> None:
    with writing(url, "one") as sender:
        sender.send(worker("one"))
        operations, began = lives("one"), time.monotonic()
        for count in itertools.count(0, BATCH):
            time.sleep(max(0.0, began + count / rate - time.monotonic()))
            sender.send(*itertools.islice(operations, BATCH))
