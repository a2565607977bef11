"""Tasks that have ended are listed, the last one first, and found again page by page."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from celery_plugin.contract import Keys
from deploy.demo.redis_server import RedisServer
from sidecar import history as history_module
from sidecar.connections import make_client
from sidecar.filters import TaskFilter
from sidecar.history import History, _read_place
from sidecar.pages import write_cursor
from sidecar.principal import anonymous_principal
from sidecar.problems import BadParameter
from sidecar.store import HISTORY_COUNT, Store
from tests.support import acl
from tests.support.batches import Sender
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.writing import life, task

QUEUE = "/api/v1/queue"
EVERYTHING = TaskFilter()
ANYBODY = anonymous_principal(frozenset({"args"}))


@pytest.fixture
async def history(redis_server: RedisServer) -> AsyncIterator[History]:
    """The history itself, read under the sidecar's user."""
    client = make_client(acl.as_user(redis_server.url))
    yield History(Store(client, Keys()))
    await client.aclose()


def ask(sidecar: Sidecar, **parameters: Any) -> Any:
    """Ask for a page."""
    answer = sidecar.get(f"{QUEUE}/history", params=parameters)
    assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
    return answer.json()


def ids(page: Any) -> list[str]:
    """The ids of a page."""
    return [each["task_id"] for each in page["tasks"]]


def end(sender: Sender, task_id: str, at: float, status: str = "completed", **members: Any) -> None:
    """Let a task begin and end at a time."""
    sender.send(task(task_id, "active", at=at, **members), task(task_id, status, at=at, **members))


def test_newest_first(sidecar: Sidecar, sender: Sender, now: float) -> None:
    """With args and kwargs, in the order of their ends, not of their beginnings or ids."""
    for number, task_id in enumerate("cab"):
        end(sender, task_id, now + number, extra={"args": f"({number},)", "kwargs": "{}"})
    page = ask(sidecar)
    assert (["b", "a", "c"], None) == (ids(page), page["next"])
    assert "(2,)" == page["tasks"][0]["args"]


@pytest.fixture
def now(redis_client: Redis) -> float:
    """Redis's time: an older end than the history's age would be forgotten at once."""
    answer: Any = redis_client.time()
    return float(answer[0]) - 1000


def test_pages_while_tasks_end_and_are_forgotten(
    sidecar: Sidecar, sender: Sender, redis_client: Redis, now: float
) -> None:
    """No page has a task twice, and none that stays is left out."""
    for number in range(9):
        end(sender, f"t{number}", now + number // 3)
    first = ask(sidecar, limit=4)
    assert ["t8", "t7", "t6", "t5"] == ids(first)
    end(sender, "new", now + 50)
    redis_client.zrem("queue:finished", "t7", "t3", "t0")
    redis_client.hdel("queue:finished_tasks", "t7", "t2", "t0")
    second = ask(sidecar, limit=3, cursor=first["next"])
    assert (["t4", "t1"], None) == (ids(second), second["next"])
    assert "new" == ids(ask(sidecar))[0]


def test_filters(sidecar: Sidecar, sender: Sender, now: float) -> None:
    """By id, name, queue, status, worker, and by a text in name, id and arguments."""
    end(sender, "a", now, task_name="app.mail.send", queue="high", worker="celery@one")
    end(sender, "b", now + 1, "failed", task_name="app.mail.read", queue="low", worker="celery@two")
    end(sender, "c", now + 2, "revoked", task_name="other", extra={"args": "('Zoë',)"})
    for expected, parameters in (
        ("c", {"task_id": "c"}),
        ("ba", {"task_id": ["a", "b"]}),
        ("ba", {"task_name": "app.*"}),
        ("a", {"task_name": "*send"}),
        ("b", {"queue": "low"}),
        ("cb", {"status": ["failed", "revoked"]}),
        ("b", {"worker": "celery@two"}),
        ("c", {"q": "ZOË"}),
        ("b", {"q": "read"}),
        ("", {"q": "app", "status": "revoked"}),
    ):
        assert list(expected) == ids(ask(sidecar, **parameters)), parameters


def test_wrong(sidecar: Sidecar) -> None:
    """A wrong parameter is a 400 with its name; of a status it is said which there are."""
    wrong = [("status", "active"), ("limit", "1001"), ("cursor", "x"), ("cursor", "W10"), ("to", "1")]
    for name, value in wrong:
        answer = sidecar.get(f"{QUEUE}/history", params={name: value})
        assert (400, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
        assert name == answer.json()["parameter"]
        if name == "status":
            assert "completed, failed, retrying, revoked, rejected, lost" in answer.json()["detail"]


def test_one_task_with_its_timeline(sidecar: Sidecar, sender: Sender) -> None:
    """Each state and when, of a task that runs, has asked for a retry, or has ended."""
    sender.send(task("runs", "reserved"), task("runs", "active"), *life("ended"))
    sender.send(task("again", "active"), task("again", "retrying"))
    eventually(lambda: ["runs"] == ids(sidecar.get(f"{QUEUE}/tasks").json()))
    for task_id, expected in (
        ("runs", ["reserved", "active"]),
        ("ended", ["reserved", "active", "completed"]),
        ("again", ["active", "retrying"]),
    ):
        found = sidecar.get(f"{QUEUE}/tasks/{task_id}").json()
        assert expected == [step["status"] for step in found["timeline"]]
        assert (expected[-1], {"celery@one"}) == (
            found["status"],
            {step["worker"] for step in found["timeline"]},
        )
        assert all(step["at"] > 1e9 for step in found["timeline"])


@pytest.mark.parametrize("damaged", ["nonsense", "{}", "[" * 100_000, b"\xff"])
def test_a_damaged_timeline(sidecar: Sidecar, sender: Sender, redis_client: Redis, damaged: Any) -> None:
    """What cannot be read is an empty timeline, and no fault."""
    sender.send(*life("a"))
    redis_client.hset("queue:timelines", "a", damaged)
    assert [] == sidecar.get(f"{QUEUE}/tasks/a").json()["timeline"]


def test_a_damaged_history(sidecar: Sidecar, sender: Sender, redis_client: Redis, now: float) -> None:
    """Records that cannot be read are left out; the rest is there."""
    end(sender, "a", now)
    garbage = {"x": "nonsense", "y": "[]", "z": b"\xff", "w": '{"type":"other"}'}
    redis_client.hset("queue:finished_tasks", mapping=garbage)
    redis_client.zadd("queue:finished", {"x": now, "y": "+inf", "z": "-inf", "w": 0, b"\xff": now + 1})
    assert ["a"] == ids(ask(sidecar, limit=1))
    assert ["a"] == ids(ask(sidecar))


# -- the history itself


def fill(client: Redis, count: int, at: float | None = None) -> list[str]:
    """Put tasks into the history without a worker; return their ids, the last one first."""
    names = [f"t{number:06}" for number in range(count)]
    records = {name: json.dumps({"type": "task_status", "task_id": name, "status": "lost"}) for name in names}
    client.hset("queue:finished_tasks", mapping=records)  # type: ignore[arg-type]  # strings are fine
    client.zadd("queue:finished", {name: number if at is None else at for number, name in enumerate(names)})
    return names[::-1]


@pytest.mark.parametrize("at", [None, 5.000000000000001, math.inf, -math.inf])
async def test_every_page(history: History, redis_client: Redis, at: float | None) -> None:
    """All pages join to the whole, also where very many tasks ended at one moment."""
    names = fill(redis_client, 2 * HISTORY_COUNT + 50, at)
    found, cursor = [], None
    while True:
        page = json.loads(await history.page(ANYBODY, EVERYTHING, 90, cursor))
        found += ids(page)
        if not (cursor := page["next"]):
            break
    assert names == found


async def test_bounded_work(history: History, redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request looks at so many tasks and no more: the rest is behind its cursor."""
    monkeypatch.setattr(history_module, "LOOKED_AT_MAX", 400)
    names = fill(redis_client, 1000)
    wanted = TaskFilter(task_ids=frozenset({names[-1]}))
    pages, cursor = [], None
    while True:
        page = json.loads(await history.page(ANYBODY, wanted, 10, cursor))
        pages.append(ids(page))
        if not (cursor := page["next"]):
            break
        # No cursor names a task that was not shown.
        assert b"" == _read_place(cursor)[1]
    assert [names[-1]] == [task_id for page in pages for task_id in page]
    assert ([], 3) == (pages[0], len(pages))


async def test_ten_thousand_are_read_in_steps(history: History, redis_client: Redis) -> None:
    """A search through everything lets the loop run in between."""
    fill(redis_client, 10_000)
    steps = 0

    async def count_steps() -> None:
        nonlocal steps
        while True:
            steps += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count_steps)
        page = json.loads(await history.page(ANYBODY, TaskFilter(search="nobody"), 100, None))
        tasks.cancel_scope.cancel()
    assert ([], None) == (page["tasks"], page["next"])
    assert steps >= 10_000 // HISTORY_COUNT


@given(st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_any_cursor(value: Any) -> None:
    """Whatever stands in a cursor, it is read or refused."""
    with suppress(BadParameter):
        place = _read_place(write_cursor(value))
        assert (float, bytes, False) == (type(place[0]), type(place[1]), math.isnan(place[0]))
