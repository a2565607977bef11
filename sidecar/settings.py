"""The sidecar's settings: each is one field of `Settings`, and flag, variable and help derive from it."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

from celery_plugin.contract import IN_BRACES, check_prefix, is_in_one_slot
from celery_plugin.redis_servers import is_cluster
from celery_plugin.settings import Settings as PluginSettings
from sidecar.access_settings import (
    check_allow_anonymous,
    check_audience,
    check_open_address,
    check_public_key,
    is_loopback,
    parse_hosts,
    parse_origins,
    parse_rate,
    parse_secrets,
)
from sidecar.setting_values import (
    Network,
    one_of,
    parse_count,
    parse_host,
    parse_networks,
    parse_port,
    parse_queues,
    parse_root_path,
    parse_seconds,
    parse_workers,
)
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
# Of the commands that ask a sidecar.
CLIENT_VARIABLES: Final = frozenset({"SIDECAR_URL", "SIDECAR_TOKEN", "SIDECAR_TOKEN_FILE"})
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS: Final = ("text", "json")
ON_OFF: Final = ("on", "off")
METRICS_BY_TOKEN: Final = "token"  # noqa: S105  # a word
METRICS_OFF: Final = "off"
METRICS_WORDS: Final = (METRICS_BY_TOKEN, "open", METRICS_OFF)

# Enough to recognise what was given, too little to flood the terminal.
_GIVEN_MAX_CHARS = 120

T = TypeVar("T")


def _setting(
    default: T,
    parse: Callable[[str], T],
    unit: str,
    text: str,
    *,
    default_text: str = "",
    secret: bool = False,
    hidden: bool = False,
) -> T:
    """Describe a setting; a secret one is masked where it is shown, a hidden one not shown at all."""
    texts = {"unit": unit, "text": text, "default_text": default_text or str(default)}
    metadata = {"parse": parse, "hidden": hidden, **texts}
    return field(default=default, repr=not (secret or hidden), metadata=metadata)


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
    root_path: str = _setting(
        "",
        parse_root_path,
        "PATH",
        "prefix under which a proxy shows the sidecar, and which it takes off before it passes a request on",
        default_text="none",
    )
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
        "Celery's broker; pending tasks are counted in it if it is a Redis or speaks AMQP, as RabbitMQ does",
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

    access_log: str = _setting(
        "on",
        one_of("it", ON_OFF),
        "WORD",
        "on, off: a line in the log for each request, health checks aside",
    )

    # Who may come in.
    auth_secrets: tuple[str, ...] = _setting(
        (),
        parse_secrets,
        "SECRETS",
        "secrets of tokens (HS256), with commas between; the first one signs. A flag is seen by every user "
        "of the machine, so better the variable",
        default_text="none",
        hidden=True,
    )
    auth_public_key: str = _setting(
        "",
        check_public_key,
        "FILE",
        "public keys of tokens (RS256, ES256) in PEM or as a JWKS; the secrets are then for tickets alone",
        default_text="none",
    )
    auth_audience: str = _setting(
        "", check_audience, "NAME", "what the claim aud of a token must have in it", default_text="none"
    )
    allow_anonymous: str = _setting(
        "",
        check_allow_anonymous,
        "WORDS",
        "what everyone may do without a token: read, or read,args with arguments and results",
        default_text="none; on loopback, without authentication, read,args",
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        parse_hosts,
        "NAMES",
        "names under which it may be asked besides addresses and localhost, with commas between; *.a.b for "
        "what is below a.b, * for any",
        default_text="none on loopback, else any",
    )
    cors_origins: tuple[str, ...] = _setting(
        (),
        parse_origins,
        "ORIGINS",
        "origins whose pages may read, with commas between, e.g. https://app.example.com; * for any, without "
        "cookies",
        default_text="none",
    )
    metrics: str = _setting(
        METRICS_BY_TOKEN,
        one_of("who may read the metrics", METRICS_WORDS),
        "WORD",
        "who may read /metrics: token, who may read everything; open, anyone; off, nobody",
    )
    rate_limit: float = _setting(
        100.0,
        parse_rate,
        "RATE",
        "questions a second that an address may ask, streams aside; 0 for any number",
        default_text="100",
    )

    def __post_init__(self) -> None:
        if not self.broker_url:
            object.__setattr__(self, "broker_url", self.redis_url)

    @property
    def broker_redis_url(self) -> str | None:
        """The broker's URL for redis-py; None when the broker is not a Redis."""
        return redis_url_of_broker(self.broker_url)

    @property
    def authenticates(self) -> bool:
        """Whether tokens can be checked."""
        return bool(self.auth_secrets or self.auth_public_key)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


@dataclass(frozen=True)
class Setting:
    """One row of the table that everything else is made from."""

    name: str
    parse: Callable[[str], object]
    unit: str
    text: str
    default_text: str
    hidden: bool

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
    values, mistakes = _read(SETTINGS, flags, environ)
    mistakes |= _of_several(values, mistakes)
    if mistakes:
        raise BadSettings(list(mistakes.values()))
    return Settings(**values)


def load_only(
    names: Sequence[str], environ: Mapping[str, str], flags: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Read some settings, whatever the others are."""
    values, mistakes = _read([setting for setting in SETTINGS if setting.name in names], flags or {}, environ)
    if mistakes:
        raise BadSettings(list(mistakes.values()))
    return {name: values.get(name, getattr(Settings(), name)) for name in names}


def _read(
    settings: Sequence[Setting], flags: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What is given, and the mistakes, both by the name of the setting."""
    values: dict[str, Any] = {}
    mistakes = {}
    for setting in settings:
        source, given = _given(setting, flags, environ)
        if given is None:
            continue
        try:
            values[setting.name] = setting.parse(given)
        except ValueError as error:
            what = source if setting.hidden else f"{source} is {shown(given)}"
            mistakes[setting.name] = f"{what}: {error}"
    return values, mistakes


def _of_several(values: Mapping[str, Any], mistakes: Mapping[str, str]) -> dict[str, str]:
    """The mistakes that lie in what one setting means beside another one."""
    found = {"guards": _open_address(values, mistakes), "cluster": _scattered(values, mistakes)}
    return {name: mistake for name, mistake in found.items() if mistake}


def _scattered(values: Mapping[str, Any], mistakes: Mapping[str, str]) -> str | None:
    """Say what is wrong where the keys would lie on several nodes of a Cluster."""
    prefix = values.get("prefix", Settings.prefix)
    if "prefix" in mistakes or not is_cluster(values.get("redis_url", "")) or is_in_one_slot(prefix):
        return None
    return f"{NAMESPACE}PREFIX is {shown(prefix)}: {IN_BRACES}"


def _open_address(values: Mapping[str, Any], mistakes: Mapping[str, str]) -> str | None:
    """Say what is wrong where anybody could read without anybody having said so."""
    guards = ("auth_secrets", "auth_public_key", "allow_anonymous")
    # A guard with a mistake in it was meant to be there, and is told already.
    if mistakes.keys() & {"host", *guards} or any(values.get(name) for name in guards):
        return None
    return check_open_address(values.get("host", Settings.host))


def typos(environ: Mapping[str, str]) -> list[str]:
    """Find variables that look like misspelt settings of the sidecar, one sentence each."""
    known = {setting.variable for setting in SETTINGS} | PLUGIN_VARIABLES | CLIENT_VARIABLES
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
