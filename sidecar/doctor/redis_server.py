"""Looks at the Redis of the state: is it there, does it keep what it is given, is its clock right."""

from __future__ import annotations

import time
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from celery_plugin.contract import is_in_one_slot
from celery_plugin.redis_servers import is_cluster
from sidecar.doctor.findings import ERROR, NOTE, OK, WARNING, Findings

OLDEST: Final = (6, 2)
# Below this a burst of events cuts the sidecar's subscription again and again.
BUFFER_MIN_BYTES: Final = 8 * 1024 * 1024
SKEW_WARN_SECONDS: Final = 1.0
_ASK_MORE: Final = "look with a user that may INFO and CONFIG GET: --redis-url for this once"


async def check_server(client: Any, where: str, prefix: str, findings: Findings) -> bool:
    """Look at the server; tell whether it answers."""
    try:
        hello = _pairs(await client.execute_command("HELLO"))
    except AuthenticationError:
        findings.add(ERROR, "redis", f"{where} refuses user or password", "see SIDECAR_REDIS_URL")
        return False
    except NoPermissionError:
        hello = {}
    except ResponseError as error:
        return _refused(error, where, findings)
    except (RedisError, OSError) as error:
        findings.add(
            ERROR,
            "redis",
            f"{where} does not answer: {_reason(error)}",
            "see SIDECAR_REDIS_URL and the network",
        )
        return False
    _check_hello(hello, where, findings)
    if hello.get("mode") == "cluster" and not _fits_cluster(where, prefix, findings):
        return False
    await _check_clock(client, findings)
    return True


def _refused(error: ResponseError, where: str, findings: Findings) -> bool:
    if str(error).startswith("unknown command"):
        findings.add(ERROR, "redis", f"{where} is older than Redis 6.2", "use Redis 6.2 or later, or Valkey")
    else:
        advice = "give user and password in SIDECAR_REDIS_URL" if "NOAUTH" in str(error) else ""
        findings.add(ERROR, "redis", f"{where} refuses: {error}", advice)
    return False


def _check_hello(hello: dict[str, Any], where: str, findings: Findings) -> None:
    version = str(hello.get("version", "?"))
    findings.add(OK, "redis", f"{hello.get('server', 'Redis')} {version} at {where} answers")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        findings.add(ERROR, "redis", f"version {version} is too old", "use Redis 6.2 or later, or Valkey")
    if hello.get("role") in ("replica", "slave"):
        findings.add(
            ERROR,
            "redis",
            "it is a replica: the workers cannot write there",
            "name the master in SIDECAR_REDIS_URL",
        )


def _fits_cluster(where: str, prefix: str, findings: Findings) -> bool:
    """Tell whether it can be asked further: what lies on other nodes it does not answer."""
    named, in_one_slot = is_cluster(where), is_in_one_slot(prefix)
    if not named:
        advice = "SIDECAR_REDIS_URL=redis+cluster://…, for workers and sidecars alike"
        findings.add(ERROR, "redis", "it is a Redis Cluster, and the URL does not say so", advice)
    if not in_one_slot:
        findings.add(
            ERROR,
            "redis",
            f"it is a cluster, and the prefix {prefix} has no braces: the keys lie in several slots",
            "SIDECAR_PREFIX={queue}, for workers and sidecars alike",
        )
    return named and in_one_slot


async def _check_clock(client: Redis, findings: Findings) -> None:
    try:
        before = time.time()
        seconds, micros = await client.time()
        after = time.time()
    except (RedisError, OSError):
        return  # the rights say so
    ahead = seconds + micros / 1e6 - (before + after) / 2
    tell_skew(findings, "clock", "Redis's clock", ahead, (after - before) / 2)


def tell_skew(findings: Findings, about: str, whose: str, ahead: float, uncertain: float = 0.0) -> None:
    """Say how far a clock is from the one here."""
    if abs(ahead) - uncertain > SKEW_WARN_SECONDS:
        words = f"{whose} is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the one here"
        findings.add(WARNING, about, words, "keep all clocks by NTP: times and durations are shown wrong")
    else:
        findings.add(OK, about, f"{whose} and the one here differ by less than {SKEW_WARN_SECONDS:g} s")


async def check_memory(client: Redis, findings: Findings) -> None:
    """Look at what it does when it is full, after a restart, and with a subscriber that lags."""
    try:
        info = await client.info()
    except (RedisError, OSError):
        findings.add(NOTE, "redis", "memory and persistence cannot be asked for under this user", _ASK_MORE)
        return
    _check_policy(info, findings)
    try:
        found: Any = await client.config_get("*")
    except (RedisError, OSError):
        findings.add(NOTE, "redis", "output buffer limits cannot be asked for under this user", _ASK_MORE)
        found = {}
    config = {_text(name): _text(value) for name, value in found.items()}
    _check_persistence(info, config, findings)
    if limits := config.get("client-output-buffer-limit"):
        _check_buffer(limits, findings)


def _check_policy(info: dict[str, Any], findings: Findings) -> None:
    policy, most = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    if policy.startswith("allkeys"):
        findings.add(
            WARNING if most else NOTE,
            "redis",
            f"maxmemory-policy is {policy}: when it is full it drops keys of the state, and the broker's",
            "maxmemory-policy noeviction",
        )
    elif most and int(info.get("used_memory", 0)) > 0.9 * most:
        findings.add(
            WARNING,
            "redis",
            "more than 90 % of maxmemory are used",
            "raise maxmemory, or SIDECAR_HISTORY_MAX down",
        )
    else:
        findings.add(OK, "redis", f"maxmemory-policy is {policy}")


def _check_persistence(info: dict[str, Any], config: dict[str, str], findings: Findings) -> None:
    if info.get("rdb_last_bgsave_status", "ok") != "ok" or info.get("aof_last_write_status", "ok") != "ok":
        findings.add(
            ERROR,
            "redis",
            "its last save failed: it refuses writes, or will",
            "look into its log; is the disk full?",
        )
    elif not info.get("aof_enabled") and config.get("save") == "":
        findings.add(
            NOTE,
            "redis",
            "it saves nothing: after a restart the workers tell what they have, the history is gone",
            "enough for the state; a broker should save",
        )
    else:
        findings.add(
            OK, "redis", "it saves to disk" if info.get("aof_enabled") or config else "its saves are well"
        )


def _check_buffer(limits: str, findings: Findings) -> None:
    words = limits.split()
    if "pubsub" not in words:
        return
    hard, soft = (int(each) for each in words[words.index("pubsub") + 1 :][:2])
    smallest = min(filter(None, (hard, soft)), default=0)
    if 0 < smallest < BUFFER_MIN_BYTES:
        findings.add(
            WARNING,
            "redis",
            f"client-output-buffer-limit pubsub is {smallest} bytes: a burst cuts the subscription",
            "client-output-buffer-limit pubsub 32mb 8mb 60",
        )
    else:
        findings.add(OK, "redis", "client-output-buffer-limit of pubsub has room for a burst")


def _pairs(answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict):
        return {_text(name): _text(value) for name, value in answer.items()}
    return {_text(name): _text(value) for name, value in zip(answer[::2], answer[1::2], strict=False)}


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _reason(error: Exception) -> str:
    # redis-py names host and port in its own errors, and nothing more.
    return str(error) or type(error).__name__
