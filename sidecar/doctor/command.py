"""Runs all the checks and prints what was found."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from celery_plugin.redis_servers import is_cluster
from sidecar.doctor.findings import CODES, ERROR, NOTE, OK, WARNING, Findings
from sidecar.settings import BadSettings, load_only
from sidecar.terminal.asking import STATUS, NoAnswer, ask
from sidecar.terminal.output import say
from sidecar.terminal.plain import dumped
from sidecar.terminal.screen import has_colours
from sidecar.terminal.target import URL, Target, add_target_flags, read_target
from sidecar.urls import masked_url, redis_url_of_broker

READY: Final = "/readyz"
_SETTINGS: Final = ("redis_url", "broker_url", "prefix", "queues")
_BROKER_URL: Final = "SIDECAR_BROKER_URL"
_COLOURS: Final = {OK: "32", NOTE: "36", WARNING: "33", ERROR: "31"}
# Before this redis-py cannot speak as the sidecar does.
_REDIS_PY: Final = (5, 0)


@dataclass(frozen=True)
class Places:
    """What is looked at."""

    redis_url: str
    broker_url: str
    prefix: str
    queues: tuple[str, ...]
    # None: nobody has said where a sidecar is.
    sidecar: Target | None
    # Look at it as a worker, which writes, not as the sidecar.
    as_worker: bool


def add_doctor_flags(parser: argparse.ArgumentParser) -> None:
    """Describe the flags; those of places are the settings of `serve`."""
    parser.add_argument("--redis-url", help="the Redis of the state (SIDECAR_REDIS_URL)")
    parser.add_argument("--broker-url", help="Celery's broker (SIDECAR_BROKER_URL; default the same)")
    parser.add_argument("--prefix", help="first part of the keys (SIDECAR_PREFIX; default queue)")
    parser.add_argument("--queues", help="queues to look at besides those known (SIDECAR_QUEUES)")
    parser.add_argument(
        "--as-worker", action="store_true", help="try the rights of a worker's plugin, not the sidecar's"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_target_flags(parser)


def doctor(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Look at everything and print it; raises BadSettings, and ModuleNotFoundError with an old redis-py."""
    places = _read_places(arguments, environ)
    findings = Findings()
    _require_redis_py()
    asyncio.run(_look(places, findings))
    _check_sidecar(places.sidecar, findings)
    _print(findings, arguments.json, environ)
    return CODES[findings.worst]


def _read_places(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Places:
    flags = {name: value for name in _SETTINGS if (value := getattr(arguments, name)) is not None}
    mistakes: list[str] = []
    values: dict[str, Any] = {}
    target = None
    try:
        values = load_only(_SETTINGS, environ, flags)
    except BadSettings as error:
        mistakes += error.mistakes
    try:
        target = read_target(arguments, environ) if arguments.url or environ.get(URL, "").strip() else None
    except BadSettings as error:
        mistakes += error.mistakes
    if mistakes:
        raise BadSettings(mistakes)
    if "broker_url" not in flags and not environ.get(_BROKER_URL, "").strip():
        values["broker_url"] = values["redis_url"]
    return Places(**values, sidecar=target, as_worker=arguments.as_worker)


def _require_redis_py() -> None:
    import redis

    if tuple(map(int, redis.VERSION[:2])) < _REDIS_PY:
        raise ModuleNotFoundError("redis-py 5.0 or later", name="redis-py 5.0 or later")


async def _look(places: Places, findings: Findings) -> None:
    from celery_plugin.contract import Keys
    from sidecar.connections import make_client
    from sidecar.doctor.redis_server import check_memory, check_server
    from sidecar.doctor.rights import check_reading, check_writing
    from sidecar.doctor.workers import check_workers
    from sidecar.store import Store

    client = make_client(places.redis_url, protocol=2, key=Keys(places.prefix).log)
    async with aclosing(client):
        database = int(client.connection_pool.connection_kwargs.get("db") or 0)
        keys = Keys(places.prefix, database)
        if not await check_server(client, masked_url(places.redis_url), places.prefix, findings):
            return
        await (check_writing if places.as_worker else check_reading)(client, keys, findings)
        await check_memory(client, findings)
        store = Store(client, keys)
        alive = await check_workers(store, findings)
        await _check_broker(places, alive, store, findings)


async def _check_broker(places: Places, alive: list[Any], store: Any, findings: Findings) -> None:
    from sidecar.connections import make_client
    from sidecar.doctor.broker import check_other_broker, check_redis_broker

    if is_cluster(places.broker_url):
        findings.add(
            NOTE,
            "broker",
            "not looked at: nobody has said where it is, and Celery has none in a Cluster",
            "--broker-url, or SIDECAR_BROKER_URL",
        )
        return
    where, redis_url = masked_url(places.broker_url), redis_url_of_broker(places.broker_url)
    if redis_url is None:
        await check_other_broker(places.broker_url, where, alive, places.queues, store, findings)
        return
    client = make_client(redis_url, protocol=2)
    async with aclosing(client):
        await check_redis_broker(client, where, alive, places.queues, findings)


def _check_sidecar(target: Target | None, findings: Findings) -> None:
    if target is None:
        findings.add(NOTE, "sidecar", "not looked at: nobody has said where it is", "--url, or SIDECAR_URL")
        return
    from sidecar.doctor.redis_server import tell_skew

    try:
        ask(target, READY)
        before = time.time()
        told = ask(target, STATUS)
    except NoAnswer as error:
        findings.add(ERROR, "sidecar", f"{target.url}: {error}", "is it running, and may this token read?")
        return
    seen = told.get("workers_online")
    workers = "" if seen is None else f"; it sees {seen} workers"
    findings.add(OK, "sidecar", f"{target.url} is ready{workers}")
    if isinstance(at := told.get("server_time"), int | float):
        tell_skew(findings, "clock", "the sidecar's clock", at - (before + time.time()) / 2)


def _print(findings: Findings, as_json: bool, environ: Mapping[str, str]) -> None:
    if as_json:
        say(dumped(findings.as_json()))
        return
    paint = _painter(sys.stdout.isatty() and has_colours(environ))
    for each in findings.all:
        say(f"{paint(each.level)} {each.about:<8} {each.what}")
        if each.advice:
            say(f"{'':<16} → {each.advice}")


def _painter(colours: bool) -> Callable[[str], str]:
    if not colours:
        return lambda level: f"{level:<7}"
    return lambda level: f"\x1b[{_COLOURS[level]}m{level:<7}\x1b[0m"
