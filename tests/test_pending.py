"""What waits in the broker: in the order of taking, whoever wrote it and whatever moves meanwhile."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from celery import Celery
from kombu import Queue
from redis import Redis

from celery_plugin.capture import Capture
from deploy.demo.redis_server import RedisServer
from sidecar import pending as pending_module
from sidecar import waiting_lists
from sidecar.broker import BrokerFacts
from sidecar.pages import write_cursor
from sidecar.pending import Pending
from tests.support import acl
from tests.support.batches import Sender
from tests.support.deadline import eventually, eventually_async
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartRedis, StartSidecar, StartWorker
from tests.support.tasks_app import Gate, make_app
from tests.support.writing import task, worker, writing
from tests.test_broker import Watched, calls, watching
from tests.test_messages import MARKER, protocol_2

QUEUE = "/api/v1/queue"


def look(sidecar: Sidecar, queue: str = "celery", **parameters: Any) -> Any:
    """Ask what waits."""
    answer = sidecar.get(f"{QUEUE}/pending", params={"queue": queue, **parameters}, timeout=30)
    assert (200, "no-store") == (answer.status_code, answer.headers["cache-control"]), answer.text
    return answer.json()


def ids_of(page: Any) -> list[str | None]:
    """The ids of a page, in its order."""
    return [each["task_id"] for each in page["tasks"]]


def problem(sidecar: Sidecar, path: str, **parameters: Any) -> Any:
    """Ask what cannot be answered."""
    answer = sidecar.get(QUEUE + path, params=parameters, timeout=30)
    assert "application/problem+json" == answer.headers["content-type"]
    assert answer.status_code == answer.json()["status"]
    return answer.json()


def message(task_id: str, size: int = 0) -> bytes:
    """A message with a body of so many bytes."""
    return json.dumps({**protocol_2(id=task_id), "body": "x" * size}).encode()


def taken_by_kombu(app: Celery, queue: str, count: int) -> list[str]:
    """Take so many messages as a consumer does; return their ids."""
    with app.connection() as connection, connection.channel() as channel:
        bound = Queue(queue)(channel)
        return [bound.get(no_ack=True).headers["id"] for _ in range(count)]


def test_in_the_order_of_taking(sidecar: Sidecar, celery_app: Celery) -> None:
    """Tasks of several priorities are listed exactly as kombu hands them out, each with its position."""
    sent = [celery_app.send_task("tests.add", (n, 1), priority=n % 10).id for n in range(12)]
    page = look(sidecar)
    assert (None, "celery", set(sent)) == (page["next"], page["queue"], set(ids_of(page)))
    assert list(range(12)) == [each["position"] for each in page["tasks"]]
    assert [0, 1, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9] == [each["priority"] for each in page["tasks"]]
    assert taken_by_kombu(celery_app, "celery", 12) == ids_of(page)


def test_what_is_shown(sidecar: Sidecar, celery_app: Celery, start_worker: StartWorker) -> None:
    """What is shown of a waiting task is what its worker's plugin will show of it."""
    first = celery_app.send_task("tests.echo", ("é", 2), {"size": 3}, priority=4, countdown=1000)
    [waiting] = look(sidecar)["tasks"]
    assert (first.id, "tests.echo", 0) == tuple(
        waiting[name] for name in ("task_id", "task_name", "position")
    )
    assert ("('é', 2)", "{'size': 3}") == (waiting["args"], waiting["kwargs"])
    start_worker()
    held = eventually(lambda: sidecar.get(f"{QUEUE}/tasks").json()["tasks"])[0]
    assert "scheduled" == held["status"]
    assert held == held | {name: value for name, value in waiting.items() if name != "position"}


def test_protocol_1(sidecar: Sidecar, redis_server: RedisServer) -> None:
    """A task of the old protocol is read from its body."""
    app = make_app(redis_server.url, task_protocol=1)
    sent = app.send_task("tests.echo", ("é",), {"password": MARKER, "size": 3})
    page = look(sidecar)
    assert ([sent.id], "tests.echo") == (ids_of(page), page["tasks"][0]["task_name"])
    assert ("('é',)", "{'password': '[redacted]', 'size': 3}") == (
        page["tasks"][0]["args"],
        page["tasks"][0]["kwargs"],
    )
    app.close()


def test_secrets(sidecar: Sidecar, celery_app: Celery) -> None:
    """The value of a secret is in no answer."""
    sent = celery_app.send_task("tests.echo", (f"token={MARKER}",), {"password": MARKER, "n": 1})
    answer = sidecar.get(f"{QUEUE}/pending", params={"queue": "celery"})
    assert sent.id in answer.text
    assert MARKER not in answer.text
    assert MARKER not in sidecar.get(f"{QUEUE}/tasks/{sent.id}").text


def test_settings(start_sidecar: StartSidecar, celery_app: Celery) -> None:
    """The plugin's settings, given to the sidecar, say what is shown of what waits."""
    celery_app.send_task("tests.echo", ("x" * 100,), {"plate": MARKER})
    hides = start_sidecar(env={"SIDECAR_CAPTURE": "none"})
    shows = start_sidecar(arguments=("--redact", "plate", "--capture-max-chars", "30"))
    eventually(lambda: hides.get("/readyz").status_code == shows.get("/readyz").status_code == 200)
    [hidden], [shown] = look(hides)["tasks"], look(shows)["tasks"]
    assert (None, None) == (hidden["args"], hidden["kwargs"])
    assert (30, "{'plate': '[redacted]'}") == (len(shown["args"]), shown["kwargs"])


def test_names_of_lists(sidecar: Sidecar, sender: Sender, redis_server: RedisServer) -> None:
    """Separator, steps and key prefix come from the workers' records."""
    options = {"global_keyprefix": "shop:", "sep": "|", "priority_steps": [0, 5]}
    shop = make_app(redis_server.url, broker_transport_options=options)
    facts = {"transport": "redis", **options}
    sender.send(worker(queues=["orders"], broker=facts))
    last = shop.send_task("tests.add", (1, 2), queue="orders", priority=7).id
    first = shop.send_task("tests.add", (1, 2), queue="orders", priority=1).id
    other = shop.send_task("tests.add", (1, 2), queue="unconsumed").id
    eventually(lambda: sidecar.get(f"{QUEUE}/pending", params={"queue": "unconsumed"}).status_code == 200)
    assert [first, last] == ids_of(look(sidecar, "orders"))
    assert [0, 1] == [each["position"] for each in look(sidecar, "orders")["tasks"]]
    assert [other] == ids_of(look(sidecar, "unconsumed"))
    shop.close()


def test_two_prefixes(sidecar: Sidecar, sender: Sender, redis_client: Redis) -> None:
    """Of two applications that have a queue of one name each counts its own positions."""
    for name in "ab":
        facts = {"transport": "redis", "global_keyprefix": f"{name}:"}
        with_facts = worker(name, queues=["q"], broker=facts)
        sender.send(with_facts)
        redis_client.lpush(f"{name}:q", message(f"{name}1"), message(f"{name}2"))
    eventually(lambda: sidecar.get(f"{QUEUE}/pending", params={"queue": "q"}).status_code == 200)
    page = eventually(lambda: (page := look(sidecar, "q"))["tasks"][3:] and page)
    assert [("a1", 0), ("a2", 1), ("b1", 0), ("b2", 1)] == [
        (each["task_id"], each["position"]) for each in page["tasks"]
    ]


HOSTILE = [
    b"",
    b"message",
    b"\xff\xfe",
    b"[" * 100_000,
    b"NaN",
    b'{"headers":{"task":"x","id":NaN},"properties":{}}',
    b'{"headers":{"task":"x","id":"\\ud800","argsrepr":"\\ud800"},"properties":{"priority":1e999}}',
    b'{"headers":{},"properties":{},"body":"gASVBgAAAAAAAABdlC4=","content-type":"application/x-python-serialize"}',
]


def test_hostile_messages(sidecar: Sidecar, redis_client: Redis) -> None:
    """What is no task keeps its place; those behind it are read, and no line of the log is a fault."""
    redis_client.lpush("celery", message("first"), *HOSTILE, message("last"))
    page = look(sidecar)
    assert ["first", *[None] * 6, "?", None, "last"] == ids_of(page)
    assert list(range(10)) == [each["position"] for each in page["tasks"]]
    assert all(each["unreadable"] for each in page["tasks"] if each["task_id"] is None)
    assert "last" == sidecar.get(f"{QUEUE}/tasks/last").json()["task_id"]
    assert "Traceback" not in sidecar.output


def test_large_messages(sidecar: Sidecar, redis_client: Redis) -> None:
    """A page of large messages ends early and its cursor goes on; each message is in one page."""
    expected = [f"t{number}" for number in range(30)]
    redis_client.lpush("celery", *(message(name, 900_000) for name in expected))
    redis_client.lpush("celery", message("huge", 6_000_000), message("small"))
    found, pages, cursor = [], 0, {}
    while cursor is not None:
        page = look(sidecar, limit=100, **cursor)
        assert len(page["tasks"]) <= 16
        found, pages = found + page["tasks"], pages + 1
        cursor = page["next"] and {"cursor": page["next"]}
    assert [*expected, None, "small"] == [each["task_id"] for each in found]
    assert list(range(32)) == [each["position"] for each in found]
    assert pages > 3


def test_pages(sidecar: Sidecar, redis_client: Redis) -> None:
    """Pages join to the whole, over the lists of several priorities."""
    for step, name in ((0, "celery"), (3, "celery\x06\x163"), (9, "celery\x06\x169")):
        redis_client.lpush(name, *(message(f"{step}-{number}") for number in range(5)))
    whole = look(sidecar)
    found, cursor = [], {}
    while cursor is not None:
        page = look(sidecar, limit=4, **cursor)
        found.append(page["tasks"])
        cursor = page["next"] and {"cursor": page["next"]}
    assert [4, 4, 4, 3] == [len(page) for page in found]
    assert whole["tasks"] == [each for page in found for each in page]
    assert None is look(sidecar, limit=15)["next"]


def test_pages_while_tasks_are_taken(sidecar: Sidecar, redis_client: Redis) -> None:
    """A task that stays is in one of the pages, whatever is taken before it or comes behind it."""
    redis_client.lpush("celery", *(message(f"t{number}") for number in range(10)))
    first = look(sidecar, limit=5)
    redis_client.rpop("celery", 3)
    redis_client.lpush("celery", message("new"))
    second = look(sidecar, limit=2, cursor=first["next"])
    assert (["t5", "t6"], [2, 3]) == (ids_of(second), [each["position"] for each in second["tasks"]])
    redis_client.rpop("celery", 5)
    assert ["t8", "t9", "new"] == ids_of(look(sidecar, cursor=second["next"]))


@asynccontextmanager
async def looking(server: RedisServer) -> AsyncIterator[Pending]:
    """Run a reader under the sidecar's user."""
    async with watching(acl.as_user(server.url)) as watched:
        await eventually_async(partial(_has_been_read, watched))
        yield Pending(watched.client, watched.watcher, Capture((), 10, ()))


async def _has_been_read(watched: Watched) -> bool:
    return watched.watcher.depths is not None and watched.watcher.knows_bindings


@pytest.mark.parametrize("seed", range(10))
async def test_nothing_is_left_out(
    redis_server: RedisServer, redis_client: Redis, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever is taken or sent between two slices, a message that was there all the time is in a page."""
    chance = random.Random(seed)
    monkeypatch.setattr(waiting_lists, "SLICE_MESSAGES", 3)
    redis_client.lpush("celery", *(message(f"t{number}") for number in range(60)))
    async with looking(redis_server) as pending:
        read, moves = pending._lists._read, iter(range(20))

        async def read_while_it_moves(key: bytes, index: int, count: int) -> list[bytes]:
            messages = await read(key, index, count)
            if (number := next(moves, None)) is not None:
                redis_client.rpop("celery", chance.randint(0, 2))
                redis_client.lpush("celery", message(f"new{number}"))
            return messages

        monkeypatch.setattr(pending._lists, "_read", read_while_it_moves)
        page = json.loads(await pending.page("celery", 4, None))
        found = ids_of(page)
        while page["next"]:
            page = json.loads(await pending.page("celery", 4, page["next"]))
            found += ids_of(page)
    left = {json.loads(each)["headers"]["id"] for each in redis_client.lrange("celery", 0, -1)}
    assert set() == left - set(found)
    assert len(found) == len(set(found))


def test_cursors(sidecar: Sidecar, redis_client: Redis) -> None:
    """A cursor names a list of that queue, or it was never given out."""
    redis_client.lpush("celery", *(message(name) for name in "abc"))
    redis_client.lpush("secrets", "not a queue")
    for place in (
        ("secrets", 0, "x"),
        ("celery", -1, "x"),
        ("celery", 2**60, "x"),
        ("celery", "1", "x"),
        [],
        5,
    ):
        cursor = write_cursor(place)  # type: ignore[arg-type]
        details = problem(sidecar, "/pending", queue="celery", cursor=cursor)
        assert (400, "cursor") == (details["status"], details["parameter"])
    gone = write_cursor(("celery", 2, "0" * 18))
    assert ["a", "b", "c"] == ids_of(look(sidecar, cursor=gone))


def test_wrong_questions(sidecar: Sidecar) -> None:
    """A parameter that is wrong or missing is a 400 with its name; a queue that nobody knows a 404."""
    for name, parameters in (
        ("queue", {}),
        ("queue", {"queue": ""}),
        ("queue", {"queue": ["celery", "other"]}),
        ("queue", {"queue": "x" * 1001}),
        ("limit", {"queue": "celery", "limit": 0}),
        ("limit", {"queue": "celery", "limit": 1001}),
        ("cursor", {"queue": "celery", "cursor": "x"}),
        ("status", {"queue": "celery", "status": "active"}),
    ):
        details = problem(sidecar, "/pending", **parameters)
        assert (400, name) == (details["status"], details["parameter"]), parameters
    unknown = problem(sidecar, "/pending", queue="nobody's")
    assert (404, "queue") == (unknown["status"], unknown["parameter"])
    assert "nobody's" in unknown["detail"]
    assert {"queue": "celery", "tasks": [], "next": None} == look(sidecar)


def test_a_key_that_is_no_list(sidecar: Sidecar, redis_client: Redis) -> None:
    """Where something else stands in a list's place no messages wait."""
    redis_client.set("celery", "x")
    redis_client.lpush("celery\x06\x163", message("a"))
    assert ["a"] == ids_of(look(sidecar))


def test_other_brokers(redis_server: RedisServer, start_sidecar: StartSidecar) -> None:
    """Of a broker that is not Redis the messages cannot be seen, and that is said."""
    with writing(redis_server.url) as sender:
        sender.send(worker(queues=["rabbits"], broker={"transport": "amqp"}), task("a", "active"))
        for sidecar in (start_sidecar(), start_sidecar(env={"SIDECAR_BROKER_URL": "amqp://127.0.0.1"})):
            eventually(lambda sidecar=sidecar: sidecar.get("/readyz").status_code == 200)
            details = problem(sidecar, "/pending", queue="rabbits")
            assert 501 == details["status"]
            assert "broker" in details["detail"]
            assert 404 == problem(sidecar, "/tasks/nobody")["status"]


def test_the_broker_is_away(
    start_redis: StartRedis, start_sidecar: StartSidecar, redis_server: RedisServer
) -> None:
    """While the broker cannot be read nobody is told that nothing waits."""
    broker = start_redis()
    sidecar = start_sidecar(env={"SIDECAR_BROKER_URL": acl.as_user(broker.url)})
    eventually(lambda: sidecar.get(f"{QUEUE}/pending", params={"queue": "celery"}).status_code == 200)
    broker.stop()
    for path in ("/pending?queue=celery", "/tasks/nobody"):
        answer = sidecar.get(QUEUE + path)
        assert (503, "2") == (answer.status_code, answer.headers["retry-after"])
    broker.start()
    eventually(lambda: sidecar.get(f"{QUEUE}/pending", params={"queue": "celery"}).status_code == 200)
    assert "Traceback" not in sidecar.output


def test_one_task(sidecar: Sidecar, celery_app: Celery, start_worker: StartWorker, gate: Gate) -> None:
    """A task that no worker has is found in its queue, with its position, until a worker takes it."""
    celery_app.send_task("tests.add", (1, 2), queue="high")
    sent = celery_app.send_task("tests.wait_for_file", (str(gate),), {}, queue="high")
    eventually(lambda: sidecar.get(f"{QUEUE}/tasks/{sent.id}").status_code == 200)
    alone = sidecar.get(f"{QUEUE}/tasks/{sent.id}").json()
    expected = {
        "type": "task_status",
        "task_id": sent.id,
        "task_name": "tests.wait_for_file",
        "status": "pending",
    }
    assert alone == alone | expected | {
        "position": 1,
        "queue": "high",
        "timeline": [],
        "args": f"('{gate}',)",
    }
    assert alone["message"]
    start_worker(arguments=("-Q", "high"))
    eventually(lambda: sidecar.get(f"{QUEUE}/tasks/{sent.id}").json()["status"] == "active")
    gate.open()


async def test_how_far_a_task_is_looked_for(
    redis_server: RedisServer, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among so many messages of each queue and of all queues a task is found, and behind them not."""
    monkeypatch.setattr(pending_module, "FIND_MESSAGES", 100)
    redis_client.sadd("_kombu.binding.zoo", "\x06\x16\x06\x16zoo")
    for queue in ("celery", "zoo"):
        redis_client.lpush(queue, *(message(f"{queue}{number}") for number in range(101)))
    async with looking(redis_server) as pending:
        found = await pending.record("zoo99")
        assert found is not None
        assert ("zoo", 99, "zoo99") == (found["queue"], found["position"], found["task_id"])
        for unknown in ("zoo100", "celery100", "zoo", "nobody", ""):
            assert await pending.record(unknown) is None
        monkeypatch.setattr(pending_module, "FIND_ALL_MESSAGES", 100)
        assert await pending.record("celery99") is not None
        assert await pending.record("zoo0") is None


async def test_many_are_looked_for_together(redis_server: RedisServer, redis_client: Redis) -> None:
    """Who watches one task each does not read the list once for each of them."""
    redis_client.lpush("celery", *(message(f"t{number}") for number in range(500)))
    found: dict[str, int | None] = {}

    async def look(pending: Pending, number: int) -> None:
        record = await pending.record(f"t{number}")
        found[f"t{number}"] = None if record is None else record["position"]

    async with looking(redis_server) as pending:
        before = calls(redis_client, "lrange")
        async with anyio.create_task_group() as tasks:
            for number in range(600):
                tasks.start_soon(look, pending, number)
    assert {f"t{number}": number if number < 500 else None for number in range(600)} == found
    assert calls(redis_client, "lrange") - before <= 100


def test_facts_default_to_kombu() -> None:
    """Where no worker says how lists are named, they are named as kombu does."""
    assert b"celery\x06\x163" == BrokerFacts().key("celery", 3)
