"""The promise that odd lives of tasks are told truthfully, with real workers: one test a trap."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from celery import VERSION as CELERY
from celery import chain, chord, group
from redis import Redis

from tests.support.batches import Stored
from tests.support.deadline import eventually
from tests.support.site import Site, open_site
from tests.test_celery_events import ENDS, Receiver


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A prefork worker with two processes."""
    with open_site() as opened:
        opened.start(concurrency=2)
        yield opened


@pytest.fixture
def own() -> Iterator[Site]:
    """A site of this test alone, whose state is not in the broker's Redis."""
    with open_site(own_state=True) as opened:
        yield opened


def _nothing_open(shown: Stored) -> bool:
    return ({}, {}, {}) == (shown.active, shown.waiting, shown.runs)


# -- retries ---------------------------------------------------------------------------------------------


def test_a_retry_that_starts_before_its_last_attempt_has_ended(site: Site) -> None:
    """What the attempts tell is told of the right one, and the task ends as its last attempt does."""
    gate = site.gate()
    task_id = site.call("retry_told_late", str(gate))
    eventually(lambda: "completed" in site.timeline(task_id), what="the second attempt ends")
    gate.open()
    record = site.ended(task_id)
    eventually(lambda: "retrying" in site.timeline(task_id), what="the first one ends, too")
    record = site.ended(task_id)
    assert ("completed", 2) == (record["status"], record["attempt"])
    assert None is record.get("exception")


def test_retries_one_after_the_other(site: Site) -> None:
    """A retry that the worker receives before it hears that the last attempt has asked for it."""
    ids = [site.call("retry_once") for _ in range(30)]
    for task_id in ids:
        record = site.ended(task_id)
        assert ("completed", 2) == (record["status"], record["attempt"])
        steps = site.timeline(task_id)
        assert (1, 1, 6) == (steps.count("completed"), steps.count("retrying"), len(steps))


# -- ends that are told twice ----------------------------------------------------------------------------


def test_a_hard_time_limit(site: Site) -> None:
    """Celery says twice that it failed."""
    task_id = site.call("wait_for_file", str(site.gate()), time_limit=1)
    record = site.ended(task_id)
    site.ended(site.call("add", 1, 2))
    assert ("failed", "TimeLimitExceeded(1)") == (record["status"], record["exception"].replace(",)", ")"))
    assert ["reserved", "active", "failed"] == site.shown.statuses(task_id) == site.timeline(task_id)


def test_a_task_that_rejects_its_message(site: Site) -> None:
    """Rejected once, though Celery says failed, then rejected."""
    task_id = site.call("reject")
    record = site.ended(task_id)
    site.ended(site.call("add", 1, 2))
    assert "rejected" == record["status"]
    assert "not for me" in record["exception"]
    assert ["reserved", "active", "rejected"] == site.shown.statuses(task_id)


@pytest.mark.parametrize("requeue", [False, True])
def test_a_task_that_rejects_too_late(site: Site, requeue: bool) -> None:
    """Its message was acknowledged before it began and comes back to nobody: it is rejected, at once."""
    task_id = site.call("reject_too_late", requeue)
    record = site.ended(task_id)
    assert "rejected" == record["status"]
    assert ["reserved", "active", "rejected"] == site.shown.statuses(task_id)


def test_a_failed_task_whose_message_the_worker_rejects(site: Site) -> None:
    """Failed once, though Celery says rejected, then failed."""
    task_id = site.call("fail_unacknowledged")
    record = site.ended(task_id)
    site.ended(site.call("add", 1, 2))
    assert ("failed", "ValueError('it broke')") == (record["status"], record["exception"])
    assert ["reserved", "active", "failed"] == site.shown.statuses(task_id)


# -- ends without a name ---------------------------------------------------------------------------------


def test_revoked_on_receipt(site: Site) -> None:
    """It was never received, and is told with its facts all the same."""
    task_id = "revoked on receipt"
    site.command("revoke", task_id=task_id)
    site.call("add", 1, 2, task_id=task_id, priority=3)
    record = site.ended(task_id)
    expected = {"status": "revoked", "task_name": "tests.add", "queue": "celery", "args": "(1, 2)"}
    expected |= {"message": "Revoked"}
    assert expected == {name: record[name] for name in expected}
    assert ["revoked"] == site.shown.statuses(task_id)


def test_revoked_on_receipt_of_a_retry(own: Site) -> None:
    """The attempts before it were told; the revoke is, too."""
    own.start()
    task_id = own.call("retry_always", "elsewhere")
    eventually(lambda: ["reserved", "active", "retrying"] == own.shown.statuses(task_id))
    own.command("revoke", task_id=task_id)
    own.command("add_consumer", queue="elsewhere")
    eventually(lambda: "revoked" == own.shown.finished[task_id]["status"], what="it is revoked")
    record = own.ended(task_id)
    assert (2, "elsewhere") == (record["attempt"], record["queue"])
    assert ["reserved", "active", "retrying", "revoked"] == own.shown.statuses(task_id)


def test_expired_on_receipt(site: Site) -> None:
    """Revoked, and the reason says why."""
    task_id = site.call("add", 1, 2, expires=datetime.now(timezone.utc) - timedelta(seconds=1))
    record = site.ended(task_id)
    expected = {"status": "revoked", "reason": "expired", "task_name": "tests.add"}
    assert expected == {name: record[name] for name in expected}
    assert ["revoked"] == site.shown.statuses(task_id)


def test_a_task_that_is_not_registered(site: Site) -> None:
    """Failed, with the name that nobody knows."""
    task_id = site.app.send_task("tests.nobody_knows_it", args=(1,)).id
    record = site.ended(task_id)
    expected = {"status": "failed", "task_name": "tests.nobody_knows_it", "queue": "celery", "args": "(1,)"}
    assert expected == {name: record[name] for name in expected}
    assert "NotRegistered('tests.nobody_knows_it')" == record["exception"]
    assert ["failed"] == site.shown.statuses(task_id)


def test_a_message_that_celery_does_not_understand(site: Site) -> None:
    """The worker throws it away, and tells of it."""
    task_id = site.app.send_task("tests.add", args=(1, 2), eta="one of these days").id
    record = site.ended(task_id)
    assert ("rejected", "tests.add", "celery") == tuple(
        record[name] for name in ("status", "task_name", "queue")
    )
    assert "one of these days" in record["exception"]


# -- ends without a word ---------------------------------------------------------------------------------


def test_a_task_that_raises_ignore(site: Site) -> None:
    """Completed, and the reason says that it left no result."""
    record = site.ended(site.call("ignore"))
    assert ("completed", "ignored") == (record["status"], record["reason"])


def test_a_task_that_replaces_itself(site: Site) -> None:
    """Its run ends, the other task runs under its id and completes."""
    task_id = site.call("replace", 2, 3)
    eventually(lambda: "completed" in site.timeline(task_id))
    record = site.ended(task_id)
    assert ("completed", "tests.add", "(2, 3)") == (record["status"], record["task_name"], record["args"])
    replaced = [event for event in site.shown.events if event.get("reason") == "replaced"]
    steps = site.timeline(task_id)
    assert 1 == steps.count("completed")
    assert len(replaced) <= 1
    assert "lost" not in steps


def test_a_task_that_puts_its_message_back(site: Site) -> None:
    """Back in the queue, then received again."""
    task_id = site.call("requeue", str(site.gate()))
    eventually(lambda: "completed" in site.shown.statuses(task_id))
    assert "completed" == site.ended(task_id)["status"]
    expected = ["reserved", "active", "pending", "reserved", "active", "completed"]
    assert expected == site.shown.statuses(task_id)
    (told,) = (e for e in site.shown.events if e.get("task_id") == task_id and e["status"] == "pending")
    assert "requeued" == told["reason"]


def test_a_task_that_sends_no_events(site: Site) -> None:
    """It is watched from its receipt to its end all the same."""
    gate = site.gate()
    task_id, failed = site.call("silent", str(gate)), site.call("silent_failure")
    eventually(lambda: task_id in site.shown.active)
    gate.open()
    assert "completed" == site.ended(task_id)["status"]
    assert ("failed", "ValueError('it broke')") == tuple(
        site.ended(failed)[name] for name in ("status", "exception")
    )
    assert ["reserved", "active", "completed"] == site.shown.statuses(task_id)


@pytest.mark.parametrize("plugin", [False, True])
def test_events_that_a_task_does_not_send_are_sent_to_nobody(own: Site, plugin: bool) -> None:
    """With -E, an event receiver sees of such a task what it sees without the plugin: nothing."""
    own.start(events=True, plugin=plugin)
    receiver = Receiver(own.app)
    receiver.start()
    gate = own.gate()
    gate.open()
    silent = [own.result("silent", str(gate)), own.result("silent_failure")]
    for result in silent:
        result.get(timeout=30, propagate=False)
    loud = own.call("add", 1, 2)
    told = eventually(lambda: [e for e in receiver.of_tasks() if e["type"] in ENDS and e["uuid"] == loud])
    receiver.stop()
    assert 1 == len(told)
    assert {loud} == {event["uuid"] for event in receiver.of_tasks()}


# -- revoked ---------------------------------------------------------------------------------------------


def test_a_revoke_before_the_eta(site: Site) -> None:
    """It waits for its time like the others, and is revoked then."""
    task_id = site.call("add", 1, 2, countdown=2)
    eventually(lambda: task_id in site.shown.waiting)
    site.command("revoke", task_id=task_id)
    assert "scheduled" == site.shown.waiting[task_id]["status"]
    record = site.ended(task_id)
    assert ("revoked", None) == (record["status"], record.get("started_at"))
    statuses = site.shown.statuses(task_id)
    assert ("scheduled", "revoked", 1) == (statuses[0], statuses[-1], statuses.count("revoked"))


def test_a_running_task_is_terminated(site: Site) -> None:
    """Revoked, and the reason says that it had begun."""
    task_id = site.call("wait_for_file", str(site.gate()))
    eventually(lambda: task_id in site.shown.active)
    site.command("revoke", task_id=task_id, terminate=True, signal="SIGTERM")
    record = site.ended(task_id)
    assert ("revoked", "terminated") == (record["status"], record["reason"])
    site.ended(site.call("add", 1, 2))
    assert ["reserved", "active", "revoked"] == site.shown.statuses(task_id)


# -- deliveries ------------------------------------------------------------------------------------------


def test_a_visibility_timeout_that_is_shorter_than_the_eta(own: Site) -> None:
    """The broker delivers it again and again, to two workers: at the end it has ended, once in sight."""
    for _ in range(2):
        own.start(concurrency=1, env={"VISIBILITY_SECONDS": "1"})
    task_id = own.call("add", 2, 3, countdown=4)
    eventually(lambda: task_id in own.shown.waiting)
    eventually(lambda: len(own.shown.runs.get(task_id, [])) > 1, what="it is delivered again")
    eventually(lambda: task_id in own.shown.finished and _nothing_open(own.shown), what="all have ended")
    # Those that are on their way still come.
    own.ended(own.call("add", 1, 2))
    eventually(lambda: _nothing_open(own.shown))
    assert "completed" == own.ended(task_id)["status"]
    steps = own.timeline(task_id)
    assert steps.count("active") == steps.count("completed")


def test_a_task_that_outlives_its_worker(own: Site) -> None:
    """Its message is redelivered, another worker completes it; that the first was lost changes nothing."""
    first = own.start(env={"VISIBILITY_SECONDS": "1"})
    gate = own.gate()
    task_id = own.call("wait_late", str(gate))
    eventually(lambda: task_id in own.shown.active)
    first.kill()
    gate.open()
    own.start(env={"VISIBILITY_SECONDS": "1", "SIDECAR_LEASE_SECONDS": "1.5"})
    eventually(lambda: "completed" in own.timeline(task_id), what="it is delivered again")
    eventually(lambda: "lost" in own.timeline(task_id), what="the dead worker is found")
    assert "completed" == own.ended(task_id)["status"]


def test_a_task_that_completes_elsewhere_before_its_dead_worker_is_found(own: Site) -> None:
    """That somebody lost it is no news of a task that is completed."""
    long_lease = {"VISIBILITY_SECONDS": "1", "SIDECAR_LEASE_SECONDS": "6"}
    first = own.start(env=long_lease)
    gate = own.gate()
    task_id = own.call("wait_late", str(gate))
    eventually(lambda: task_id in own.shown.active)
    # Before the other one starts and gives the message back: one that is killed as it takes it loses it.
    first.kill()
    gate.open()
    own.start(env=long_lease)
    eventually(lambda: "completed" in own.timeline(task_id), what="it is delivered again")
    eventually(lambda: "lost" in own.timeline(task_id), what="the dead worker is found")
    assert "completed" == own.ended(task_id)["status"]


def test_a_process_of_the_pool_that_is_killed(site: Site) -> None:
    """The task that it ran has failed."""
    record = site.ended(site.call("die"))
    assert "failed" == record["status"]
    assert "WorkerLostError" in record["exception"]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_broker_connection_that_breaks(own: Site, pool: str) -> None:
    """What was fetched goes back to the broker without a word: nothing is left waiting that is not, and each
    task ends."""
    own.start(pool=pool, env={"VISIBILITY_SECONDS": "2"})
    gate = own.gate()
    running = own.call("wait_for_file", str(gate))
    eventually(lambda: running in own.shown.active)
    waits = [own.call("add", 1, n) for n in range(3)]
    later = own.call("add", 1, 2, countdown=3)
    eventually(lambda: {*waits, later} == set(own.shown.waiting))
    _cut_connections(own)
    eventually(lambda: running in own.shown.active and later in own.shown.waiting)
    gate.open()
    # Before 5.6 Celery itself never hears of that end, also without the plugin, and holds the task for ever.
    unheard = [running] if pool == "prefork" and CELERY < (5, 6) else []
    for task_id in {running, *waits, later}.difference(unheard):
        assert "completed" == own.ended(task_id)["status"]
    eventually(lambda: (unheard, {}) == (list(own.shown.active), own.shown.waiting))
    assert ["online"] == [worker["status"] for worker in own.shown.workers.values()]
    assert "lost" not in [event.get("status") for event in own.shown.events]


def test_a_broker_that_restarts(own: Site) -> None:
    """While it is away, what was fetched waits nowhere; with its data it delivers all again."""
    own.start(env={"VISIBILITY_SECONDS": "2"})
    gate = own.gate()
    running = own.call("wait_late", str(gate))
    eventually(lambda: running in own.shown.active)
    waits = [own.call("add", 1, n) for n in range(3)]
    eventually(lambda: set(waits) == set(own.shown.waiting))
    with Redis.from_url(own.broker.url) as client:
        client.save()
    own.broker.kill()
    eventually(lambda: {} == own.shown.waiting, what="it is seen that they are gone")
    # It still runs what it has, and asks for the broker.
    assert ["online"] == [worker["status"] for worker in own.shown.workers.values()]
    own.broker.start()
    gate.open()
    eventually(lambda: {running, *waits} == set(own.shown.finished))
    for task_id in (running, *waits):
        assert "completed" == own.ended(task_id)["status"]
    eventually(lambda: _nothing_open(own.shown))


def test_running_tasks_are_cancelled_when_the_broker_is_lost(own: Site) -> None:
    """Where Celery is told to: the run ends, the task goes back to the broker and completes later."""
    own.start(env={"VISIBILITY_SECONDS": "2", "CANCEL_ON_LOSS": "1"})
    gate = own.gate()
    task_id = own.call("wait_late", str(gate))
    eventually(lambda: task_id in own.shown.active)
    _cut_connections(own)
    eventually(lambda: "pending" in own.shown.statuses(task_id), what="it is cancelled")
    gate.open()
    eventually(lambda: task_id in own.shown.finished)
    assert "completed" == own.ended(task_id)["status"]


def _cut_connections(site: Site) -> None:
    with Redis.from_url(site.broker.url) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def test_what_a_stopping_worker_had_fetched(own: Site) -> None:
    """It goes back to the queue, and another worker completes it."""
    first = own.start()
    gate = own.gate()
    running = own.call("wait_for_file", str(gate))
    eventually(lambda: running in own.shown.active)
    waits = [own.call("add", 1, n) for n in range(3)]
    eventually(lambda: set(waits) == set(own.shown.waiting))
    first.send_signal(signal.SIGTERM)
    eventually(lambda: {} == own.shown.waiting, what="they go back")
    gate.open()
    assert 0 == first.wait()
    own.start()
    for task_id in waits:
        eventually(lambda task_id=task_id: task_id in own.shown.finished)
        assert ["reserved", "pending", "reserved", "active", "completed"] == own.shown.statuses(task_id)
    assert ["reserved", "active", "completed"] == own.shown.statuses(running)


def test_an_id_that_is_sent_twice(site: Site) -> None:
    """Both run, one after the other; the second is the one that is shown at the end."""
    gate = site.gate()
    first = site.call("wait_for_file", str(gate), task_id="twice")
    eventually(lambda: first in site.shown.active)
    site.call("fail", "second", task_id="twice")
    eventually(lambda: "failed" in site.timeline("twice"))
    assert "active" == site.shown.active["twice"]["status"], "the first one is shown as long as it runs"
    assert "tests.wait_for_file" == site.shown.active["twice"]["task_name"]
    gate.open()
    record = site.ended("twice")
    assert ("completed", "tests.wait_for_file") == (record["status"], record["task_name"])
    steps = site.timeline("twice")
    assert (1, 1, 2, 2) == tuple(
        steps.count(status) for status in ("completed", "failed", "active", "reserved")
    )
    site.call("add", 1, 2, task_id="twice")
    eventually(lambda: "tests.add" == site.shown.finished.get("twice", {}).get("task_name"))


# -- workflows and time ----------------------------------------------------------------------------------


def test_a_workflow_can_be_followed(site: Site) -> None:
    """Each task of chain, group and chord names its root, its parent and its group."""
    add, gather = site.app.tasks["tests.add"], site.app.tasks["tests.gather"]
    flow = chain(add.s(1, 1), chord(group(add.s(n) for n in range(2)), gather.s())).apply_async()
    assert 5 == flow.get(timeout=30)
    body = site.ended(flow.id)
    records = [site.shown.finished[task_id] for task_id in site.shown.history]
    flow_records = [r for r in records if body["root_id"] in (r.get("root_id"), r["task_id"])]
    assert 4 == len(flow_records)
    (first,) = (record for record in flow_records if record["task_id"] == body["root_id"])
    assert None is first.get("parent_id")
    assert 1 == len({record["group_id"] for record in flow_records if "group_id" in record})
    members = [record for record in flow_records if record.get("group_id") and record != body]
    assert [first["task_id"]] * 2 == [record["parent_id"] for record in members]
    # Before 5.7 Celery names the parent of the whole chord.
    parents = {record["task_id"] for record in members} if CELERY >= (5, 7) else {first["task_id"]}
    assert body["parent_id"] in parents


def test_a_time_that_passes_while_the_pool_is_busy(site: Site) -> None:
    """Scheduled, then reserved: it waits for a free process now."""
    gate = site.gate()
    busy = [site.call("wait_for_file", str(gate)) for _ in range(2)]
    eventually(lambda: set(busy) <= set(site.shown.active))
    task_id = site.call("add", 1, 2, countdown=1)
    eventually(lambda: task_id in site.shown.waiting)
    assert "scheduled" == site.shown.waiting[task_id]["status"]
    eventually(lambda: "reserved" == site.shown.waiting[task_id]["status"], what="its time has come")
    gate.open()
    site.ended(task_id)
    assert ["scheduled", "reserved", "active", "completed"] == site.shown.statuses(task_id)
