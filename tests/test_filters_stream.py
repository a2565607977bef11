"""A stream has what was asked for: certain tasks, types of events, fields, and so much to begin with."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from celery_plugin.contract import EXTRA_FIELDS, LogEntry, Position
from sidecar import pump as pump_module
from sidecar.filters import TaskFilter
from sidecar.forms import Form
from sidecar.wanted import Wanted
from tests.support.batches import Sender
from tests.support.sidecar_process import Sidecar
from tests.support.sse import Event, EventStream
from tests.support.viewing import EPOCH, append, live_feed, serving, viewing, watching
from tests.support.writing import life, task, worker

EVENTS = "/api/v1/queue/events"
EXTRA = {"args": "(1,)", "kwargs": "{}", "result": "2", "traceback": "…"}


def begin(stream: EventStream) -> dict[str, Any]:
    """Take the beginning; return the snapshot."""
    stream.until_type("live")
    parts = [event.data for event in stream.seen if event.event == "snapshot"]
    return {**parts[0], "tasks": [each for part in parts for each in part["tasks"]]}


def is_task(event: Event) -> bool:
    """Tell an event of a task."""
    return event.event == "task_status"


# -- filters


@pytest.mark.parametrize(
    ("expected", "params"),
    [
        (["mail", "post"], {"task_id": ["mail", "post"]}),
        (["mail"], {"task_name": "app.m*"}),
        (["mail", "post"], {"task_name": ["app.mail", "*post"]}),
        (["post"], {"queue": "slow"}),
        (["mail", "post"], {"status": "completed", "queue": ["fast", "slow"]}),
        (["post"], {"worker": "celery@two"}),
        ([], {"worker": "celery@two", "queue": "fast"}),
        (["post"], {"task_name": "app.*", "queue": "slow"}),
    ],
)
def test_filters(sidecar: Sidecar, sender: Sender, expected: list[str], params: dict[str, Any]) -> None:
    """Each filter lets through the tasks that match it, several of them those that match all."""
    with sidecar.events(params=params) as stream, sidecar.events() as everything:
        begin(stream), begin(everything)
        sender.send(*life("mail", task_name="app.mail", queue="fast"))
        sender.send(*life("post", task_name="app.post", queue="slow", worker="celery@two"))
        last = sender.send(*life("other", task_name="other"))
        everything.until(lambda event: event.id == str(last.position))
        if expected:
            stream.until_task(expected[-1], "completed")
    assert expected == sorted({event.data["task_id"] for event in stream.seen if is_task(event)})
    assert 9 == sum(map(is_task, everything.seen))


def test_a_task_is_seen_to_leave(sidecar: Sidecar, sender: Sender) -> None:
    """What matched before an event is told of it too."""
    with sidecar.events(params={"status": "active"}) as stream:
        begin(stream)
        sender.send(*life("a"))
        stream.until_task("a", "completed")
    assert ["active", "completed"] == [event.data["status"] for event in stream.seen if is_task(event)]


def test_the_snapshot_is_filtered(sidecar: Sidecar, sender: Sender) -> None:
    """A filtered stream begins with the tasks that match, and the figures of all."""
    sender.send(task("a", "active", queue="fast"), task("b", "active", queue="slow"), task("c", "reserved"))
    with sidecar.events() as stream:
        stream.until_type("live")
    for params, expected in (
        ({"queue": "fast"}, ["a"]),
        ({"status": "reserved"}, ["c"]),
        ({"task_id": ["b", "c", "none"]}, ["b", "c"]),
        ({"task_id": "b", "queue": "fast"}, []),
    ):
        with sidecar.events(params=params) as stream:
            snapshot = begin(stream)
        assert expected == [each["task_id"] for each in snapshot["tasks"]]
        assert 2 == snapshot["queue_status"]["active_tasks"]


@pytest.mark.parametrize(
    "types", ["task_status", "worker_status", "queue_status", "worker_status,queue_status"]
)
def test_types(sidecar: Sidecar, sender: Sender, types: str) -> None:
    """Of the types nothing but those named comes, besides what the stream says of itself."""
    wanted = set(types.split(","))
    with sidecar.events(params={"types": types}) as stream:
        snapshot = begin(stream)
        sender.send(worker("two", worker="celery@two"), *life("a"))
        for kind in wanted:
            stream.until(lambda event, kind=kind: event.event == kind)
    assert {event.event for event in stream.seen} - {"snapshot", "live"} == wanted
    assert ("queue_status" in wanted, "worker_status" in wanted) == (
        "queue_status" in snapshot,
        "workers" in snapshot,
    )


def test_types_repeated(sidecar: Sidecar, sender: Sender) -> None:
    """A parameter may be given twice instead of with a comma."""
    with sidecar.events(params={"types": ["task_status", "live"]}) as stream:
        begin(stream)
        sender.send(*life("a"))
        stream.until_task("a", "completed")
    assert {"snapshot", "live", "task_status"} == {event.event for event in stream.seen}


def test_resume_filtered(sidecar: Sidecar, sender: Sender) -> None:
    """A filtered viewer that comes back gets what it missed of its own."""
    with sidecar.events(params={"queue": "fast"}) as stream:
        begin(stream)
        sender.send(*life("a", queue="fast"))
        stream.until_task("a", "completed")
    sender.send(*life("b", queue="slow"), *life("c", queue="fast"))
    with stream.reconnect() as again:
        again.until_task("c", "completed")
    assert ["c"] * 3 == [event.data["task_id"] for event in again.seen if is_task(event)]
    assert not [event for event in again.seen if event.event in ("snapshot", "reset")]


# -- forms


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ({"args"}, "args"),
        ({"args", "result"}, "result,args"),
        ({"kwargs", "traceback"}, ["kwargs", "traceback"]),
        (set(EXTRA_FIELDS), ["args,kwargs", "result", "traceback"]),
        (set(), None),
    ],
)
def test_include(sidecar: Sidecar, sender: Sender, expected: set[str], given: Any) -> None:
    """Fields that may hold secrets come where they are asked for, those alone, and nowhere else."""
    sender.send(task("a", "active", extra=EXTRA))
    with sidecar.events() as stream:
        stream.until(lambda event: event.event == "live")
    with sidecar.events(params={"include": given} if given else None) as stream:
        [shown] = begin(stream)["tasks"]
        sender.send(task("a", "completed", extra=EXTRA))
        event = stream.until_task("a", "completed").data
    for record in (shown, event):
        assert {name: EXTRA[name] for name in expected} == {
            name: record[name] for name in EXTRA_FIELDS if name in record
        }


async def test_each_form_is_made_once() -> None:
    """Viewers that want the same are sent the same bytes, not equal ones."""
    feed = live_feed()
    full = Wanted(include=("args",))
    async with serving(feed) as service, watching(service, full) as one, watching(service, full) as two:
        for viewer in (one, two):
            await viewer.until(lambda viewer=viewer: viewer.parser.last_event_id == f"{EPOCH}-0")
        await anyio.lowlevel.checkpoint()
        feed.append(
            LogEntry(1, b'{"type":"task_status","task_id":"a","status":"active"}', b'{"args":"(1,)"}')
        )
        feed.wake()
        for viewer in (one, two):
            await viewer.until(lambda viewer=viewer: viewer.parser.last_event_id == f"{EPOCH}-1")
    assert "(1,)" == one.events[-1].data["args"]
    assert one.messages[-1] is two.messages[-1]


def test_an_extra_that_is_no_json() -> None:
    """What cannot be read of an extra is left out; the event comes."""
    feed = live_feed()
    feed.append(LogEntry(1, b'{"type":"task_status","task_id":"a","status":"active"}', b"nonsense"))
    [frame] = feed.log.after(0)
    assert frame.lean == frame.shown(Form(("args",)))


# -- the size of the snapshot


@pytest.mark.parametrize(("expected", "given"), [(3, "3"), (0, "0"), (7, "all"), (7, "7"), (7, None)])
def test_snapshot_size(sidecar: Sidecar, sender: Sender, expected: int, given: str | None) -> None:
    """Every active task is shown, and as many waiting ones as were asked for; whether that is all is said."""
    sender.send(task("run", "active"), *(task(f"t{number}", "reserved") for number in range(7)))
    with sidecar.events(params={"snapshot": given} if given else None) as stream:
        snapshot = begin(stream)
    assert ["run"] == [each["task_id"] for each in snapshot["tasks"] if each["status"] == "active"]
    assert expected + 1 == len(snapshot["tasks"])
    assert (expected < 7) == snapshot["truncated"]
    if expected < 7:
        assert (1, 7) == (snapshot["running_total"], snapshot["waiting_total"])


# -- mistakes


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("status", "runing", "active"),
        ("types", "task", "task_status"),
        ("types", "", "task_status"),
        ("include", "secrets", "traceback"),
        ("include", "args,", "traceback"),
        ("snapshot", "-1", "all"),
        ("snapshot", "some", "all"),
        ("task_name", "", "1 to 1000"),
        ("q", "x", "task_name"),
        ("task", "x", "task_id"),
    ],
)
def test_mistakes(sidecar: Sidecar, name: str, value: str, allowed: str) -> None:
    """A wrong parameter is refused with its name and what is allowed."""
    answer = sidecar.get(EVENTS, params={name: value})
    assert (400, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    assert name == answer.json()["parameter"]
    assert allowed in answer.json()["detail"]


# -- without a server


async def test_bookmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer that gets nothing is told the id of now, or it would fall out of the log."""
    monkeypatch.setattr(pump_module, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(pump_module, "SILENCE_SECONDS", 0)
    feed = live_feed()
    async with viewing(feed, Wanted(TaskFilter(task_ids=frozenset({"none"})))) as viewer:
        await viewer.until(lambda: viewer.parser.last_event_id == f"{EPOCH}-0")
        append(feed, 50)
        await viewer.until(lambda: viewer.parser.last_event_id == f"{EPOCH}-50")
    assert ["snapshot", "live"] == [event.event for event in viewer.events]


@pytest.mark.parametrize("last", [10, 50])
async def test_who_comes_back_is_told_the_place(last: int) -> None:
    """Without figures, and with nothing missed, the id alone says at once that the stream is in step."""
    feed = live_feed()
    append(feed, 50)
    wanted = Wanted(TaskFilter(task_ids=frozenset({"none"})))
    async with serving(feed) as service, watching(service, wanted, Position(EPOCH, last)) as viewer:
        await viewer.until(lambda: viewer.parser.last_event_id == f"{EPOCH}-50")
    assert [] == viewer.events


async def test_a_bookmark_never_goes_ahead() -> None:
    """A busy viewer that is filtered has, with each id, all that passes before it."""
    feed = live_feed(length=1000)
    wanted = Wanted(TaskFilter(task_ids=frozenset({"t7", "t300"})))
    async with serving(feed) as service, watching(service, wanted) as viewer:
        await viewer.until(lambda: viewer.parser.last_event_id == f"{EPOCH}-0")
        viewer.may_send = anyio.Event()
        append(feed, 600)
        await anyio.lowlevel.checkpoint()
        viewer.may_send.set()
        await viewer.until(lambda: viewer.parser.last_event_id == f"{EPOCH}-300")
    assert ["t7", "t300"] == [event.data["task_id"] for event in viewer.events if is_task(event)]


async def test_the_view_is_filtered() -> None:
    """What the sidecar says itself of a task goes to those who want that task."""
    feed = live_feed()
    lost = {"type": "task_status", "task_id": "a", "status": "lost", "previous": {"status": "active"}}
    async with serving(feed) as service:
        wanted = Wanted(TaskFilter(statuses=frozenset({"active"})))
        async with watching(service, wanted) as one, watching(service) as two:
            for viewer in (one, two):
                await viewer.until(lambda viewer=viewer: viewer.parser.last_event_id == f"{EPOCH}-0")
            feed.show("task_status", json.dumps(lost).encode(), b"{}")
            feed.show("task_status", json.dumps({**lost, "task_id": "b", "previous": None}).encode(), b"{}")
            feed.wake()
            await two.until(lambda: two.events[-1].data.get("task_id") == "b")
            await one.until(lambda: one.events[-1].data.get("task_id") == "a")


async def test_equal_filters_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Viewers with the same filter cost one evaluation, those of other tasks none."""
    feed, asked = live_feed(), []
    passes = Wanted.passes
    monkeypatch.setattr(Wanted, "passes", lambda self, frame: asked.append(self) or passes(self, frame))
    same = Wanted(TaskFilter(statuses=frozenset({"active"})))
    other = Wanted(TaskFilter(task_ids=frozenset({"other"})))
    async with (
        serving(feed) as service,
        watching(service, same) as one,
        watching(service, same) as two,
        watching(service, other) as three,
    ):
        for viewer in (one, two, three):
            await viewer.until(lambda viewer=viewer: viewer.parser.last_event_id == f"{EPOCH}-0")
        append(feed, 1)
        for viewer in (one, two):
            await viewer.until(lambda viewer=viewer: viewer.parser.last_event_id == f"{EPOCH}-1")
    assert [same] == asked
