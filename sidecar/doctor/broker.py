"""Looks at Celery's broker: of which kind it is, whether it answers, and which queues nobody consumes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from celery_plugin.askers import AmqpAsker
from celery_plugin.contract import JSON
from sidecar.depths import BINDING, DEFAULT_QUEUE, BrokerFacts, carries_tasks
from sidecar.doctor.findings import ERROR, NOTE, OK, WARNING, Findings, listed
from sidecar.doctor.rights import check_broker
from sidecar.store import Store, StoreUnavailable
from sidecar.urls import is_amqp

CONNECT_SECONDS: Final = 5.0
# What workers measured before is not known any more.
FRESH_SECONDS: Final = 30.0
# A database with more keys than this is not searched for queues to the end.
SCAN_MAX_KEYS: Final = 1_000_000


async def check_redis_broker(
    client: Redis, where: str, alive: list[JSON], extra: tuple[str, ...], findings: Findings
) -> None:
    """Look at a broker that is a Redis."""
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        findings.add(ERROR, "broker", f"{where} does not answer: {error}", "see SIDECAR_BROKER_URL")
        return
    findings.add(OK, "broker", f"a Redis at {where}, which answers")
    _check_kind(alive, True, findings)
    await check_broker(client, DEFAULT_QUEUE, findings)
    all_facts = {_facts(each) for each in alive} or {BrokerFacts()}
    try:
        bound = await _bound_queues(client, all_facts)
        depths = await _depths(client, {DEFAULT_QUEUE, *extra, *_consumed(alive), *bound}, all_facts)
    except (RedisError, OSError) as error:
        findings.add(ERROR, "queues", f"they cannot be read: {error}")
        return
    tell_queues(depths, alive, findings)


async def check_other_broker(
    url: str, where: str, alive: list[JSON], extra: tuple[str, ...], store: Store, findings: Findings
) -> None:
    """Look at a broker of any other kind."""
    told: dict[str, bytes] = {}
    is_known = False
    try:
        told = await store.all_depths()
        is_known = True
    except StoreUnavailable as error:
        findings.add(ERROR, "queues", f"they cannot be read: {error}")
    asked = await _ask(url, where, {*extra, *_consumed(alive), *told} or {DEFAULT_QUEUE}, findings)
    _check_kind(alive, False, findings)
    measured = {name: depth for name, text in told.items() if (depth := _measured(text)) is not None}
    depths = measured | asked
    if is_known and alive and not depths:
        findings.add(
            NOTE,
            "queues",
            "no worker has measured how many tasks wait",
            "this kind of broker may not tell it",
        )
    tell_queues(depths, alive, findings)


async def _ask(url: str, where: str, queues: set[str], findings: Findings) -> dict[str, int]:
    """Say whether the broker answers; return what it says of these queues, if it is one that can be asked."""
    try:
        asked = await asyncio.to_thread(_asked, url, queues)
    except ImportError:
        findings.add(NOTE, "broker", f"{where} cannot be asked from here: Celery is not installed")
        return {}
    if isinstance(asked, str):
        findings.add(ERROR, "broker", f"{where} does not answer: {asked}", "see SIDECAR_BROKER_URL")
        return {}
    findings.add(OK, "broker", f"{where} answers")
    return asked


def tell_queues(depths: Mapping[str, int], alive: list[JSON], findings: Findings) -> None:
    """Say which queues have tasks and nobody who takes them."""
    consumed = _consumed(alive)
    left = [f"{name} ({depth})" for name, depth in depths.items() if depth and name not in consumed]
    if left:
        findings.add(
            WARNING,
            "queues",
            f"tasks wait and no worker with the plugin consumes: {listed(left)}",
            "start a worker with -Q, or look for a misspelt queue; a worker without the plugin is not seen",
        )
    waiting = sum(depths.values())
    findings.add(
        OK, "queues", f"{waiting} tasks wait in {len(depths)} queues" if depths else "no queue is known"
    )


def _check_kind(alive: list[JSON], is_redis: bool, findings: Findings) -> None:
    kinds = {str((each.get("broker") or {}).get("transport")) for each in alive if each.get("broker")}
    other = {kind for kind in kinds if (kind == "redis") != is_redis}
    if other:
        findings.add(
            WARNING,
            "broker",
            f"workers use another kind of broker: {listed(other)}",
            "SIDECAR_BROKER_URL must be the broker_url of the workers",
        )


def _consumed(alive: list[JSON]) -> set[str]:
    return {str(name) for each in alive for name in each.get("queues") or ()}


def _facts(worker: JSON) -> BrokerFacts:
    told = worker.get("broker")
    try:
        facts: Any = told if isinstance(told, dict) else {}
        steps = tuple(int(step) for step in facts.get("priority_steps", BrokerFacts.priority_steps))
        return BrokerFacts(
            str(facts.get("sep", BrokerFacts.sep)), steps, str(facts.get("global_keyprefix", ""))
        )
    except (TypeError, ValueError):
        return BrokerFacts()


async def _bound_queues(client: Any, all_facts: set[BrokerFacts]) -> set[str]:
    names: set[str] = set()
    cursor, seen = 0, 0
    while seen < SCAN_MAX_KEYS:
        cursor, keys = await client.scan(cursor, match=f"*{BINDING}*", count=1000)
        seen += 1000
        for key in keys:
            text = key.decode("utf-8", "replace")
            for facts in all_facts:
                start = facts.global_keyprefix + BINDING
                if text.startswith(start) and carries_tasks(text.removeprefix(start)):
                    names |= await _members(client, key, facts.sep)
        if not cursor:
            break
    return {name for name in names if name and carries_tasks(name)}


async def _members(client: Any, key: bytes, sep: str) -> set[str]:
    members = await client.smembers(key)
    return {member.decode("utf-8", "replace").rsplit(sep, 1)[-1] for member in members}


async def _depths(client: Any, queues: set[str], all_facts: set[BrokerFacts]) -> dict[str, int]:
    depths = {}
    for queue in sorted(queues):
        keys = {facts.key(queue, step) for facts in all_facts for step in facts.priority_steps}
        depths[queue] = sum([int(await client.llen(key)) for key in sorted(keys)])
    return depths


def _measured(depth: bytes) -> int | None:
    try:
        told: Any = json.loads(depth)
        return int(told["pending"]) if time.time() - told["measured_at"] < FRESH_SECONDS else None
    except (ValueError, TypeError, KeyError):
        return None


def _asked(url: str, queues: set[str]) -> dict[str, int] | str:
    """Ask the broker, as far as it can be; say why it does not answer."""
    from kombu.connection import Connection

    with Connection(url, connect_timeout=CONNECT_SECONDS, heartbeat=0) as connection:
        try:
            connection.connect()
            return _depths_of(AmqpAsker(lambda: queues, connection)) if is_amqp(url) else {}
        except Exception as error:
            # Each transport has errors of its own; their texts name host and port, some the whole URL.
            return type(error).__name__ if connection.password else str(error) or type(error).__name__


def _depths_of(asker: AmqpAsker) -> dict[str, int]:
    found = {queue: asker.pending(queue) for queue in asker.queues()}
    return {queue: depth for queue, depth in found.items() if depth is not None}
