"""The sidecar's settings: each is one field of `Settings`, and flag, variable and help derive from it."""

from __future__ import annotations

import difflib
import ipaddress
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

from celery_plugin.contract import check_prefix
from celery_plugin.settings import Settings as PluginSettings
from sidecar.urls import check_broker_url, check_redis_url, masked_url, redis_url_of_broker

NAMESPACE: Final = "SIDECAR_"
# The plugin reads these from the same namespace; to the sidecar they mean nothing.
PLUGIN_VARIABLES: Final = frozenset(
    {
        "SIDECAR_LEASE_SECONDS",
        "SIDECAR_LEASE_RENEW_SECONDS",
        "SIDECAR_HISTORY_MAX",
        "SIDECAR_HISTORY_TTL",
        "SIDECAR_LOG_MAX",
    }
)
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS: Final = ("text", "json")

# One for each core is what helps; more is a slip of the hand.
WORKERS_MAX: Final = 256

# Enough to recognise what was given, too little to flood the terminal.
_GIVEN_MAX_CHARS = 120

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_host(text: str) -> str:
    """Read a name or an address to listen on."""
    if re.fullmatch(r"[A-Za-z0-9._\-]+", text, re.ASCII) or _is_ipv6(text):
        return text
    raise ValueError(
        "a host is a name or an address without port or brackets, e.g. 127.0.0.1, 0.0.0.0 or ::1"
    )


def parse_port(text: str) -> int:
    """Read a TCP port; 0 takes any free one."""
    if re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) and int(text) <= 65535:
        return int(text)
    expected = "a port is a whole number from 1 to 65535, or 0 for any free one"
    if text.startswith(("tcp://", "udp://")):
        # https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
        expected += (
            "; Kubernetes sets this variable for a Service named 'sidecar': "
            "use --port, or enableServiceLinks: false in the Pod"
        )
    raise ValueError(expected)


def parse_count(text: str) -> int:
    """Read how many of something there may be."""
    if re.fullmatch(r"[0-9]{1,7}", text, re.ASCII) and int(text) > 0:
        return int(text)
    raise ValueError("a count is a whole number from 1 to 9999999")


def parse_workers(text: str) -> int:
    """Read how many processes serve."""
    if re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) and 1 <= int(text) <= WORKERS_MAX:
        return int(text)
    raise ValueError(f"processes are a whole number from 1 to {WORKERS_MAX}")


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read addresses and networks between commas."""
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",")) if text else ()
    except ValueError:
        raise ValueError(
            "addresses are 10.0.0.7 or ::1, networks 10.0.0.0/8 or fd00::/8, with commas between"
        ) from None


def parse_seconds(text: str) -> float:
    """Read a length of time, of an hour at most."""
    if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text, re.ASCII) and float(text) <= 3600:
        return float(text)
    raise ValueError("seconds are a number from 0 to 3600, e.g. 5 or 0.5")


def parse_queues(text: str) -> tuple[str, ...]:
    """Read names of queues between commas, in their order, each once."""
    names = [name.strip() for name in text.split(",")] if text else []
    if not all(names) or not text.isprintable():
        raise ValueError("queues are names with commas between them, e.g. high,low")
    return tuple(dict.fromkeys(names))


def one_of(what: str, choices: tuple[str, ...]) -> Callable[[str], str]:
    """Make a parser of one of the words, in any case."""

    def parse(text: str) -> str:
        if text.lower() in choices:
            return text.lower()
        raise ValueError(f"{what} is one of {', '.join(choices)}")

    return parse


def _setting(
    default: T,
    parse: Callable[[str], T],
    unit: str,
    text: str,
    *,
    default_text: str = "",
    secret: bool = False,
) -> T:
    metadata = {"parse": parse, "unit": unit, "text": text, "default_text": default_text or str(default)}
    return field(default=default, repr=not secret, metadata=metadata)


def _plugin_setting(name: str, unit: str) -> Any:
    """Take a setting of the plugin as it is: what waits is shown like what a worker has."""
    [row] = (each for each in fields(PluginSettings) if each.name == name)

    def parse(text: str) -> object:
        try:
            return row.metadata["parse"](text)
        except ValueError:
            raise ValueError(f"expected {row.metadata['expected']}") from None

    default: Any = row.default
    written = ",".join(default) if isinstance(default, tuple) else str(default)
    text = row.metadata["help"]
    return _setting(
        default,
        parse,
        unit,
        text[0].lower() + text[1:] + "; of waiting tasks",
        default_text=written or "none",
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the sidecar was told; one field a setting."""

    host: str = _setting("127.0.0.1", parse_host, "ADDRESS", "address to listen on")
    port: int = _setting(8000, parse_port, "PORT", "TCP port to listen on, 0 for any free one")
    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0",
        check_redis_url,
        "URL",
        "Redis that the workers' plugin writes to",
        secret=True,
    )
    broker_url: str = _setting(
        "",
        check_broker_url,
        "URL",
        "Celery's broker; pending tasks are counted in it if it is a Redis",
        default_text="the same as --redis-url",
        secret=True,
    )
    prefix: str = _setting("queue", check_prefix, "PREFIX", "first part of the names of keys and channels")
    queues: tuple[str, ...] = _setting(
        (),
        parse_queues,
        "NAMES",
        "queues to watch besides those known, with commas between",
        default_text="none",
    )
    capture: tuple[str, ...] = _plugin_setting("capture", "NAMES")
    capture_max_chars: int = _plugin_setting("capture_max_chars", "NUMBER")
    redact: tuple[str, ...] = _plugin_setting("redact", "NAMES")
    workers: int = _setting(1, parse_workers, "COUNT", "processes that serve the port, best one a core")
    max_streams: int = _setting(
        10_000,
        parse_count,
        "COUNT",
        "streams at a time of each process; fewer where fewer open files are allowed",
    )
    max_streams_per_address: int = _setting(
        100, parse_count, "COUNT", "streams at a time of one client's address in each process"
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        (),
        parse_networks,
        "ADDRESSES",
        "proxies whose X-Forwarded-For names the client: addresses or networks, with commas between",
        default_text="none",
    )
    drain_seconds: float = _setting(
        5.0,
        parse_seconds,
        "SECONDS",
        "over how many seconds the streams end after SIGTERM, 0 for at once",
        default_text="5",
    )
    log_level: str = _setting("info", one_of("a log level", LOG_LEVELS), "LEVEL", ", ".join(LOG_LEVELS))
    log_format: str = _setting("text", one_of("a log format", LOG_FORMATS), "FORMAT", ", ".join(LOG_FORMATS))

    def __post_init__(self) -> None:
        if not self.broker_url:
            object.__setattr__(self, "broker_url", self.redis_url)

    @property
    def broker_redis_url(self) -> str | None:
        """The broker's URL for redis-py; None when the broker is not a Redis."""
        return redis_url_of_broker(self.broker_url)


@dataclass(frozen=True)
class Setting:
    """One row of the table that everything else is made from."""

    name: str
    parse: Callable[[str], object]
    unit: str
    text: str
    default_text: str

    @property
    def variable(self) -> str:
        return NAMESPACE + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


SETTINGS: Final = tuple(Setting(name=row.name, **row.metadata) for row in fields(Settings))


class BadSettings(ValueError):
    """Raised when settings cannot be read; has every mistake, each a sentence without any password."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def load(flags: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    """Read every setting: a flag (by the setting's name) beats the environment, which beats the default."""
    values: dict[str, Any] = {}
    mistakes = []
    for setting in SETTINGS:
        source, given = _given(setting, flags, environ)
        if given is None:
            continue
        try:
            values[setting.name] = setting.parse(given)
        except ValueError as error:
            mistakes.append(f"{source} is {shown(given)}: {error}")
    if mistakes:
        raise BadSettings(mistakes)
    return Settings(**values)


def typos(environ: Mapping[str, str]) -> list[str]:
    """Find variables that look like misspelt settings of the sidecar, one sentence each."""
    known = {setting.variable for setting in SETTINGS} | PLUGIN_VARIABLES
    unknown = sorted(name for name in environ if name.startswith(NAMESPACE) and name not in known)
    nearest = {name: nearest_variable(name) for name in unknown}
    return [f"{name} is not a setting; is {right} meant?" for name, right in nearest.items() if right]


def nearest_variable(name: str) -> str | None:
    """Find the setting that a misspelt variable means, if any is near enough."""
    return _nearest(name, {setting.variable: setting.name.upper() for setting in SETTINGS}, NAMESPACE)


def nearest_flag(flag: str) -> str | None:
    """Find the setting that a misspelt flag means, if any is near enough."""
    return _nearest(flag, {setting.flag: setting.flag.removeprefix("--") for setting in SETTINGS}, "--")


def shown(given: str) -> str:
    """Quote what was given for a message: no password, no control character, not too long."""
    text = masked_url(given)
    return repr(text if len(text) <= _GIVEN_MAX_CHARS else text[:_GIVEN_MAX_CHARS] + "…")


def settings_help() -> str:
    """Describe every setting for ``--help``."""
    return "settings, of which a flag beats its variable:\n" + "\n".join(map(_help, SETTINGS))


def _given(setting: Setting, flags: Mapping[str, str], environ: Mapping[str, str]) -> tuple[str, str | None]:
    if setting.name in flags:
        return setting.flag, flags[setting.name].strip()
    # An empty variable is one that a compose file or a chart left open, so the default holds.
    return setting.variable, environ.get(setting.variable, "").strip() or None


def _nearest(name: str, candidates: dict[str, str], start: str) -> str | None:
    # Without their common start, which would make everything look alike.
    found = difflib.get_close_matches(name.removeprefix(start), candidates.values(), n=1, cutoff=0.7)
    return next((full for full, short in candidates.items() if [short] == found), None)


def _help(setting: Setting) -> str:
    text = f"{setting.text} ({setting.variable}; default {setting.default_text})"
    body = textwrap.fill(text, width=100, initial_indent=" " * 26, subsequent_indent=" " * 26)
    return f"  {setting.flag + ' ' + setting.unit:<23} {body.lstrip()}"


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False
