"""Settings: each declared once, read from flags and environment, all mistakes told together."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from sidecar.settings import (
    PLUGIN_VARIABLES,
    SETTINGS,
    BadSettings,
    Setting,
    Settings,
    load,
    nearest_flag,
    settings_help,
    shown,
    typos,
)

PUBLIC_KEY = Path(__file__).parent / "support" / "public_key.pem"
GOOD = {
    "host": ("::1", "::1"),
    "port": ("9000", 9000),
    "root_path": ("/ops/queue/", "/ops/queue"),
    "redis_url": ("redis://a:1/1", "redis://a:1/1"),
    "broker_url": ("amqp://b", "amqp://b"),
    "prefix": ("{jobs}", "{jobs}"),
    "queues": ("high, low,high", ("high", "low")),
    "capture": ("args, result", ("args", "result")),
    "capture_max_chars": ("50", 50),
    "redact": ("plate, my_*", ("plate", "my_*")),
    "workers": ("4", 4),
    "max_streams": ("7", 7),
    "max_streams_per_address": ("3", 3),
    "trusted_proxies": ("10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1"))),
    "drain_seconds": ("2.5", 2.5),
    "log_level": ("DEBUG", "debug"),
    "log_format": ("json", "json"),
    "access_log": ("off", "off"),
    "auth_secrets": (f"{'a' * 32}, {'b' * 32}", ("a" * 32, "b" * 32)),
    "auth_public_key": (str(PUBLIC_KEY), str(PUBLIC_KEY)),
    "auth_audience": ("queue", "queue"),
    "allow_anonymous": ("Read, Args", "read,args"),
    "allowed_hosts": ("Queue.example.com,*.lan", ("queue.example.com", "*.lan")),
    "cors_origins": ("https://a.example,http://b:8080", ("https://a.example", "http://b:8080")),
    "metrics": ("Open", "open"),
    "rate_limit": ("0.5", 0.5),
}


def test_every_setting_is_tried_here() -> None:
    """A new setting gets a good value in this test, and so is tested as flag and as variable."""
    assert {setting.name for setting in SETTINGS} == set(GOOD)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_flag_and_variable(setting: Setting) -> None:
    """Each setting can be given as a variable and as a flag, with the same result."""
    text, value = GOOD[setting.name]
    assert value == getattr(load({}, {setting.variable: text}), setting.name)
    assert value == getattr(load({setting.name: text}, {}), setting.name)


def test_defaults() -> None:
    """Without any setting the sidecar listens on the loopback address and reads the local Redis."""
    settings = load({}, {})
    assert ("127.0.0.1", 8000) == (settings.host, settings.port)
    assert "redis://127.0.0.1:6379/0" == settings.redis_url == settings.broker_url
    assert ("queue", (), "info", "text") == (
        settings.prefix,
        settings.queues,
        settings.log_level,
        settings.log_format,
    )


def test_defaults_are_good_values() -> None:
    """Every default passes its own check."""
    defaults = Settings()
    written = {
        setting.variable: ",".join(value) if isinstance(value, tuple) else str(value)
        for setting in SETTINGS
        for value in [getattr(defaults, setting.name)]
    }
    assert defaults == load({}, written)


def test_flag_beats_environment() -> None:
    """A flag wins over its variable, even over one with a mistake in it."""
    assert 1 == load({"port": "1"}, {"SIDECAR_PORT": "2"}).port
    assert 1 == load({"port": "1"}, {"SIDECAR_PORT": "abc"}).port
    assert () == load({"queues": ""}, {"SIDECAR_QUEUES": "high"}).queues


def test_empty_variable() -> None:
    """An empty variable counts as not set, and blanks around a value are dropped."""
    assert 8000 == load({}, {"SIDECAR_PORT": ""}).port
    assert 8000 == load({}, {"SIDECAR_PORT": " "}).port
    assert 9000 == load({}, {"SIDECAR_PORT": " 9000\n"}).port


def test_broker_is_the_same_redis() -> None:
    """Without a broker's URL the broker is the Redis of the state, and it need not be Redis at all."""
    assert "redis://a/3" == load({"redis_url": "redis://a/3"}, {}).broker_url
    assert "redis://a/3" == load({"redis_url": "redis://a/3"}, {}).broker_redis_url
    assert None is load({"broker_url": "amqp://b"}, {}).broker_redis_url


def test_all_mistakes_together() -> None:
    """Every mistake is told, each with where it came from, what was given and what would be right."""
    with pytest.raises(BadSettings) as raised:
        load({"log_level": "loud"}, {"SIDECAR_PORT": "abc", "SIDECAR_REDIS_URL": "nonsense"})
    port, redis_url, log_level = raised.value.mistakes
    assert "SIDECAR_PORT is 'abc': a port is a whole number from 1 to 65535, or 0 for any free one" == port
    assert redis_url.startswith("SIDECAR_REDIS_URL is 'nonsense': it has no scheme; a Redis URL is redis://")
    assert "--log-level is 'loud': a log level is one of debug, info, warning, error, critical" == log_level


@pytest.mark.parametrize("name", ["redis_url", "broker_url", "host", "prefix"])
def test_password_is_not_told(name: str) -> None:
    """A password is masked in a mistake, also where a URL was put into the wrong setting."""
    with pytest.raises(BadSettings) as raised:
        load({name: "redis://:hunter2@ho st"}, {})
    assert "'redis://:***@ho st'" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_password_is_not_in_the_repr() -> None:
    """Settings can be logged whole: no URL is in their repr."""
    assert "hunter2" not in repr(Settings(redis_url="redis://:hunter2@host"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("host", "127.0.0.1:8000"),
        ("host", "[::1]"),
        ("host", "http://localhost"),
        ("port", "-1"),
        ("port", "65536"),
        ("port", "8_000"),
        ("port", "٣"),
        ("prefix", "a b"),
        ("prefix", "x" * 65),
        ("queues", "a,,b"),
        ("queues", "a\x1bb"),
        ("log_level", "trace"),
        ("log_format", "xml"),
        ("log_format", ""),
    ],
)
def test_wrong_value(name: str, text: str) -> None:
    """What a setting cannot be is refused."""
    with pytest.raises(BadSettings, match=f"^--{name.replace('_', '-')} is "):
        load({name: text}, {})


def test_kubernetes_service_named_sidecar() -> None:
    """The variable that Kubernetes sets for a Service of the same name is recognised."""
    with pytest.raises(BadSettings, match="enableServiceLinks"):
        load({}, {"SIDECAR_PORT": "tcp://10.0.0.1:8000"})


@pytest.mark.parametrize(
    ("expected", "variable"),
    [
        ("SIDECAR_PORT", "SIDECAR_PROT"),
        ("SIDECAR_QUEUES", "SIDECAR_QUEUE"),
        ("SIDECAR_REDIS_URL", "SIDECAR_REDIS"),
        ("SIDECAR_LOG_LEVEL", "SIDECAR_LOGLEVEL"),
    ],
)
def test_typos(expected: str, variable: str) -> None:
    """A misspelt variable is told, with the setting that it was meant to be."""
    assert [f"{variable} is not a setting; is {expected} meant?"] == typos({variable: "x"})


def test_what_is_no_typo() -> None:
    """The plugin's variables, other programs' and those that look like nothing of ours pass in silence."""
    others = ["PORT", "SIDECARS", "SIDECAR_SERVICE_PORT", "SIDECAR_PORT_8000_TCP_ADDR", "SIDECAR_WHATEVER"]
    assert [] == typos(dict.fromkeys([*PLUGIN_VARIABLES, *others, "SIDECAR_PORT"], "x"))


def test_nearest_flag() -> None:
    """A misspelt flag is told with the nearest right one, or with none when nothing is near."""
    assert "--redis-url" == nearest_flag("--redis-ulr")
    assert None is nearest_flag("--verbose")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_help(setting: Setting) -> None:
    """The help names flag, unit, variable and default of every setting."""
    text = " ".join(settings_help().split())
    assert f"{setting.flag} {setting.unit} {setting.text} ({setting.variable}; default " in text


def test_shown() -> None:
    """What is shown of a value is short and cannot break the line."""
    assert r"'a\x1b[2J\nb'" == shown("a\x1b[2J\nb")
    assert len(shown("x" * 10_000)) < 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "queue.internal"])  # noqa: S104  # nothing listens
def test_no_address_is_open_by_mistake(host: str) -> None:
    """Where others reach it, it starts only with authentication or when told that anyone may read."""
    with pytest.raises(BadSettings) as raised:
        load({"host": host}, {"SIDECAR_AUTH_SECRETS": ""})
    [mistake] = raised.value.mistakes
    assert host in mistake
    assert "SIDECAR_AUTH_SECRETS" in mistake
    assert "SIDECAR_ALLOW_ANONYMOUS=read" in mistake
    assert "read" == load({"host": host}, {"SIDECAR_ALLOW_ANONYMOUS": "read"}).allow_anonymous
    assert load({"host": host}, {"SIDECAR_AUTH_SECRETS": "x" * 32}).authenticates
    assert load({"host": host}, {"SIDECAR_AUTH_PUBLIC_KEY": str(PUBLIC_KEY)}).authenticates


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    """On loopback it starts without authentication."""
    settings = load({"host": host}, {})
    assert (True, False) == (settings.on_loopback, settings.authenticates)


def test_a_wrong_secret_is_not_told_twice() -> None:
    """Who meant to set a secret hears what is wrong with it, and not that none is there."""
    with pytest.raises(BadSettings) as raised:
        load({"host": "0.0.0.0", "port": "x"}, {"SIDECAR_AUTH_SECRETS": "hunter2"})  # noqa: S104  # nothing listens
    assert [
        "--port is 'x'",
        "SIDECAR_AUTH_SECRETS",
    ] == [mistake.split(": ")[0] for mistake in raised.value.mistakes]


@pytest.mark.parametrize(
    "text", ["hunter2", f"{'a' * 32},hunter2", "hunter2 " * 8, "-----BEGIN hunter2", "ä" * 31]
)
def test_no_secret_is_told(text: str) -> None:
    """A secret that is refused stands in no mistake, and a good one in no repr."""
    with pytest.raises(BadSettings, match=r"^SIDECAR_AUTH_SECRETS: ") as raised:
        load({}, {"SIDECAR_AUTH_SECRETS": text})
    assert "hunter2" not in str(raised.value)
    assert "x" * 32 not in repr(Settings(auth_secrets=("x" * 32,)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("auth_public_key", "/no/such/file"),
        ("auth_public_key", "\0"),
        ("auth_public_key", "/dev/zero"),
        ("auth_public_key", __file__),
        ("auth_audience", "a\x1bb"),
        ("allow_anonymous", "yes"),
        ("allow_anonymous", "write"),
        ("allow_anonymous", "args"),
        ("allowed_hosts", "http://a"),
        ("allowed_hosts", "a:80"),
        ("allowed_hosts", "a,,b"),
        ("allowed_hosts", "a.*"),
        ("cors_origins", "*,https://a.example"),
        ("cors_origins", "null"),
        ("cors_origins", "a.example"),
        ("cors_origins", "https://a.example/"),
        ("cors_origins", "https://a.example:443"),
        ("cors_origins", "https://A.example"),
        ("cors_origins", "https://*.a.example"),
        ("cors_origins", "https://u@a.example"),
        ("cors_origins", "https://a.example:x"),
        ("rate_limit", "-1"),
        ("rate_limit", "inf"),
        ("rate_limit", "1e3"),
    ],
)
def test_wrong_value_of_access(name: str, text: str) -> None:
    """What a setting of access cannot be is refused."""
    with pytest.raises(BadSettings, match=f"^--{name.replace('_', '-')} is "):
        load({name: text}, {})


def test_a_prefix_for_a_cluster() -> None:
    """Keys that lie on several nodes cannot be written by one script; told with all other mistakes."""
    cluster = {"SIDECAR_REDIS_URL": "redis+cluster://:hunter2@a;redis+cluster://b"}
    with pytest.raises(BadSettings) as error:
        load({}, cluster | {"SIDECAR_PORT": "x"})
    port, prefix = error.value.mistakes
    assert port.startswith("SIDECAR_PORT")
    assert prefix.startswith("SIDECAR_PREFIX is 'queue': in a Redis Cluster a prefix has a part in braces")
    settings = load({}, cluster | {"SIDECAR_PREFIX": "{queue}"})
    assert settings.broker_redis_url is None
