"""Metrics: what tasks did is the same wherever one asks; the sidecar's own are those of all its processes."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from celery_plugin.counter_names import FAILED, LOST, RECEIVED, RUNTIME, RUNTIME_BUCKETS
from deploy.demo.redis_server import RedisServer
from sidecar.tally import CUT, EVENTS, LAG, STREAMS, Tally
from sidecar.task_metrics import COUNTED, GAUGES, HISTOGRAMS, Moment, families
from tests.support.batches import Sender
from tests.support.deadline import eventually
from tests.support.guarded import bearer, serving
from tests.support.processes import descendants
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import Gate
from tests.support.tokens import SECRET, token
from tests.support.writing import life, task, worker

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Series:
    """Each series by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Scrape:
    """What one sidecar says."""

    def __init__(self, sidecar: Sidecar) -> None:
        answer = sidecar.get("/metrics")
        assert 200 == answer.status_code, answer.text
        self.series = parsed(answer.text)

    def value(self, name: str, /, **labels: str) -> float | None:
        """The value of one series."""
        return self.series.get((name, frozenset(labels.items())))

    def names(self, start: str) -> set[str]:
        """The names of the series that begin so."""
        return {name for name, _ in self.series if name.startswith(start)}

    def celery(self) -> Series:
        """What tasks did and what workers have, without what ages."""
        left_out = ("celery_oldest_waiting_seconds",)
        return {
            key: value
            for key, value in self.series.items()
            if key[0].startswith("celery_") and key[0] not in left_out
        }


def scraped(sidecar: Sidecar, name: str, expected: float, /, **labels: str) -> Scrape:
    """Scrape until a series has a value: what is shown may be a second old."""
    eventually(lambda: expected == Scrape(sidecar).value(name, **labels), what=f"{name} {labels} {expected}")
    return Scrape(sidecar)


def test_beside_two_workers_of_a_host(
    start_sidecar: StartSidecar, start_worker: StartWorker, celery_app: Celery, gate: Gate
) -> None:
    """Known tasks give known totals, added up over both, the same on each replica and after restarts."""
    one, other = start_sidecar(), start_sidecar()
    # Neither may take so many that the other has less than it can run.
    few = ("--prefetch-multiplier=1",)
    workers = [start_worker(hostname=f"{name}@here", arguments=few) for name in ("one", "two")]
    for _ in range(5):
        celery_app.send_task("tests.add", (1, 2))
    for name in ("fail", "fail", "retry_once"):
        celery_app.send_task(f"tests.{name}")
    labels = {"name": "tests.add", "hostname": "here", "queue_name": "celery"}
    scrape = scraped(one, "celery_task_succeeded_total", 5, **labels)
    assert (5, 5) == (scrape.value(RECEIVED, **labels), scrape.value("celery_task_sent_total", **labels))
    assert 5 == scrape.value(f"{RUNTIME}_count", **labels)
    assert 5 == scrape.value(f"{RUNTIME}_bucket", le="+Inf", **labels)
    bounds = {dict(key)["le"] for name, key in scrape.series if name == f"{RUNTIME}_bucket"}
    assert {*map(str, RUNTIME_BUCKETS), "+Inf"} == bounds
    failed = {"name": "tests.fail", "hostname": "here", "exception": "ValueError", "queue_name": "celery"}
    scraped(one, FAILED, 2, **failed)
    retried = {"name": "tests.retry_once", "hostname": "here", "queue_name": "celery"}
    scraped(one, "celery_task_retried_total", 1, **retried)
    scraped(one, "celery_task_succeeded_total", 1, **retried)
    for _ in range(6):
        celery_app.send_task("tests.wait_for_file", (str(gate),))
    scraped(one, "celery_worker_tasks_active", 4, hostname="here")
    celery_app.send_task("tests.add", (1, 2), queue="nobody_takes_from")
    scrape = scraped(one, "celery_queue_length", 1, queue_name="nobody_takes_from")
    assert 1 == scrape.value("celery_worker_up", hostname="here")
    assert 2 == scrape.value("celery_active_worker_count", queue_name="celery")
    assert 4 == scrape.value("celery_active_process_count", queue_name="celery")
    assert 0 == scrape.value("celery_active_worker_count", queue_name="nobody_takes_from")
    assert (4, 2) == tuple(scrape.value("celery_tasks", status=each) for each in ("active", "reserved"))
    assert set() == scrape.names("celery_task_queue_wait_time")
    assert 0 < (scrape.value("sidecar_event_lag_seconds_count") or 0)
    eventually(lambda: Scrape(one).celery() == Scrape(other).celery())
    gate.open()
    scraped(one, "celery_tasks", 0, status="active")
    for each in workers:
        each.stop()
    scraped(one, "celery_worker_up", 0, hostname="here")
    before = Scrape(one).celery()
    one.stop()
    assert before == scraped(start_sidecar(), "celery_worker_up", 0, hostname="here").celery()


def test_one_of_two_workers_is_killed(sender: Sender, sidecar: Sidecar) -> None:
    """A host is up as long as a worker of it is; where none is, it is down."""
    sender.send(worker(worker="a@here"), *life("x"), lease=600.0)
    scraped(sidecar, "celery_worker_up", 1, hostname="here")
    sender.send(lease=0.2)
    scraped(sidecar, "celery_worker_up", 0, hostname="here")


def test_while_redis_is_away(sidecar: Sidecar, sender: Sender, redis_server: RedisServer) -> None:
    """Nothing is told of tasks then, rather than how it was, and all again when Redis is back."""
    sender.send(task("a", "active"))
    scraped(sidecar, "celery_tasks", 1, status="active")
    redis_server.stop()
    scrape = scraped(sidecar, "sidecar_redis_up", 0)
    assert set() == scrape.names("celery_")
    redis_server.start()
    scraped(sidecar, "sidecar_redis_up", 1)
    eventually(lambda: Scrape(sidecar).names("celery_"))


def test_of_the_daemon(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Streams, events, resets and refusals are counted; nothing had to be corrected."""
    sidecar = start_sidecar(env={"SIDECAR_MAX_STREAMS": "2"})
    with sidecar.events() as one, sidecar.events(last_event_id=f"{'0' * 15}1-5") as two:
        one.until_type("live")
        two.until_type("live")
        with sidecar.events() as third:
            third.until_type("overloaded")
        sender.send(*life("a"))
        one.until_task("a", "completed")
        two.until_task("a", "completed")
        scrape = scraped(sidecar, "sidecar_streams", 2)
    expected = {
        "sidecar_streams_opened_total": 2,
        "sidecar_events_sent_total": 6,
        "sidecar_redis_up": 1,
        "sidecar_processes": 1,
        "sidecar_unreadable_total": 0,
        "sidecar_events_behind": 0,
    }
    assert expected == {name: scrape.value(name) for name in expected}
    assert 1 == scrape.value("sidecar_streams_refused_total", reason="streams")
    assert 1 == scrape.value("sidecar_resets_total", reason="epoch")
    assert [0, 0] == [scrape.value("sidecar_drift_corrections_total", of=each) for each in ("log", "queues")]
    scraped(sidecar, "sidecar_streams", 0)


def test_several_processes(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Whichever of them answers says the same, and no counter goes back when one dies."""
    sidecar = start_sidecar(env={"SIDECAR_WORKERS": "2"})
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    with ExitStack() as streams:
        opened = [streams.enter_context(sidecar.events()) for _ in range(12)]
        for stream in opened:
            stream.until_type("live")
        # Each of these is a connection of its own, which the kernel gives to either process.
        for _ in range(10):
            scraped(sidecar, "sidecar_streams", 12)
            assert 2 == Scrape(sidecar).value("sidecar_processes")
        os.kill(sorted(descendants(sidecar.pid))[0], signal.SIGKILL)
        eventually(lambda: 12 > _asked(sidecar, "sidecar_streams"))
        eventually(lambda: 2 == _asked(sidecar, "sidecar_processes"))
        assert 12 <= (Scrape(sidecar).value("sidecar_streams_opened_total") or 0)


def _asked(sidecar: Sidecar, name: str) -> float:
    try:
        value = Scrape(sidecar).value(name)
    except httpx.TransportError:  # it was the process that has just died
        value = None
    return math.nan if value is None else value


# -- who may read it


@pytest.mark.parametrize(
    ("expected", "setting", "credential"),
    [
        (200, "token", lambda: token("*")),
        (403, "token", lambda: token({"tasks": ["a"]})),
        (401, "token", None),
        (200, "open", None),
        (404, "off", None),
        (404, "off", lambda: token("*")),
    ],
)
def test_who_may_read_it(expected: int, setting: str, credential: Callable[[], str] | None) -> None:
    """Figures of all tasks are for who may read everything, unless the settings open them to anyone."""
    with serving(auth_secrets=SECRET, metrics=setting) as client:
        headers = bearer(credential()) if credential else {}
        assert expected == client.get("/metrics", headers=headers).status_code


def test_openmetrics(sidecar: Sidecar) -> None:
    """Prometheus asks for OpenMetrics, and gets it."""
    answer = sidecar.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


# -- what is shown of counters


def shown(*counters: tuple[Any, Any]) -> Series:
    """What is made of counters, without anything else."""
    fields = {json.dumps(name).encode(): str(value).encode() for name, value in counters}
    figures: Any = {"queues": [], "oldest_waiting_s": None}
    names = ("pending", "reserved", "scheduled", "active", "lost")
    figures |= dict.fromkeys(f"{name}_tasks" for name in names)
    made = families(fields, Moment(figures, [], {}))
    samples = [sample for each in made for sample in each.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def test_what_is_no_counter_is_passed_over() -> None:
    """Whatever else stands in the hash makes no series, and takes none away."""
    labels = ["tests.add", "here", "celery"]
    odd: list[Any] = [["failed", 29_000_000], [], [RECEIVED], [RECEIVED, 1, 2, 3], ["x", *labels], {"a": 1}]
    series = shown(([RECEIVED, *labels], 3), ([LOST, *labels], "x"), *((each, 1) for each in odd))
    assert {RECEIVED, "celery_task_sent_total"} == {name for name, _ in series}


def test_a_histogram_is_cumulated() -> None:
    """The plugin's buckets stand each for themselves; what is missing is 0."""
    labels = ["tests.add", "here", "celery"]
    series = shown(
        ([f"{RUNTIME}_bucket", *labels, "0.005"], 2),
        ([f"{RUNTIME}_bucket", *labels, "10"], 1),
        ([f"{RUNTIME}_bucket", *labels, "+Inf"], 1),
        ([f"{RUNTIME}_sum", *labels], 31.5),
    )
    buckets = {dict(key)["le"]: value for (name, key), value in series.items() if name == f"{RUNTIME}_bucket"}
    assert (2, 2, 3, 4) == tuple(buckets[bound] for bound in ("0.005", "7.5", "10.0", "+Inf"))
    others = {
        name.rpartition("_")[2]: value for (name, key), value in series.items() if "le" not in dict(key)
    }
    assert {"sum": 31.5, "count": 4} == others


def test_names_do_not_meet() -> None:
    """No family has two kinds."""
    names = [*COUNTED, *HISTOGRAMS, *GAUGES]
    assert len(names) == len(set(names))


# -- the numbers that processes share


def test_a_row_goes_on() -> None:
    """What a process counted stays when another takes its place; what only held for it does not."""
    tally = Tally(2)
    tally.take_row(1)
    tally.add(EVENTS, 5)
    tally.add(CUT, value="stalled")
    tally.observe(LAG, 0.02)
    tally.put(STREAMS, 3)
    assert ([5], [1, 0], [3]) == (tally.folded(EVENTS), tally.folded(CUT), tally.folded(STREAMS))
    tally.take_row(1)
    assert ([5], [1, 0], [0]) == (tally.folded(EVENTS), tally.folded(CUT), tally.folded(STREAMS))
    assert (1, 0.02) == (sum(tally.folded(LAG)[:-1]), tally.folded(LAG)[-1])
    tally.take_row(0)
    tally.add(EVENTS, 4)
    tally.add(CUT, value="stalled")
    assert ([5], [2, 0]) == (tally.folded(EVENTS), tally.folded(CUT))
