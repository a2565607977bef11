"""URLs are checked without connecting, and no credential of one is ever shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.connection import parse_url

from sidecar.urls import check_broker_url, check_redis_url, masked_text, masked_url, redis_url_of_broker


@pytest.mark.parametrize(
    ("expected", "url"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:***@host:6379/0", "redis://:hunter2@host:6379/0"),
        ("rediss://user:***@host", "rediss://user:hunter2@host"),
        ("redis://***@host", "redis://hunter2@host"),
        ("unix://user:***@/run/redis.sock?db=1", "unix://user:hunter2@/run/redis.sock?db=1"),
        ("redis://:***@host/0", "redis://:hunter/2@x#?@host/0"),
        ("redis:***@host", "redis:/:hunter2@host"),
        ("amqp://a:***@two", "amqp://a:hunter2@one;amqp://b:hunter2@two"),
        ("redis://host?password=***&db=1", "redis://host?password=hunter2&db=1"),
        ("redis://host?pass%77ord=***", "redis://host?pass%77ord=hunter2"),
        ("rediss://host?ssl_password=***", "rediss://host?ssl_password=hunter2"),
        ("sentinel://a:***@two:1/0", "sentinel://a:hunter2@one:1;sentinel://a:hunter2@two:1/0"),
        ("sentinel://one;sentinel:***@two", "sentinel://one;sentinel://:hunter2@two"),
        ("sentinel://one?x=1&sentinel_password=***", "sentinel://one?x=1&sentinel_password=hunter2"),
        (
            "sentinel://one?sentinel_password=***:***@two",
            "sentinel://one?sentinel_password=hunter2;sentinel://user@two",
        ),
        ("nonsense", "nonsense"),
        ("", ""),
    ],
)
def test_masked(expected: str, url: str) -> None:
    """A password is replaced wherever a URL, or what was meant as one, may hold it; the rest stays."""
    assert expected == masked_url(url)


@given(password=st.text(min_size=1))
def test_no_password_survives(password: str) -> None:
    """Whatever characters a password is made of, none of it is shown."""
    assert "redis://:***@host/0" == masked_url(f"redis://:{password}@host/0")


def test_masked_text() -> None:
    """A URL in the middle of a sentence is masked too."""
    assert "invalid choice: 'redis://:***@host' (choose from 'serve')" == masked_text(
        "invalid choice: 'redis://:hunter2@host' (choose from 'serve')"
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://127.0.0.1:6379/15",
        "redis://[::1]:6379/0",
        "redis://user:p%40ss@redis_1.example:6380/0",
        "rediss://host:6379/0?ssl_cert_reqs=none&ssl_ca_certs=/dev/null",
        "unix:///run/redis.sock",
        "unix://user:secret@/run/redis.sock?db=2",
        "sentinel://:p%40ss@one:26379;sentinel://two/0?master_name=mymaster",
        "sentinel://one?master_name=m&ssl=true&ssl_ca_certs=/dev/null&sentinel_ssl=false&sentinel_password=x",
        "redis+cluster://one:7000;redis+cluster://two:7000",
        "rediss+cluster://user:secret@one?ssl_ca_certs=/dev/null",
    ],
)
def test_good_redis_url(url: str) -> None:
    """A URL that redis-py understands is taken as it is."""
    assert url == check_redis_url(url)


@pytest.mark.parametrize(
    ("reason", "url"),
    [
        ("no scheme", "nonsense"),
        ("no scheme", ""),
        ("no scheme", "//host/0"),
        ("scheme is another", "http://host"),
        ("scheme is another", "localhost:6379"),
        ("no host", "redis://:6379/0"),
        ("no host", "redis:///0"),
        ("no name and no address", "redis://ho,st/0"),
        ("cannot be read", "redis://host:port/0"),
        ("cannot be read", "redis://host:65536/0"),
        ("cannot be read", "redis://[::1/0"),
        ("from 1 to 65535", "redis://host:0/0"),
        ("from 1 to 65535", "redis://host:/0"),
        ("database is no number", "redis://host/abc"),
        ("database is no number", "redis://host/0/1"),
        ("database is no number", "redis://host?db=x"),
        ("database is no number", "redis://host?db="),
        ("has a #", "redis://:pa#ss@host/0"),
        ("space", "redis://host /0"),
        ("control", "redis://host\n/0"),
        ("no path", "unix://"),
        ("three slashes", "unix://run/redis.sock"),
        ("option socket_timeout", "redis://host/0?socket_timeout=1"),
        ("option ssl_cert_reqs", "redis://host/0?ssl_cert_reqs=none"),
        ("ssl_cert_reqs is", "rediss://host/0?ssl_cert_reqs=maybe"),
        ("master's name", "sentinel://host"),
        ("has no host", "sentinel://one;sentinel://:1?master_name=m"),
        ("cannot be read", "sentinel://one:port?master_name=m"),
        ("cannot be read", "sentinel://[::1?master_name=m"),
        ("several schemes", "sentinel://one;redis://two?master_name=m"),
        ("several databases", "sentinel://one;sentinel://two/3?master_name=m"),
        ("several logins", "sentinel://one;sentinel://:x@two?master_name=m"),
        ("option colour", "sentinel://one?master_name=m&colour=red"),
        ("without ssl=true", "sentinel://one?master_name=m&ssl_ca_certs=/dev/null"),
        ("true or false", "sentinel://one?master_name=m&ssl=yes"),
        ("no database but 0", "redis+cluster://host/1"),
        ("no database but 0", "redis+cluster://host?db=1"),
        ("option master_name", "redis+cluster://host?master_name=m"),
    ],
)
def test_bad_redis_url(reason: str, url: str) -> None:
    """What is wrong with a URL is said, together with what a right one looks like."""
    with pytest.raises(ValueError, match=f"{reason}.*a Redis URL is redis://host:6379/0"):
        check_redis_url(url)


def test_celerys_way_to_ask_for_certificates() -> None:
    """What Celery calls CERT_REQUIRED becomes the word that redis-py knows."""
    assert "rediss://host?ssl_cert_reqs=required" == check_redis_url(
        "rediss://host?ssl_cert_reqs=CERT_REQUIRED"
    )


@pytest.mark.parametrize("url", ["amqp://user:secret@host//", "sqs://", "memory://"])
def test_other_brokers(url: str) -> None:
    """Any broker of Celery's is accepted; one that is no Redis has no URL for redis-py."""
    assert (url, None) == (check_broker_url(url), redis_url_of_broker(url))


@pytest.mark.parametrize(
    ("expected", "url"),
    [
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("redis://host/1", "redis://host/1?visibility_timeout=60&health_check_interval=5"),
        ("rediss://host/1?ssl_cert_reqs=none", "rediss://host/1?ssl_cert_reqs=CERT_NONE&socket_timeout=5"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=/3"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock"),
    ],
)
def test_redis_broker(expected: str, url: str) -> None:
    """Celery's URL of a Redis broker becomes one for redis-py, without what only Celery understands."""
    assert (url, expected) == (check_broker_url(url), redis_url_of_broker(url))
    parse_url(expected)


def test_sentinel_broker() -> None:
    """Celery's URL of a Redis behind Sentinels is taken, once it says the master's name."""
    expected = "sentinel://one:1;sentinel://two:2/0?master_name=mymaster"
    url = f"{expected}&visibility_timeout=60"
    assert (url, expected) == (check_broker_url(url), redis_url_of_broker(url))


def test_no_cluster_is_a_broker() -> None:
    """Where the state is in a Cluster, the broker is another Redis, or none."""
    assert redis_url_of_broker("redis+cluster://host") is None
    with pytest.raises(ValueError, match="no Redis Cluster"):
        check_broker_url("redis+cluster://host")


@pytest.mark.parametrize(
    "url",
    ["nonsense", "", "redis://:6379", "redis://a:1;redis://b:2", "sentinel://one;sentinel://two"],
)
def test_bad_broker_url(url: str) -> None:
    """What is no URL, or a wrong one of a Redis, is refused."""
    with pytest.raises(ValueError, match=r"URL is"):
        check_broker_url(url)


@pytest.mark.parametrize(
    "password", ["hunter2/xyz", "hunter2?xyz", "hunter2#xyz", "1234/xyz", "/hunter2", "hunter2\u2100"]
)
def test_password_that_ends_the_host(password: str) -> None:
    """A broker URL in which the password was taken for a port is refused, and no piece of it is told."""
    with pytest.raises(ValueError, match="what is special in a URL is %xx") as refused:
        check_broker_url(f"amqp://user:{password}@host:5672//")
    assert "hunter2" not in str(refused.value)
    assert "1234" not in str(refused.value)
    assert check_broker_url("amqp://user:hunter2%2Fxyz@host:5672//;amqp://other/a%40b")
