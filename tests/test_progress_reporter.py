"""The promises of the thread that takes progress on: not too often, the last always, and never in the way."""

from __future__ import annotations

import json
import time
from collections import deque
from itertools import pairwise
from threading import Event

import pytest

from celery_plugin import progress_reporter
from celery_plugin.progress_meta import Said, read
from celery_plugin.progress_reporter import INTERVAL_SECONDS, Complaints, Reporter
from tests.support.deadline import eventually


def said(number: int) -> Said:
    """An update that is the n-th."""
    made = read("PROGRESS", {"current": number}, time.time())
    assert made is not None
    return made


class Sent:
    """Where a reporter sends to: remembers what came and when; may be away, or slow."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, dict[str, int]]] = []
        self.away = False
        self.begun = Event()
        self.slow = Event()
        self.slow.set()
        self.failures = 0

    def __call__(self, lines: list[tuple[str, str]]) -> None:
        at = time.monotonic()
        self.begun.set()
        self.slow.wait(30)
        if self.away:
            self.failures += 1
            raise ConnectionError("Redis is away")
        self.calls.append((at, {task_id: json.loads(line)["current"] for task_id, line in lines}))

    def of(self, task_id: str) -> list[int]:
        """What came of one task."""
        return [call[task_id] for _, call in self.calls if task_id in call]


@pytest.fixture
def sent() -> Sent:
    """A place to send to."""
    return Sent()


@pytest.fixture
def reporter(sent: Sent) -> Reporter:
    """A reporter that runs."""
    made = Reporter(sent, str, Complaints())
    made.start()
    return made


def test_ten_a_second_and_the_last_one(reporter: Reporter, sent: Sent) -> None:
    """Of a flood, the first goes at once, then one each 0.1 s, and the last in any case."""
    begin = time.monotonic()
    number = 0
    while time.monotonic() - begin < 5 * INTERVAL_SECONDS:
        number += 1
        reporter.report("a", said(number))
    eventually(lambda: [number] == sent.of("a")[-1:])
    assert sorted(sent.of("a")) == sent.of("a")
    times = [at for at, _ in sent.calls]
    assert all(later - earlier >= INTERVAL_SECONDS for earlier, later in pairwise(times))
    assert 2 <= len(times) <= 2 + (times[-1] - times[0]) / INTERVAL_SECONDS


def test_a_task_does_not_wait_for_another_one(reporter: Reporter, sent: Sent) -> None:
    """The limit is each task's own: what another one says goes before the first one's next."""
    reporter.report("a", said(1))
    eventually(lambda: sent.of("a"))
    reporter.report("a", said(2))
    for number in range(20):
        reporter.report(f"b{number}", said(number))
    eventually(lambda: [1, 2] == sent.of("a"))
    assert all([number] == sent.of(f"b{number}") for number in range(20))
    second = next(index for index, (_, call) in enumerate(sent.calls) if call.get("a") == 2)
    assert any("b0" in call for _, call in sent.calls[: second + 1])


def test_what_could_not_be_sent_is_sent_later_and_then_only_the_newest(
    reporter: Reporter, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    """While Redis is away the newest of each task is kept; one line says so."""
    sent.away = True
    reporter.report("a", said(1))
    reporter.report("b", said(1))
    eventually(lambda: sent.failures >= 3)
    reporter.report("a", said(2))
    sent.away = False
    eventually(lambda: [2] == sent.of("a") and [1] == sent.of("b"))
    assert ["celery_plugin: progress does not reach Redis, tasks go on without it: Redis is away"] == [
        record.getMessage() for record in caplog.records
    ]


def test_nothing_is_sent_of_a_task_that_has_ended(reporter: Reporter, sent: Sent) -> None:
    """Not what waits for its time, and not a second time what failed meanwhile."""
    reporter.report("a", said(1))
    eventually(lambda: sent.of("a"))
    reporter.report("a", said(2))
    reporter.forget("a")
    sent.away = True
    sent.begun.clear()
    sent.slow.clear()
    reporter.report("b", said(1))
    assert sent.begun.wait(30)
    reporter.forget("b")
    sent.slow.set()
    eventually(lambda: sent.failures)
    sent.away = False
    reporter.report("c", said(1))
    eventually(lambda: sent.of("c"))
    assert ([1], []) == (sent.of("a"), sent.of("b"))


def test_memory_is_bounded(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more tasks than that nothing is kept while nothing can be sent."""
    monkeypatch.setattr(progress_reporter, "TASKS_MAX", 3)
    sent.slow.clear()
    reporter = Reporter(sent, str, Complaints())
    for number in range(10):
        reporter.report(f"a{number}", said(1))
    reporter.report("a0", said(2))
    reporter.start()
    sent.slow.set()
    eventually(lambda: sent.calls)
    assert {"a0": 2, "a1": 1, "a2": 1} == sent.calls[0][1]


def test_one_that_is_not_understood_holds_up_no_other(sent: Sent, caplog: pytest.LogCaptureFixture) -> None:
    """A fault in telling it costs that one alone."""

    def redact(text: str) -> str:
        raise RecursionError(f"too deep: {len(text)}")

    unknown = read("PROGRESS", {"a": "b"}, 1.0)
    assert unknown is not None
    reporter = Reporter(sent, redact, Complaints())
    reporter.report("bad", unknown)
    reporter.report("good", said(1))
    reporter.start()
    eventually(lambda: sent.of("good"))
    assert [] == sent.of("bad")
    assert ["celery_plugin: a task's progress is given up: too deep: 10"] == [
        record.getMessage() for record in caplog.records
    ]


def test_nobody_is_missed_between_two_sleeps(reporter: Reporter, sent: Sent) -> None:
    """However a report falls between the thread's steps, it is sent."""
    left = deque(f"t{number}" for number in range(3000))
    while left:
        task_id = left.popleft()
        reporter.report(task_id, said(1))
        if len(left) % 50 == 0:
            eventually(lambda task_id=task_id: sent.of(task_id), seconds=10)
    assert 3000 == sum(len(call) for _, call in sent.calls)
