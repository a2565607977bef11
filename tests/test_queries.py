"""Questions: answered at once, from the state; what is wrong with one is said with the parameter's name."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import httpx
import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from celery_plugin.contract import QUEUE_STATUS_FIELDS, TASK_STATUS_FIELDS
from deploy.demo.redis_server import RedisServer
from sidecar import queries as queries_module
from sidecar.filters import Pattern, TaskFilter
from sidecar.pages import read_limit, write_cursor
from sidecar.principal import anonymous_principal
from sidecar.problems import BadParameter
from sidecar.queries import SortKey, read_sort_key
from tests.support.batches import WORKER, Sender
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartWorker
from tests.support.tasks_app import Gate
from tests.support.viewing import append, live_feed
from tests.support.writing import life, task, worker, writing

QUEUE = "/api/v1/queue"
ANYBODY = anonymous_principal(frozenset({"args"}))


def ask(sidecar: Sidecar, path: str, **parameters: Any) -> Any:
    """Ask below the queue's path; the answer is JSON of now."""
    answer = sidecar.get(QUEUE + path, params=parameters)
    assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
    assert "no-store" == answer.headers["cache-control"]
    return answer.json()


def problem(sidecar: Sidecar, path: str, **parameters: Any) -> Any:
    """Ask what cannot be answered; the answer is a problem of RFC 9457."""
    answer = sidecar.get(path, params=parameters)
    assert "application/problem+json" == answer.headers["content-type"]
    details = answer.json()
    assert answer.status_code == details["status"]
    assert {"type", "title", "status", "detail"} <= details.keys()
    return details


def test_with_a_real_worker(
    sidecar: Sidecar, start_worker: StartWorker, celery_app: Celery, gate: Gate
) -> None:
    """Figures, lists and single tasks agree with what a worker of two really does."""
    real = start_worker()
    ids = [celery_app.send_task("tests.wait_for_file", (str(gate),)).id for _ in range(3)]
    eventually(lambda: ask(sidecar, "/status")["reserved_tasks"] == 1)
    status = ask(sidecar, "/status")
    assert (3, 2, 0) == tuple(status[f"{name}_tasks"] for name in ("total", "active", "pending"))
    assert set(QUEUE_STATUS_FIELDS) <= status.keys()
    listed = ask(sidecar, "/tasks")["tasks"]
    assert ["active", "active", "reserved"] == [each["status"] for each in listed]
    assert set(ids) == {each["task_id"] for each in listed}
    assert {f"('{gate}',)"} == {each["args"] for each in listed}
    for each in listed:
        assert set(TASK_STATUS_FIELDS) | {"args", "kwargs", "received_at"} <= each.keys()
        alone = ask(sidecar, f"/tasks/{each['task_id']}")
        assert each["status"] == alone["timeline"][-1]["status"]
        assert each == {name: value for name, value in alone.items() if name != "timeline"}
    workers = {each["worker"]: each for each in ask(sidecar, "/workers")["workers"]}
    assert (True, 2) == (workers[real.hostname]["alive"], workers[real.hostname]["concurrency"])
    gate.open()
    eventually(lambda: ask(sidecar, "/status")["total_tasks"] == 0)
    finished = ask(sidecar, f"/tasks/{ids[0]}")
    assert ("completed", f"('{gate}',)") == (finished["status"], finished["args"])


def test_status(sidecar: Sidecar, sender: Sender, redis_client: Redis) -> None:
    """The figures have each field of the contract, and the queues with what waits in them."""
    sender.send(task("a", "active"), task("b", "reserved"), task("c", "scheduled"), *life("d"))
    redis_client.lpush("celery", "one", "two")
    eventually(lambda: ask(sidecar, "/status")["total_tasks"] == 5)
    status = ask(sidecar, "/status")
    assert [1, 2, 1, 1, 1] == [
        status[name]
        for name in ("active_tasks", "pending_tasks", "reserved_tasks", "scheduled_tasks", "workers_online")
    ]
    [queue] = status["queues"]
    assert ("celery", 2, {"0": 2}, 1) == tuple(
        queue[name] for name in ("name", "pending", "by_priority", "consumers")
    )
    assert 0 <= status["server_time"] - queue["measured_at"] < 60


def test_pages(sidecar: Sidecar, sender: Sender) -> None:
    """The pages of a list join to the whole: the active ones first, nothing twice, nothing left out."""
    for number in range(25):
        status = ("active", "reserved", "scheduled")[number % 3]
        sender.send(task(f"t{number:02}", status, received_at=1_000_000_000.0 + number // 4))
    whole = eventually(lambda: _if_complete(ask(sidecar, "/tasks")["tasks"], 25))
    pages, cursor = [], {}
    while cursor is not None:
        page = ask(sidecar, "/tasks", limit=4, **cursor)
        pages.append(page["tasks"])
        cursor = page["next"] and {"cursor": page["next"]}
    assert [4, 4, 4, 4, 4, 4, 1] == [len(page) for page in pages]
    assert whole == [each for page in pages for each in page]
    assert ["active"] * 9 == [each["status"] for each in whole][:9]
    assert None is ask(sidecar, "/tasks", limit=25)["next"]


def _if_complete(tasks: list[Any], count: int) -> list[Any] | None:
    return tasks if len(tasks) == count else None


def test_pages_while_tasks_come_and_go(sidecar: Sidecar, sender: Sender) -> None:
    """A task that stays is in exactly one of the pages, whatever happens to the others between them."""
    sender.send(*(task(f"t{number}", "reserved", received_at=1e9 + number) for number in range(10)))
    eventually(lambda: len(ask(sidecar, "/tasks")["tasks"]) == 10)
    first = ask(sidecar, "/tasks", limit=5)
    sender.send(task("t2", "completed"), task("t4", "completed"), task("t0", "active", received_at=1e9))
    sender.send(task("new", "reserved", received_at=1e9 + 20))
    eventually(lambda: ask(sidecar, "/status")["reserved_tasks"] == 8)
    rest = ask(sidecar, "/tasks", cursor=first["next"])
    assert ["t5", "t6", "t7", "t8", "t9", "new"] == [each["task_id"] for each in rest["tasks"]]


def test_filters(sidecar: Sidecar, sender: Sender) -> None:
    """By id, name, queue, status, worker, and by a text in name, id and arguments; pages hold with them."""
    sender.send(
        task("a", "active", task_name="app.mail.send", queue="high"),
        task("b", "reserved", task_name="app.mail.read", queue="low"),
        task("c", "scheduled", task_name="other", extra={"args": "('Zoë',)"}),
    )
    eventually(lambda: len(ask(sidecar, "/tasks")["tasks"]) == 3)
    for expected, parameters in (
        ("c", {"task_id": "c"}),
        ("ab", {"task_id": ["a", "b", "x"]}),
        ("ab", {"task_name": "app.*"}),
        ("b", {"queue": "low"}),
        ("bc", {"status": ["reserved", "scheduled"]}),
        ("a", {"worker": WORKER, "status": "active"}),
        ("", {"worker": "celery@two"}),
        ("c", {"q": "ZOË"}),
        ("", {"q": "zoë", "status": "active"}),
        ("", {"status": "lost"}),
    ):
        found = ask(sidecar, "/tasks", **parameters)
        assert (list(expected), None) == ([each["task_id"] for each in found["tasks"]], found["next"])
    first = ask(sidecar, "/tasks", task_name="app.*", limit=1)
    second = ask(sidecar, "/tasks", task_name="app.*", limit=1, cursor=first["next"])
    assert (["a", "b"], None) == (
        [each["task_id"] for each in first["tasks"] + second["tasks"]],
        second["next"],
    )


@pytest.mark.parametrize(("expected", "at_once"), [(3, 1), (3, 7), (4, 700), (2, 5000)])
async def test_bounded_work(monkeypatch: pytest.MonkeyPatch, expected: int, at_once: int) -> None:
    """One request looks at so many tasks and no more; the rest is behind its cursor."""
    monkeypatch.setattr(queries_module, "LOOKED_AT_MAX", 1000)
    feed = live_feed()
    for number in range(2500):
        # Some are received at the same moment, and some pages end among them.
        facts = {"task_name": "x" if number % 100 == 0 else "y", "received_at": number // at_once}
        append(feed, 1, **facts)
    # Neither figures nor Redis are asked for a list.
    queries = queries_module.Queries(feed, None, None)  # type: ignore[arg-type]
    pages, cursor, wanted = [], None, TaskFilter(names=(Pattern(("x",)),))
    while True:
        page = json.loads(await queries.tasks(ANYBODY, wanted, 1000, cursor))
        pages.append([each["task_id"] for each in page["tasks"]])
        if not (cursor := page["next"]):
            break
        # No cursor names a task that was not shown.
        assert "" == read_sort_key(cursor)[2]
    assert expected == len(pages)
    assert {f"t{number + 1}" for number in range(0, 2500, 100)} == {each for page in pages for each in page}
    assert 25 == sum(map(len, pages))


WRITTEN = [
    (b"%s", b"nonsense"),
    (b"%s", b'{"args":"()"'),
    (b"%s", b'{"args":NaN}'),
    (b"%s", b"[1]"),
    (b"%s", b'"{}"'),
    (b"%s", b"\xff"),
    (b"%s", b""),
    (b"%s", b'{"args":"()"}\n '),
    (b" %s \r\n", b"{}"),
]


def test_what_another_program_wrote(sidecar: Sidecar, sender: Sender, client: Redis) -> None:
    """Whatever stands beside an event or around it, lists and streams can be read, and have the task."""
    position = sender.send(task("good", "active")).position
    for number, (event, extra) in enumerate(WRITTEN):
        position = position._replace(offset=position.offset + 1)
        told = {"type": "task_status", "task_id": f"t{number}", "status": "active", "offset": position.offset}
        entry = {"event": event % json.dumps(told).encode(), "extra": extra}
        client.xadd("queue:events", entry, id=f"{position.offset}-0")
    client.hset("queue:log", "offset", position.offset)
    expected = {"good", *(f"t{number}" for number in range(len(WRITTEN)))}
    with sidecar.events(params={"include": "args"}) as stream:
        stream.until(lambda event: event.id == str(position))
        assert expected - {"good"} == {
            event.data["task_id"] for event in stream.seen if event.event == "task_status"
        }
    assert expected == {each["task_id"] for each in ask(sidecar, "/tasks")["tasks"]}
    assert ["t0"] == [each["task_id"] for each in ask(sidecar, "/tasks", q="t0")["tasks"]]
    assert "t0" == ask(sidecar, "/tasks/t0")["task_id"]
    with sidecar.events(params={"include": "args"}) as stream:
        assert expected == {each["task_id"] for each in stream.until_type("snapshot").data["tasks"]}


def test_one_task(sidecar: Sidecar, sender: Sender) -> None:
    """A task that runs, waits or has ended is found; of any other it is said that it is not known."""
    last = sender.send(
        task("runs", "active"), task("waits", "reserved"), *life("ended"), task("é/?", "active")
    )
    with sidecar.events(last_event_id=str(last.position._replace(offset=1))) as stream:
        stream.until(lambda event: event.id == str(last.position))
    expected = {"runs": "active", "waits": "reserved", "ended": "completed"}
    assert expected == {name: ask(sidecar, f"/tasks/{name}")["status"] for name in expected}
    unknown = problem(sidecar, f"{QUEUE}/tasks/nobody")
    assert (404, "task_id") == (unknown["status"], unknown["parameter"])
    assert "nobody" in unknown["detail"]


def test_workers(sidecar: Sidecar, sender: Sender, redis_server: RedisServer) -> None:
    """A worker is alive while its lease runs and it has not said that it ended."""
    with writing(redis_server.url, "two") as other:
        other.send(worker("two", worker="celery@two"), lease=0.001)
    sender.send(worker(pid=5))
    eventually(lambda: [True, False] == _alive(sidecar))
    assert 1 == ask(sidecar, "/status")["workers_online"]
    sender.send(worker(status="offline"))
    eventually(lambda: [False, False] == _alive(sidecar))
    assert 0 == ask(sidecar, "/status")["workers_online"]


def _alive(sidecar: Sidecar) -> list[bool]:
    return [each["alive"] for each in ask(sidecar, "/workers")["workers"]]


def test_wrong_parameters(sidecar: Sidecar) -> None:
    """A parameter that is wrong, or unknown, is a 400 with its name and what is allowed."""
    wrong = [
        *(("/tasks", "limit", value) for value in ("0", "1001", "-1", "abc", "", "1.5", "٣", "9" * 5000)),
        *(("/tasks", "cursor", value) for value in ("", "x", "bm9uc2Vuc2U", "é", "W10", "W1tdLDAsIngiXQ")),
        ("/tasks", "cursor", write_anything((float("inf"), 0.0, "x"))),
        ("/tasks", "limits", "5"),
        ("/tasks", "status", "completed"),
        ("/tasks", "task_id", ""),
        ("/tasks", "q", "x" * 1001),
        ("/tasks/a", "include", "args"),
        ("/status", "limit", "5"),
        ("/workers", "limit", "5"),
    ]
    for path, name, value in wrong:
        details = problem(sidecar, QUEUE + path, **{name: value})
        assert (400, name) == (details["status"], details["parameter"]), (path, name, value)
        assert "must be" in details["detail"]
    assert "Traceback" not in sidecar.output


def test_wrong_requests(sidecar: Sidecar) -> None:
    """An unknown path is a 404 and a wrong method a 405, both as problems, with what is allowed."""
    assert 404 == problem(sidecar, "/nothing")["status"]
    assert 404 == problem(sidecar, "/api/v1/queue")["status"]
    with httpx.Client(base_url=sidecar.url, trust_env=False) as client:
        for path in (f"{QUEUE}/status", f"{QUEUE}/tasks", f"{QUEUE}/tasks/a", "/livez"):
            answer = client.delete(path)
            assert (405, 405) == (answer.status_code, answer.json()["status"])
            assert "application/problem+json" == answer.headers["content-type"]
            assert {"GET", "HEAD"} == set(answer.headers["allow"].split(", "))


def test_health(sidecar: Sidecar) -> None:
    """/livez says that the process lives, /readyz that Redis answers (test_failures: while it does not)."""
    assert {"status": "alive"} == sidecar.get("/livez").json()
    assert {"status": "ready"} == sidecar.get("/readyz").json()


def test_a_damaged_history(sidecar: Sidecar, redis_client: Redis) -> None:
    """A finished task whose record cannot be read is not known, and no fault."""
    redis_client.hset("queue:finished_tasks", mapping={"a": "nonsense", "b": "[]", "c": '{"type":5}'})
    lone = '{"type":"task_status","task_id":"lone","status":"failed"} '
    redis_client.hset("queue:finished_tasks", "lone", lone)
    assert [] == ask(sidecar, "/tasks/lone")["timeline"]
    assert {404} == {problem(sidecar, f"{QUEUE}/tasks/{name}")["status"] for name in "abc"}
    assert "Traceback" not in sidecar.output


@given(st.tuples(st.integers(0, 1), st.floats(allow_nan=False), st.text()))
def test_cursor_round_trip(key: SortKey) -> None:
    """A cursor comes back as it was given out, and needs no escaping in a URL."""
    cursor = write_cursor(key)
    assert key == read_sort_key(cursor)
    assert cursor.replace("-", "").replace("_", "").isalnum()


def write_anything(value: Any) -> str:
    """Encode like a cursor what is none."""
    return write_cursor(value)


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.text() | anything.map(write_anything))
def test_any_cursor(text: str) -> None:
    """Whatever stands in a cursor, it is read or refused."""
    with suppress(BadParameter):
        group, received_at, task_id = read_sort_key(text)
        assert (int, float, str) == (type(group), type(received_at), type(task_id))


@given(st.text() | st.integers().map(str))
def test_any_limit(text: str) -> None:
    """A limit is a number from 1 to 1000, or refused."""
    with suppress(BadParameter):
        assert 1 <= read_limit({"limit": text}) <= 1000
