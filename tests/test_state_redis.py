"""The Redis for the state is found as Celery is told of it, and reached in the same way."""

from __future__ import annotations

import ssl
from types import SimpleNamespace
from typing import Any

import pytest

from celery_plugin.connections import BadUrl, make_client
from celery_plugin.redis_servers import Sentinels
from celery_plugin.settings import SettingsError, load
from celery_plugin.state_redis import Place, find_redis, named_redis
from tests.support.tasks_app import make_app

CA = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/etc/ca.pem"}


@pytest.mark.parametrize(
    ("expected", "broker"),
    [
        (Place("redis://host:6379/3"), "redis://host/3"),
        (Place("redis://:p%40ss%2Fw%23@host:6379/3"), "redis://:p%40ss%2Fw%23@host/3"),
        (Place("redis://first:6379/1"), "redis://first/1;redis://second/2"),
        (
            Place("rediss://host:6379/0", CA),
            "rediss://host/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=%2Fetc%2Fca.pem",
        ),
        (
            Place("rediss://host:6379/0", CA),
            "rediss://host/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem",
        ),
        # As kombu does, which warns of it.
        (Place("rediss://host:6379/0", {"ssl_cert_reqs": ssl.CERT_NONE}), "rediss://host/0"),
        (Place("unix:///run/redis.sock?db=3"), "redis+socket:///run/redis.sock?virtual_host=3"),
        (Place("unix://:p%40@/run/redis.sock?db=3"), "redis+socket://:p%40@/run/redis.sock?virtual_host=/3"),
        (None, "amqp://host"),
        (None, "sentinel://a:1;sentinel://b:1"),  # Celery itself needs the master's name.
    ],
)
def test_the_broker(expected: Place | None, broker: str) -> None:
    """What kombu understands of a URL holds for the state too."""
    app = make_app(broker)
    assert expected == find_redis(app)
    if expected is not None:
        make_client(*expected)


@pytest.mark.parametrize(
    ("expected", "backend"),
    [
        (Place("redis://host:1/2"), "redis://host:1/2"),
        (Place("rediss://host/2?ssl_cert_reqs=optional"), "rediss://host/2?ssl_cert_reqs=CERT_OPTIONAL"),
        (Place("unix:///run/redis.sock?db=3"), "redis+socket:///run/redis.sock?virtual_host=3"),
        (None, "rpc://"),
    ],
)
def test_the_backend(expected: Place | None, backend: str) -> None:
    """Where the broker is another one, the result backend's Redis takes the state."""
    app = make_app("amqp://host", backend)
    assert expected == find_redis(app)
    if expected is not None:
        make_client(*expected)


SENTINELS = Sentinels((("a", 1), ("b", 26379)), "mymaster", {"password": "s"})


@pytest.mark.parametrize(
    ("expected", "tls", "url"),
    [
        (Place("redis://:p%40w@a:1/3", {}, SENTINELS), {}, "sentinel://:p%40w@a:1/3;sentinel://b/3"),
        (Place("redis://a:1/0", {}, SENTINELS), {}, "sentinel://a:1;sentinel://:other@b/0?x=1"),
        (Place("rediss://a:1/0", CA, SENTINELS), CA, "sentinel://a:1;sentinel://b"),
    ],
)
def test_sentinels(expected: Place, tls: dict[str, Any], url: str) -> None:
    """The master that Celery is told of for the broker, or the results, takes the state."""
    options = {"master_name": "mymaster", "sentinel_kwargs": {"password": "s"}}
    broker = make_app(url, broker_transport_options=options, broker_use_ssl=tls or None)
    assert expected == find_redis(broker)
    results = {"result_backend_transport_options": options, "redis_backend_use_ssl": tls or None}
    assert expected == find_redis(make_app("amqp://host", url, **results))
    make_client(*expected)


def test_one_sentinel() -> None:
    """A single one is no list for kombu, and is found as well."""
    app = make_app("sentinel://:p%40w@a:1/3", broker_transport_options={"master_name": "m"})
    assert Place("redis://:p%40w@a:1/3", {}, Sentinels((("a", 1),), "m")) == find_redis(app)


@pytest.mark.parametrize(
    ("expected", "url"),
    [
        ("redis://host:1/2", "redis://user:geheim@host:1/2"),
        (
            "a:1;b:26379, m",
            "sentinel://:geheim@a:1;sentinel://:geheim@b?master_name=m&sentinel_password=geheim",
        ),
        ("a:6379;[::1]:7000", "redis+cluster://:geheim@a;redis+cluster://:geheim@[::1]:7000"),
    ],
)
def test_a_place_is_shown_without_secrets(expected: str, url: str) -> None:
    """The line that says where the state goes has nothing of a login."""
    settings = load(_no_settings(), {"SIDECAR_REDIS_URL": url, "SIDECAR_PREFIX": "{q}"})
    assert expected == str(named_redis(settings))


@pytest.mark.parametrize(
    ("setting", "urls"),
    [
        ("broker_use_ssl", ("redis://host/2", None)),
        ("redis_backend_use_ssl", ("amqp://host", "redis://host/2")),
    ],
)
def test_encryption_by_settings(setting: str, urls: tuple[str, str | None]) -> None:
    """Celery encrypts a redis:// too where a setting has the options for it, with words or with constants."""
    for required in ("required", "CERT_REQUIRED", ssl.CERT_REQUIRED):
        app = make_app(*urls, **{setting: {**CA, "ssl_cert_reqs": required}})
        place = find_redis(app)
        assert place is not None
        assert place.url.startswith("rediss://host")
        made: Any = make_client(*place).connection_pool.make_connection()
        assert (ssl.CERT_REQUIRED, "/etc/ca.pem") == (made.cert_reqs, made.ca_certs)


def test_options_of_another_client() -> None:
    """The names that AMQP has for TLS are none of redis-py's; the error names no value."""
    with pytest.raises(BadUrl) as caught:
        make_client("rediss://:geheim@host/0", {"keyfile": "geheim"})
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("expected", "url"),
    [
        ("rediss://h/0?ssl_cert_reqs=required", "rediss://h/0?ssl_cert_reqs=CERT_REQUIRED"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
    ],
)
def test_celerys_spelling_in_the_setting(expected: str, url: str) -> None:
    """Whoever copies Celery's URL into SIDECAR_REDIS_URL gets what it says."""
    assert expected == load(_no_settings(), {"SIDECAR_REDIS_URL": url}).redis_url


def test_a_password_that_is_not_encoded() -> None:
    """A # would cut the URL off, and the state would go to another host."""
    with pytest.raises(SettingsError, match="SIDECAR_REDIS_URL"):
        load(_no_settings(), {"SIDECAR_REDIS_URL": "redis://pa#ss@host/0"})


def _no_settings() -> Any:
    return SimpleNamespace(get=lambda name: None)
