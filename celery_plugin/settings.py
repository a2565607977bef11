"""The plugin's settings, from the environment and from ``app.conf``; the environment wins."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from celery_plugin.contract import EXTRA_FIELDS, IN_BRACES, check_prefix, is_in_one_slot
from celery_plugin.redis_servers import is_cluster, names_servers, read_servers
from celery_plugin.redis_urls import (
    REDIS_SCHEMES,
    SOCKET_SCHEME,
    BadRedisUrl,
    check_files,
    join,
    translate,
)


class SettingsError(ValueError):
    """Raised when settings are wrong; holds every mistake, one a line."""


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _count(value: Any) -> int:
    count = int(value)
    if count < 1:
        raise ValueError
    return count


def _redis_url(value: Any) -> str:
    if names_servers(str(value)):
        read_servers(str(value))
        return str(value)
    parts = urlsplit(str(value))
    # Asking for the port raises where it is no number. A # that is not encoded would cut the URL off.
    if parts.scheme not in (*REDIS_SCHEMES, SOCKET_SCHEME) or parts.port == 0 or parts.fragment:
        raise ValueError
    check_files(parts.query)
    return join(translate(parts) if parts.scheme == SOCKET_SCHEME else parts)


def _prefix(value: Any) -> str:
    return check_prefix(str(value))


def _names(value: Any) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else list(value)
    stripped = tuple(str(name).strip() for name in names)
    # A name that holds a blank or a quote is a mistake that would leave a secret in sight.
    if not all(re.fullmatch(r"[\w.*-]+", name) for name in stripped):
        raise ValueError
    return stripped


def _capture(value: Any) -> tuple[str, ...]:
    names = _names(value)
    if names == ("none",):
        return ()
    if not set(names) <= set(EXTRA_FIELDS):
        raise ValueError
    return names


def _setting(default: Any, parse: Callable[[Any], Any], expected: str, help_text: str) -> Any:
    return field(default=default, metadata={"parse": parse, "expected": expected, "help": help_text})


@dataclass(frozen=True)
class Settings:
    """Each field is ``SIDECAR_<NAME>`` in the environment and ``sidecar_<name>`` in ``app.conf``."""

    redis_url: str | None = _setting(
        None,
        _redis_url,
        "redis://, rediss://, unix://, sentinel:// or redis+cluster://",
        "Where the state goes; else the broker, else the result backend",
    )
    prefix: str = _setting(
        "queue", _prefix, "1 to 64 of A-Z a-z 0-9 _ . : - { }", "Start of every key and channel"
    )
    lease_seconds: float = _setting(
        15.0, _seconds, "seconds above 0", "How long a silent worker counts as alive (s)"
    )
    lease_renew_seconds: float = _setting(
        5.0, _seconds, "seconds above 0", "How often the lease is renewed (s)"
    )
    capture: tuple[str, ...] = _setting(
        ("args", "kwargs"),
        _capture,
        "some of args, kwargs, result, traceback, or none",
        "What is shown of a task's values, with commas between, or none",
    )
    capture_max_chars: int = _setting(
        1024, _count, "a number from 1", "How much of each is shown at most (characters)"
    )
    redact: tuple[str, ...] = _setting(
        (), _names, "names with commas between", "More names of secrets, with commas between; may have *"
    )
    log_max: int = _setting(100_000, _count, "a number from 1", "Events kept for viewers that come back")
    history_max: int = _setting(10_000, _count, "a number from 1", "Finished tasks kept")
    history_ttl: float = _setting(
        86_400.0, _seconds, "seconds above 0", "How long a finished task is kept (s)"
    )


def load(conf: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; raise SettingsError with all mistakes together."""
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for setting in fields(Settings):
        name, value = _lookup(setting.name, conf, environ)
        if value is None:
            continue
        try:
            values[setting.name] = setting.metadata["parse"](value)
        except BadRedisUrl as error:
            mistakes.append(f"{name}: {error}")
        except (TypeError, ValueError):
            # The value is left out: a URL may hold a password.
            mistakes.append(f"{name} is not {setting.metadata['expected']}")
    settings = Settings(**values)
    if settings.lease_renew_seconds >= settings.lease_seconds:
        mistakes.append("SIDECAR_LEASE_RENEW_SECONDS must be less than SIDECAR_LEASE_SECONDS")
    if settings.redis_url and is_cluster(settings.redis_url) and not is_in_one_slot(settings.prefix):
        mistakes.append(f"SIDECAR_PREFIX: {IN_BRACES}")
    if mistakes:
        raise SettingsError("; ".join(mistakes))
    return settings


def _lookup(name: str, conf: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, Any]:
    variable = f"SIDECAR_{name.upper()}"
    if environ.get(variable):
        return variable, environ[variable]
    return f"sidecar_{name}", conf.get(f"sidecar_{name}")
