"""What the sidecar takes in: events at a high rate, without viewers and with many of them."""

from __future__ import annotations

import argparse
import multiprocessing
import re
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from bench.figures import cpu_seconds, median, percentile, rss_mb
from celery_plugin.operations import Operation
from deploy.demo.ports import free_port
from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.batches import step
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar, launch_sidecar, wait_until_alive
from tests.support.writing import worker, writing

STATUSES = ("reserved", "active", "completed")
# Like a plugin under load: what has come within 20 ms is one batch.
BATCH_SECONDS = 0.02
EVENT = b"\nevent: task_status\n"
TIMESTAMP = re.compile(rb'"timestamp":([0-9.]+)[,}]')
FACTS: dict[str, Any] = {
    "task_name": "app.tasks.generate",
    "queue": "celery",
    "attempt": 1,
    "extra": {"args": "('a text', 5)", "kwargs": "{'size': 3}"},
}
# How long the last events may take.
PATIENCE_SECONDS = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rate", type=int, default=5000, help="events a second")
    parser.add_argument("--seconds", type=float, default=60, help="how long with viewers")
    parser.add_argument("--alone", type=float, default=15, help="how long without any")
    parser.add_argument("--viewers", type=int, default=100, help="how many viewers")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    with RedisServer(*acl.arguments()) as redis:
        sidecar = launch_sidecar(acl.as_user(redis.url), port=free_port())
        try:
            wait_until_alive(sidecar)
            eventually(lambda: sidecar.get("/readyz").status_code == 200)
            _alone(redis.url, sidecar, arguments)
            _with_viewers(redis.url, sidecar, arguments)
        finally:
            sidecar.close()


def _alone(url: str, sidecar: Sidecar, arguments: argparse.Namespace) -> None:
    cpu, began = cpu_seconds([sidecar.pid]), time.monotonic()
    events = _write(url, arguments.rate, arguments.alone, "alone").wait()
    seconds, used = time.monotonic() - began, cpu_seconds([sidecar.pid]) - cpu
    print(f"no viewer, {events / seconds:.0f} events/s: {used / events * 1e6:.1f} µs of CPU an event")


def _with_viewers(url: str, sidecar: Sidecar, arguments: argparse.Namespace) -> None:
    with Viewers(sidecar.url, arguments.viewers) as viewers:
        cpu, began = cpu_seconds([sidecar.pid]), time.monotonic()
        writer = _write(url, arguments.rate, arguments.seconds, "seen")
        while writer.runs:
            viewers.read(0.1)
        events, seconds = writer.wait(), time.monotonic() - began
        deadline = time.monotonic() + PATIENCE_SECONDS
        while min(viewers.counts) < events and time.monotonic() < deadline:
            viewers.read(0.1)
        used = cpu_seconds([sidecar.pid]) - cpu
        lost = sum(events - count for count in viewers.counts)
    print(
        f"{arguments.viewers} viewers, {events / seconds:.0f} events/s for {seconds:.0f} s:"
        f" {lost} of {events * arguments.viewers} lost, {viewers.resets} resets;"
        f" lag ms median {median(viewers.lags):.0f}, p99 {percentile(viewers.lags, 0.99):.0f},"
        f" max {max(viewers.lags):.0f}; {used / events * 1e6:.0f} µs of CPU an event,"
        f" {rss_mb(sidecar.pid):.0f} MB"
    )


@dataclass
class _Writer:
    """A process that plays the workers."""

    process: multiprocessing.Process
    written: multiprocessing.Queue[int]

    @property
    def runs(self) -> bool:
        return self.process.is_alive()

    def wait(self) -> int:
        """Return how many events it wrote."""
        events = self.written.get(timeout=600)
        self.process.join()
        return events


def _write(url: str, rate: int, seconds: float, name: str) -> _Writer:
    written: multiprocessing.Queue[int] = multiprocessing.Queue()
    process = multiprocessing.Process(target=_write_all, args=(url, rate, seconds, name, written))
    process.start()
    return _Writer(process, written)


def _write_all(url: str, rate: int, seconds: float, name: str, written: multiprocessing.Queue[int]) -> None:
    batch, count = int(rate * BATCH_SECONDS), 0
    with writing(url, name) as sender:
        sender.send(worker(name))
        operations, began = lives(name), time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(max(0.0, began + count / rate - time.monotonic()))
            sender.send(*(next(operations) for _ in range(batch)))
            count += batch
    written.put(count)


def lives(name: str) -> Iterator[Operation]:
    """Tasks of a worker that come, run and end, one after the other; each step has the time of its making."""
    number = 0
    while True:
        number += 1
        for status in STATUSES:
            task_id = f"{name}-{number:012}-4316-90a6-7ab189ebf5b5"
            yield step(task_id, status, f"{name}/{number}", timestamp=time.time(), **FACTS)


@dataclass
class _Viewer:
    """One connection: how many events it got, and the end of what it read, where an event may begin."""

    socket: socket.socket
    count: int = 0
    rest: bytes = b""
    live: bool = False


@dataclass
class Viewers:
    """Streams that are read by counting, so that the reader is not what is measured."""

    url: str
    number: int
    lags: list[float] = field(default_factory=list)
    resets: int = 0
    _viewers: list[_Viewer] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def __enter__(self) -> Viewers:
        parts = urlsplit(self.url)
        for _ in range(self.number):
            viewer = _Viewer(socket.create_connection((parts.hostname, parts.port)))
            viewer.socket.sendall(b"GET /api/v1/queue/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self._selector.register(viewer.socket, selectors.EVENT_READ, viewer)
            self._viewers.append(viewer)
        eventually(lambda: self.read(0.1) or all(viewer.live for viewer in self._viewers))
        return self

    def __exit__(self, *_: object) -> None:
        for viewer in self._viewers:
            viewer.socket.close()
        self._selector.close()

    @property
    def counts(self) -> list[int]:
        """How many events each viewer got."""
        return [viewer.count for viewer in self._viewers]

    def read(self, seconds: float) -> None:
        """Read what there is, and wait for it so long at most."""
        for key, _ in self._selector.select(seconds):
            self._take(key.data, key.data.socket.recv(1 << 20))

    def _take(self, viewer: _Viewer, chunk: bytes) -> None:
        text = viewer.rest + chunk
        viewer.live = viewer.live or b"event: live" in text
        viewer.count += text.count(EVENT)
        self.resets += text.count(b"\nevent: reset\n")
        # What is counted must not be counted again: no name of an event is as long as this.
        viewer.rest = text[-len(EVENT) + 1 :]
        if written := TIMESTAMP.findall(chunk[-2000:]):
            self.lags.append((time.time() - float(written[-1])) * 1000)
