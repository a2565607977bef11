"""Tries each command that is needed, in a form that changes nothing, and says which one is refused.

``ACL DRYRUN`` would ask for a right of its own, and Redis 6.2 has none.
"""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from celery_plugin.contract import Keys
from sidecar.doctor.findings import ERROR, OK, WARNING, Findings, listed

Command = tuple[Any, ...]
# No script has this digest: the answer is NOSCRIPT where the command is allowed.
_NO_SCRIPT: Final = "0" * 40
_SIDECAR_FILE: Final = "deploy/redis-sidecar.acl has a user with all of them"
_WORKER_FILE: Final = "deploy/redis-worker.acl has a user with all of them"


def sidecar_commands(keys: Keys) -> list[Command]:
    """What the sidecar asks the Redis of the state."""
    return [
        ("HMGET", keys.log, "epoch", "offset"),
        ("HSCAN", keys.active_tasks, 0, "COUNT", 1),
        ("HSCAN", keys.waiting_tasks, 0, "COUNT", 1),
        ("HGET", keys.finished_tasks, ""),
        ("HGET", keys.timelines, ""),
        ("HMGET", keys.counters, ""),
        ("HMGET", keys.depths, ""),
        ("HSCAN", keys.workers, 0, "COUNT", 1),
        ("ZRANGE", keys.leases, 0, 0),
        ("ZRANGE", keys.finished, 0, 0),
        ("XRANGE", keys.events, "-", "+", "COUNT", 1),
        ("TIME",),
    ]


def broker_commands(queue: str) -> list[Command]:
    """What the sidecar asks a Redis broker."""
    return [
        ("LLEN", queue),
        ("LRANGE", queue, 1, 0),
        ("SCAN", 0, "MATCH", "_kombu.binding.nothing", "COUNT", 1),
        ("SMEMBERS", f"_kombu.binding.{queue}"),
    ]


def worker_commands(keys: Keys) -> list[Command]:
    """What a worker's plugin does."""
    hashes = [keys.log, keys.runs, keys.active_tasks, keys.waiting_tasks, keys.finished_tasks]
    hashes += [keys.workers, keys.progress, keys.timelines, keys.counters, keys.depths]
    sets = (keys.finished, keys.leases)
    return [
        ("EVALSHA", _NO_SCRIPT, 0),
        ("EVAL", "return 1", 0),
        ("TIME",),
        ("INFO", "server"),
        *(("HDEL", key, "") for key in hashes),
        *(("HGET", key, "") for key in hashes),
        *(("ZREM", key, "") for key in sets),
        *(("ZRANGE", key, 0, 0) for key in sets),
        ("XREVRANGE", keys.events, "+", "-", "COUNT", 1),
        ("XTRIM", keys.events, "MAXLEN", "~", 10**9),
        ("HSCAN", keys.runs, 0, "COUNT", 1),
    ]


async def check_reading(client: Redis, keys: Keys, findings: Findings) -> None:
    """Try what the sidecar does with the Redis of the state."""
    await _try_all(client, sidecar_commands(keys), "the sidecar's rights", _SIDECAR_FILE, findings)
    await _try_subscribing(client, keys.events_channel, findings)


async def check_writing(client: Redis, keys: Keys, findings: Findings) -> None:
    """Try what a worker's plugin does."""
    await _try_all(client, worker_commands(keys), "the worker's rights", _WORKER_FILE, findings)


async def check_broker(client: Redis, queue: str, findings: Findings) -> None:
    """Try what the sidecar does with a Redis broker."""
    await _try_all(
        client, broker_commands(queue), "the sidecar's rights at the broker", _SIDECAR_FILE, findings
    )
    try:
        async with client.client() as one:
            await one.execute_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "no-such-key")
            await one.execute_command("CLIENT", "TRACKING", "OFF")
    except ResponseError:
        findings.add(
            WARNING,
            "rights",
            "CLIENT TRACKING is refused: queues are read every second, not as they change",
            "+client|tracking for the sidecar's user",
        )
    except (RedisError, OSError) as error:
        findings.add(ERROR, "rights", f"CLIENT TRACKING: {error}")


async def _try_all(client: Any, commands: list[Command], whose: str, file: str, findings: Findings) -> None:
    refused: set[str] = set()
    for command in commands:
        try:
            await client.execute_command(*command)
        except NoPermissionError:
            refused.add(
                f"{command[0]} {command[1]}" if len(command) > 1 and command[0] != "EVAL" else command[0]
            )
        except ResponseError as error:
            _tell_refusal(command, error, findings)
        except (RedisError, OSError) as error:
            findings.add(ERROR, "rights", f"{whose} cannot be tried: {error}")
            return
    if refused:
        findings.add(ERROR, "rights", f"{whose}: refused are {listed(refused)}", file)
    else:
        findings.add(OK, "rights", f"{whose}: all {len(commands)} commands are allowed")


def _tell_refusal(command: Command, error: ResponseError, findings: Findings) -> None:
    text = str(error)
    if text.startswith("WRONGTYPE"):
        findings.add(
            ERROR,
            "keys",
            f"the key {command[1]} is somebody else's",
            "another SIDECAR_PREFIX, for workers and sidecars alike",
        )
    elif "NOSCRIPT" not in text and "No matching script" not in text:
        findings.add(ERROR, "redis", f"{command[0]} is answered with {text}")


async def _try_subscribing(client: Redis, channel: str, findings: Findings) -> None:
    try:
        async with client.pubsub() as listener:
            await listener.subscribe(channel)
            await listener.get_message(timeout=5)
    except NoPermissionError:
        findings.add(
            ERROR,
            "rights",
            f"SUBSCRIBE {channel} is refused",
            f"&{channel} for the sidecar's user (resetchannels)",
        )
    except (RedisError, OSError) as error:
        findings.add(ERROR, "rights", f"SUBSCRIBE {channel}: {error}")
