"""Who several servers are, what they are asked, and what is made of their answers; without a connection."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import AskError, MovedError, ResponseError

from celery_plugin.contract import is_in_one_slot
from celery_plugin.redis_servers import (
    Address,
    Away,
    Cluster,
    Moved,
    NotFound,
    Refused,
    Search,
    Sentinels,
    read_moved,
    read_refusal,
    read_servers,
    url_of_sentinels,
)
from celery_plugin.redis_urls import BadRedisUrl

ONE, TWO, THREE = ("one", 1), ("two", 2), ("three", 3)
SENTINELS = Sentinels((ONE, TWO), "mymaster")
CLUSTER = Cluster((ONE, TWO), "{queue}:log")

Answers = dict[tuple[Address, str], Any]


def play(search: Search, answers: Answers) -> tuple[Address, Address]:
    """Answer each question by whom it asks and its first word; whoever is not named is away."""
    question = next(search)
    try:
        while True:
            question = search.send(answers.get((question.address, question.command[0]), Away("away")))
    except StopIteration as found:
        return found.value.address, found.value.by


def test_sentinel_url() -> None:
    """Login, database and options go to the server, what begins with sentinel_ to the Sentinels."""
    url = "sentinel://u:p%40@one:1/5;two/5?master_name=mymaster&sentinel_password=x%2F&sentinel_username=s"
    expected = Sentinels((ONE, ("two", 26379)), "mymaster", {"username": "s", "password": "x/"})
    assert ("redis://u:p%40@one:1/5", expected) == read_servers(url)


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://one:1?master_name=m",
        "sentinel://u:p%40@one:1/5;sentinel://two:2/5?master_name=m&sentinel_password=x%2F&sentinel_username=s",
        "sentinel://one:1;sentinel://[::1]:2?master_name=m&ssl=true",
        "sentinel://one:1?master_name=m&ssl=true&sentinel_ssl=false&sentinel_password=x",
    ],
)
def test_and_back(url: str) -> None:
    """What was read can be written again."""
    plain, sentinels = read_servers(url)
    assert isinstance(sentinels, Sentinels)
    assert (plain, sentinels) == read_servers(url_of_sentinels(sentinels, plain, {}))


def test_the_first_one_counts() -> None:
    """Celery takes the database of the first; one that stands at the end alone would mean another."""
    with pytest.raises(BadRedisUrl, match="several databases"):
        read_servers("sentinel://one:1;sentinel://two/5?master_name=mymaster")


@pytest.mark.parametrize(
    ("expected", "own"),
    [
        ({"ssl": True, "ssl_ca_certs": "/dev/null"}, "ssl=true&ssl_ca_certs=%2Fdev%2Fnull"),
        ({}, "ssl=true&ssl_ca_certs=/dev/null&sentinel_ssl=false"),
    ],
)
def test_encrypted_sentinels(expected: dict[str, Any], own: str) -> None:
    """Sentinels are reached as the server is, unless it is said that they are not."""
    url, sentinels = read_servers(f"sentinel://one?master_name=m&{own}")
    assert "rediss://one?ssl_ca_certs=%2Fdev%2Fnull" == url
    assert isinstance(sentinels, Sentinels)
    assert expected == sentinels.options


@pytest.mark.parametrize(("expected", "scheme"), [("redis", "redis+cluster"), ("rediss", "rediss+cluster")])
def test_cluster_url(expected: str, scheme: str) -> None:
    """Any node may be named, and the first one's login is everyone's."""
    url, cluster = read_servers(f"{scheme}://:x@one:1;{scheme}://two:2/0", "key")
    assert (f"{expected}://:x@one:1", Cluster((ONE, TWO), "key")) == (url, cluster)


def test_one_server() -> None:
    """Any other URL stays as it is."""
    assert ("redis://one:1/3", None) == read_servers("redis://one:1/3")


NAMED = [b"three", b"3"]
MASTER: Answers = {(THREE, "ROLE"): [b"master", 0, []]}
OLD: Answers = {(ONE, "SENTINEL"): [b"four", b"4"], (("four", 4), "ROLE"): [b"slave"]}


@pytest.mark.parametrize(
    ("expected", "answers"),
    [
        ((THREE, ONE), {(ONE, "SENTINEL"): NAMED, **MASTER}),
        ((THREE, TWO), {(TWO, "SENTINEL"): ["three", "3"], **MASTER}),
        ((THREE, TWO), {(ONE, "SENTINEL"): None, (TWO, "SENTINEL"): NAMED, **MASTER}),
        ((THREE, TWO), {(ONE, "SENTINEL"): Refused("no"), (TWO, "SENTINEL"): NAMED, **MASTER}),
        # One that was cut off names the master of old.
        ((THREE, TWO), {**OLD, (TWO, "SENTINEL"): NAMED, **MASTER}),
        ((THREE, ONE), {(ONE, "SENTINEL"): NAMED, (THREE, "ROLE"): Refused("NOPERM")}),
    ],
)
def test_the_master(expected: tuple[Address, Address], answers: Answers) -> None:
    """The first Sentinel that names a master that is one counts."""
    assert expected == play(SENTINELS.search(), answers)


def test_no_master() -> None:
    """What each one said is told, once, and nothing of a login."""
    answers: Answers = {(ONE, "SENTINEL"): NAMED, (TWO, "SENTINEL"): None, (THREE, "ROLE"): ["slave"]}
    with pytest.raises(NotFound) as none:
        play(Sentinels((ONE, TWO, ("six", 6)), "m", {"password": "geheim"}).search(), answers)
    assert (
        "no Sentinel names a master that answers: one:1: it names three:3, which is a replica; "
        "two:2: it knows no m; six:6: away"
    ) == str(none.value)


@pytest.mark.parametrize(
    ("expected", "answers"),
    [
        (ONE, {(ONE, "HMGET"): [None]}),
        (THREE, {(ONE, "HMGET"): Moved("three", 3), (THREE, "HMGET"): [b"epoch"]}),
        (TWO, {(TWO, "HMGET"): [b"epoch"]}),
        (THREE, {(TWO, "HMGET"): Moved("three", 3), (THREE, "HMGET"): [b"epoch"]}),
        # The node that failed is still named by one, but not by the other.
        (TWO, {(ONE, "HMGET"): Moved("three", 3), (TWO, "HMGET"): [b"epoch"]}),
        (TWO, {(ONE, "HMGET"): Refused("CLUSTERDOWN"), (TWO, "HMGET"): [b"epoch"]}),
        # A node that does not know its own name.
        (("one", 9), {(ONE, "HMGET"): Moved("", 9), (("one", 9), "HMGET"): [None]}),
    ],
)
def test_the_node(expected: Address, answers: Answers) -> None:
    """The node that has the keys is found from any that answers."""
    assert (expected, expected) == play(CLUSTER.search(), answers)


def test_no_node() -> None:
    """Nodes that send in a circle are given up, and each one's words are told."""
    circle: Answers = {(ONE, "HMGET"): Moved("two", 2), (TWO, "HMGET"): Moved("one", 1)}
    with pytest.raises(NotFound, match="sends from node to node"):
        play(CLUSTER.search(), circle)
    with pytest.raises(NotFound, match="one:1: away; two:2: CLUSTERDOWN"):
        play(CLUSTER.search(), {(TWO, "HMGET"): Refused("CLUSTERDOWN")})


@pytest.mark.parametrize("servers", [SENTINELS, CLUSTER])
def test_who_knew_last_is_asked_first(servers: Sentinels | Cluster) -> None:
    """The first one of the URL may be the one that is away, and each attempt would wait for it."""
    assert THREE == next(servers.search(THREE)).address


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        (Moved("host", 7000), ResponseError("MOVED 13011 host:7000")),
        (Moved("::1", 7000), MovedError("13011 ::1:7000")),
        (Moved("", 7000), MovedError("13011 :7000")),
        (None, ResponseError("ASK 13011 host:7000")),
        (None, AskError("13011 host:7000")),
        (None, ResponseError("ERR 13011 host:7000")),
    ],
)
def test_moved(expected: Moved | None, error: Exception) -> None:
    """What a node says is read as each redis-py passes it on."""
    assert expected == read_moved(error)


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        (Moved("host", 7000), ResponseError("MOVED 13011 host:7000")),
        (None, ResponseError("ASK 13011 host:7000")),
        (None, AskError("13011 host:7000")),
        (Refused("NOAUTH Authentication required."), ResponseError("NOAUTH Authentication required.")),
    ],
)
def test_refusals(expected: Moved | Refused | None, error: Exception) -> None:
    """Whose key is on its way has the slot; anything else that is no move is a refusal."""
    assert expected == read_refusal(error)


@pytest.mark.parametrize(
    ("expected", "prefix"),
    [
        (True, "{queue}"),
        (True, "a:{b}:c"),
        (True, "{{a}"),
        (False, "queue"),
        (False, "{}"),
        (False, "{}{a}"),
        (False, "{a"),
        (False, "}a{"),
    ],
)
def test_one_slot(expected: bool, prefix: str) -> None:
    """As Redis does it: between the first brace and the next one that closes, if there is anything."""
    assert expected == is_in_one_slot(prefix)
