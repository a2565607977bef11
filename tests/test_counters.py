"""The promise that every step counts once, under the names and labels that dashboards use."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from redis import Redis

from celery_plugin import ends
from celery_plugin.capture import Capture
from celery_plugin.counter_names import OTHER
from celery_plugin.counting import EXCEPTIONS_MAX, NAMES_MAX, Counts
from celery_plugin.events import RECEIVED, Tracker
from celery_plugin.operations import Other
from celery_plugin.runs import RunTable, read_run
from tests.support.batches import Sender, Stored, worker_step
from tests.support.deadline import eventually
from tests.support.proxy import Proxy
from tests.support.site import Site, open_site

HOST = "box.example"
TOTAL = "celery_task_{}_total".format


@pytest.fixture(scope="module")
def proxy_and_site() -> Iterator[tuple[Proxy, Site]]:
    """Two workers of one host, whose way to Redis loses answers."""
    with open_site() as site, Proxy(site.broker.port) as proxy:
        for name in ("a", "b"):
            url = {"SIDECAR_REDIS_URL": proxy.url}
            site.start(hostname=f"{name}@{HOST}", env=url, arguments=("-Q", f"celery,{name}"))
        yield proxy, site


# How often each task is sent to each worker, and what then counts.
TIMES = 4
STEPS = {
    "add": {"received": 1, "started": 1, "succeeded": 1},
    "fail": {"received": 1, "started": 1, "failed": 1},
    "retry_once": {"received": 2, "started": 2, "retried": 1, "succeeded": 1},
    "reject": {"received": 1, "started": 1, "rejected": 1},
    "fail_unacknowledged": {"received": 1, "started": 1, "failed": 1},
    "ignore": {"received": 1, "started": 1, "succeeded": 1},
    "sleep_for": {"revoked": 1},
}
ARGUMENTS: dict[str, tuple[Any, ...]] = {"add": (1, 2), "sleep_for": (1,)}
OPTIONS = {"sleep_for": {"expires": datetime.now(timezone.utc) - timedelta(seconds=1)}}


def test_known_tasks_on_two_workers(proxy_and_site: tuple[Proxy, Site]) -> None:
    """The sums of both are exactly right, though the answers to some batches are lost."""
    proxy, site = proxy_and_site
    before = Counter(_totals(site))
    ids = []
    for round_ in range(TIMES):
        for queue in ("a", "b"):
            for name in STEPS:
                proxy.lose_answer(after=round_)
                options = OPTIONS.get(name, {})
                ids.append(site.call(name, *ARGUMENTS.get(name, ()), queue=queue, **options))
    for task_id in ids:
        site.ended(task_id)
    expected: Counter[tuple[str, ...]] = Counter()
    for name, steps in STEPS.items():
        for queue in ("a", "b"):
            for step, number in steps.items():
                exception = ("ValueError",) if step == "failed" else ()
                labels = (TOTAL(step), f"tests.{name}", HOST, *exception, queue)
                expected[labels] += number * TIMES
    eventually(lambda: expected == Counter(_totals(site)) - before, what=f"{expected}")
    _histograms_agree(site, expected)
    failures = [(name, number) for name, number in site.shown.counters.items() if name[0] == "failed"]
    assert 2 * 2 * TIMES == sum(number for _, number in failures)
    assert all(isinstance(name[1], int) for name, _ in failures)


def _totals(site: Site) -> dict[tuple[Any, ...], int]:
    return {
        name: int(number) for name, number in site.shown.counters.items() if str(name[0]).endswith("_total")
    }


def _histograms_agree(site: Site, totals: Counter[tuple[str, ...]]) -> None:
    """Each success is in one bucket of runtime, each start in one of received-to-started; so are the sums."""
    counters = site.shown.counters
    for histogram, step in (
        ("celery_task_runtime", "succeeded"),
        ("celery_task_received_to_started", "started"),
    ):
        for name in STEPS:
            for queue in ("a", "b"):
                labels = (f"tests.{name}", HOST, queue)
                buckets = [n for key, n in counters.items() if key[:-1] == (f"{histogram}_bucket", *labels)]
                assert totals[(TOTAL(step), *labels)] == sum(buckets)
    for queue in ("a", "b"):
        records = [
            r for r in site.shown.finished.values() if (r["task_name"], r["queue"]) == ("tests.add", queue)
        ]
        runtimes = sum(record["runtime"] for record in records)
        waits = sum(record["started_at"] - record["received_at"] for record in records)
        labels = ("tests.add", HOST, queue)
        assert counters[("celery_task_runtime_sum", *labels)] == pytest.approx(runtimes, abs=1e-4)
        assert counters[("celery_task_received_to_started_sum", *labels)] == pytest.approx(waits, abs=1e-4)


def test_a_scheduled_task_is_received_once(proxy_and_site: tuple[Proxy, Site]) -> None:
    """That its time has come is no second receipt, and the wait for it is no wait for a slot."""
    _, site = proxy_and_site
    gate = site.gate()
    busy = site.call("wait_for_file", str(gate), queue="a")
    eventually(lambda: busy in site.shown.active)
    task_id = site.call("big_args", queue="a", countdown=1)
    eventually(lambda: "reserved" == site.shown.waiting.get(task_id, {}).get("status"))
    gate.open()
    site.ended(task_id)
    labels = ("tests.big_args", HOST, "a")
    eventually(lambda: (TOTAL("succeeded"), *labels) in _totals(site))
    assert 1 == _totals(site)[(TOTAL("received"), *labels)]
    record = site.shown.finished[task_id]
    waited = site.shown.counters[("celery_task_received_to_started_sum", *labels)]
    assert waited == pytest.approx(record["started_at"] - record["eta"], abs=1e-3)


# -- a bounded number ------------------------------------------------------------------------------------


class Counting:
    """One worker's counters, without a worker."""

    def __init__(self) -> None:
        self._tracker = Tracker(RunTable(), Capture((), 1024, ()))
        self._counts = Counts(f"one@{HOST}")
        self._number = 0

    def run(self, name: str, exception: str | None = None) -> None:
        """Count a task that is received and, if it fails, started and failed."""
        self._number += 1
        run = read_run(f"one/{self._number}", {"id": str(self._number), "task": name}, "celery", None)
        events: list[tuple[str, dict[str, Any]]] = [(RECEIVED, {})]
        if exception is not None:
            events += [("task-started", {}), ("task-failed", {"exception": exception})]
        for event, fields in events:
            assert self._tracker.apply(1.0, event, run, fields)
            self._counts.note(run)

    def take(self) -> dict[tuple[str, ...], int]:
        """What was counted: labels → number."""
        taken = (other.parts for other in self._counts.take())
        return {tuple(json.loads(field)): int(float(number)) for _, number, _, field in taken}


def test_names_beyond_the_limit() -> None:
    """An application that makes names up fills nothing: the rest is `other`; what was known goes on."""
    counting = Counting()
    for number in range(NAMES_MAX + 5):
        counting.run(f"made.up.{number}")
    counting.run("made.up.0")
    counted = counting.take()
    assert NAMES_MAX + 1 == len(counted)
    assert 5 == counted[(TOTAL("received"), "other", HOST, "other")]
    assert 2 == counted[(TOTAL("received"), "made.up.0", HOST, "celery")]


def test_exceptions_beyond_the_limit() -> None:
    """The same for their classes; what is no class is `Exception`."""
    counting = Counting()
    for number in range(EXCEPTIONS_MAX + 5):
        counting.run("app.add", f"Error{number}('no')")
    counting.run("app.add", "<what is this>")
    counting.run("app.add", "a.b.Error1()")
    counted = {key[3]: number for key, number in counting.take().items() if key[0] == TOTAL("failed")}
    assert EXCEPTIONS_MAX + 1 == len(counted)
    assert (7, 1) == (counted["other"], counted["Error1"])


def test_each_counter_can_be_counted_as_other() -> None:
    """Where Redis has too many counters already, each falls back to one with its own shape."""
    counting = Counting()
    counting.run("app.add", "ValueError('no')")
    for other in counting._counts.take():
        kind, _, fallback, field = other.parts
        assert "count" == kind
        name, *labels = json.loads(field)
        fallback_name, *fallback_labels = json.loads(fallback)
        bound = labels[-1:] if name.endswith("_bucket") else []
        assert name == fallback_name
        assert ["other"] * (len(labels) - len(bound)) + bound == fallback_labels


def test_counters_of_hosts_that_are_gone_make_room(
    client: Redis, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are nearly too many, those go of which no worker is remembered; until then all stay."""
    one = Sender(client)
    one.send(worker_step("one", worker="celery@here"))
    for host in ("here", "gone", OTHER):
        field, other = (json.dumps([TOTAL("received"), "app.add", each, "celery"]) for each in (host, OTHER))
        one.send(Other("", ("count", "1", other, field)))
    assert [] == list(ends.counters_of_gone_hosts(client, stored.keys))
    monkeypatch.setattr(ends, "COUNTERS_CROWDED", 2)
    one.send(*ends.counters_of_gone_hosts(client, stored.keys))
    assert {"here", OTHER} == {name[2] for name in stored.counters}
