"""The promise of a batch that Redis breaks off: nothing of it counts, and sent again it counts once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from celery_plugin.contract import Keys
from celery_plugin.operations import Operation, Other
from celery_plugin.settings import Settings
from deploy.demo.redis_server import RedisServer
from tests.support.batches import Sender, Stored, step, worker_step

KEYS = Keys()
SOURCE = files("celery_plugin").joinpath("record.lua").read_text()
CALLED = set(re.findall(r"\bcall\('(\w+)'", SOURCE))
# What is left out where it cannot be written.
BY_PRODUCTS = set(re.findall(r"attempt\('(\w+)'", SOURCE)) - CALLED | {"HINCRBY", "HINCRBYFLOAT"}
# In the words of Redis 7.0, and of others.
NO_RIGHT = "can't run this command|no permissions"
# Called only for an epoch that begins.
ONLY_FOR_AN_EPOCH = {"DEL"}
# What is the same however often it is written, and no event tells of yet.
NO_STORY = {KEYS.progress, KEYS.depths}
ESSENTIAL_KEYS = (
    *(KEYS.log, KEYS.runs, KEYS.active_tasks, KEYS.waiting_tasks, KEYS.finished_tasks, KEYS.finished),
    *(KEYS.workers, KEYS.leases, KEYS.events, KEYS.progress, KEYS.timelines),
)


@pytest.fixture
def sender(client: Redis, redis_server: RedisServer) -> Iterator[Sender]:
    """A worker under a user of its own, which has one finished task and one of each other kind."""
    client.execute_command("ACL", "SETUSER", "worker", "on", ">secret", "~*", "&*", "+@all")
    with Redis.from_url(redis_server.url_db(0, "worker", "secret")) as its_client:
        sender = Sender(its_client, settings=Settings(history_max=1))
        sender.begin()
        sender.send(*_life("over", "one/1", "completed"), step("ends", "active", "one/2"))
        sender.send(step("fails", "active", "one/3"), step("starts", "reserved", "one/4"))
        sender.send(Other("", ("progress", '{"message":"half"}', "ends")))
        yield sender


def _life(task_id: str, run: str, end: str) -> list[Operation]:
    return [step(task_id, status, run) for status in ("reserved", "active", end)]


def _batch() -> list[Operation | Other]:
    return [
        worker_step("one", status="stopping"),
        step("ends", "completed", "one/2"),
        step("fails", "failed", "one/3"),
        step("starts", "active", "one/4"),
        *_life("short", "one/5", "completed"),
        Other("", ("progress", '{"message":"begun"}', "starts")),
        Other("", ("depth", '{"pending":1}', "celery")),
        Other("", ("count", "2", '["t","other"]', '["t","a"]')),
        Other("", ("count", "0.5", '["s","other"]', '["s","a"]')),
    ]


def _assert_told_once(stored: Stored, before: int) -> None:
    """The batch has been applied, and each of its events told, once."""
    told = [(event.get("task_id"), event["status"]) for event in stored.events if event["offset"] > before]
    starts = ("starts", "active")
    short = [("short", status) for status in ("reserved", "active", "completed")]
    assert [(None, "stopping"), ("ends", "completed"), ("fails", "failed"), starts, *short, starts] == told
    assert ({"starts"}, {}) == (set(stored.active), stored.waiting)
    assert ("begun", ["starts"]) == (stored.active["starts"]["message"], list(stored.progress))
    assert ["short"] == stored.history == list(stored.finished)
    assert ["reserved", "active"] == stored.timeline("starts")
    assert {"starts": ["one/4"]} == stored.runs
    offsets = [offset for offset, _, _ in stored.entries]
    assert list(range(offsets[0], stored.offset + 1)) == offsets


def _assert_counted_once(stored: Stored) -> None:
    counters = stored.counters
    assert (2, 0.5) == (counters[("t", "a")], counters[("s", "a")])
    assert [1] == [number for (name, *_), number in counters.items() if name == "failed"]


def _assert_refused(sender: Sender, stored: Stored, ops: list[Operation | Other], error: str) -> None:
    """However often it is sent, nothing changes."""
    before = _told(stored)
    sender.number += 1
    for _ in range(3):
        with pytest.raises(ResponseError, match=error):
            sender.send(*ops, number=sender.number)
    assert before == _told(stored)


def _told(stored: Stored) -> dict[str, Any]:
    return {key: value for key, value in stored.raw() if key not in NO_STORY}


@pytest.mark.parametrize("command", sorted(CALLED - BY_PRODUCTS - ONLY_FOR_AN_EPOCH))
def test_a_right_that_is_missing(client: Redis, sender: Sender, stored: Stored, command: str) -> None:
    """Whichever command of the script the worker's user may not call, nothing is half done."""
    ops, offset = _batch(), stored.offset
    client.execute_command("ACL", "SETUSER", "worker", f"-{command.lower()}")
    _assert_refused(sender, stored, ops, NO_RIGHT)
    client.execute_command("ACL", "SETUSER", "worker", f"+{command.lower()}")
    assert "applied" == sender.send(*ops, number=sender.number).verdict
    _assert_told_once(stored, offset)
    _assert_counted_once(stored)


@pytest.mark.parametrize("key", ESSENTIAL_KEYS)
def test_a_key_of_another_type(client: Redis, sender: Sender, stored: Stored, key: str) -> None:
    """Somebody else's string under one of the names: nothing is half done, and it can be put right."""
    ops, offset = _batch(), stored.offset
    client.rename(key, "aside")
    client.set(key, "somebody else's")
    _assert_refused(sender, stored, ops, "WRONGTYPE")
    client.rename("aside", key)
    assert "applied" == sender.send(*ops, number=sender.number).verdict
    _assert_told_once(stored, offset)
    _assert_counted_once(stored)


def test_a_redis_that_is_full(client: Redis, sender: Sender, stored: Stored) -> None:
    """Without a byte to spare the whole batch is refused, with one all of it is applied."""
    ops, offset = _batch(), stored.offset
    client.config_set("maxmemory", 1)
    _assert_refused(sender, stored, ops, "(?i)maxmemory")
    client.config_set("maxmemory", 0)
    assert "applied" == sender.send(*ops, number=sender.number).verdict
    _assert_told_once(stored, offset)
    _assert_counted_once(stored)


@pytest.mark.parametrize("command", sorted(BY_PRODUCTS))
def test_a_by_product_that_is_not_allowed(
    client: Redis, sender: Sender, stored: Stored, command: str
) -> None:
    """The state is written all the same, once, and the answer says what is missing."""
    offset = stored.offset
    client.execute_command("ACL", "SETUSER", "worker", f"-{command.lower()}")
    answer = sender.send(*_batch())
    assert "applied" == answer.verdict
    assert re.search(NO_RIGHT, answer.trouble or "")
    _assert_told_once(stored, offset)
    client.execute_command("ACL", "SETUSER", "worker", f"+{command.lower()}")
    assert sender.send(*_batch()).trouble is None


def test_a_channel_that_is_not_allowed(client: Redis, sender: Sender, stored: Stored) -> None:
    """As a user of Redis 7 has none unless some are named: the state and the log are right."""
    offset = stored.offset
    client.execute_command("ACL", "SETUSER", "worker", "resetchannels")
    answer = sender.send(*_batch())
    assert ("applied", True) == (answer.verdict, "channel" in (answer.trouble or ""))
    _assert_told_once(stored, offset)
    _assert_counted_once(stored)


@pytest.mark.parametrize("key", [KEYS.counters, KEYS.depths])
def test_a_by_product_of_another_type(client: Redis, sender: Sender, stored: Stored, key: str) -> None:
    """Nor does a key of another type hold the state up, or a counter that is no number."""
    offset = stored.offset
    client.set(key, "somebody else's")
    answer = sender.send(*_batch())
    assert ("applied", True) == (answer.verdict, "WRONGTYPE" in (answer.trouble or ""))
    client.delete(key)
    _assert_told_once(stored, offset)


def test_a_counter_that_is_no_number(client: Redis, sender: Sender, stored: Stored) -> None:
    """It holds up neither the state nor the other counters."""
    offset = stored.offset
    client.hset(KEYS.counters, '["t","a"]', "many")
    answer = sender.send(*_batch())
    assert ("applied", True) == (answer.verdict, "not an integer" in (answer.trouble or ""))
    client.hdel(KEYS.counters, '["t","a"]')
    assert 0.5 == stored.counters[("s", "a")]
    _assert_told_once(stored, offset)


def test_an_entry_beyond_the_last_offset(client: Redis, sender: Sender, stored: Stored) -> None:
    """Somebody else's XADD would have Redis refuse every later one: a new epoch begins behind it."""
    epoch, beyond = stored.log["epoch"], stored.offset + 10
    fields: Any = {"event": "{}", "extra": "{}"}
    client.xadd(KEYS.events, fields, id=f"{beyond}-0")
    answer = sender.send(*_batch())
    assert epoch != answer.position.epoch
    assert epoch != stored.log["epoch"]
    _assert_told_once(stored, beyond)
