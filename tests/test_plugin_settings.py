"""The promises of the plugin's settings: where they come from, and that a mistake stops no worker."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from celery_plugin.settings import Settings, SettingsError, load
from deploy.demo.redis_server import RedisServer
from tests.support import folder_app
from tests.support.batches import Stored
from tests.support.celery_worker import Worker
from tests.support.deadline import eventually
from tests.support.starters import StartRedis, StartWorker

# -- reading -------------------------------------------------------------------------------------------


class Django:
    """A settings module as Django's."""

    CELERY_BROKER_URL = "redis://broker/1"
    CELERY_SIDECAR_PREFIX = "shop"
    CELERY_SIDECAR_LOG_MAX = 7
    SIDECAR_HISTORY_MAX = 8  # Django's own namespace, not Celery's.


def _conf(**settings: Any) -> Any:
    app = Celery("settings", set_as_current=False)
    app.conf.update(settings)
    return app.conf


def test_defaults() -> None:
    """Nothing has to be set."""
    assert Settings() == load(_conf(), {})
    assert Settings() == Settings(
        redis_url=None,
        prefix="queue",
        lease_seconds=15.0,
        lease_renew_seconds=5.0,
        log_max=100_000,
        history_max=10_000,
        history_ttl=86_400.0,
    )


def test_settings_come_from_the_application() -> None:
    """As `sidecar_…` in `app.conf`."""
    conf = _conf(sidecar_redis_url="redis://state/2", sidecar_prefix="shop", sidecar_lease_seconds=30)
    assert Settings("redis://state/2", "shop", 30.0) == load(conf, {})


def test_the_environment_wins() -> None:
    """As `SIDECAR_…`; what is empty there is not set."""
    conf = _conf(sidecar_prefix="conf", sidecar_log_max=5, sidecar_history_max=6)
    environ = {"SIDECAR_PREFIX": "environment", "SIDECAR_LOG_MAX": "", "SIDECAR_HISTORY_TTL": "1.5"}
    assert Settings(prefix="environment", log_max=5, history_max=6, history_ttl=1.5) == load(conf, environ)


def test_settings_come_from_django() -> None:
    """As `CELERY_SIDECAR_…` where the configuration has the namespace CELERY."""
    app = Celery("django", set_as_current=False)
    app.config_from_object(Django, namespace="CELERY")
    assert Settings(prefix="shop", log_max=7) == load(app.conf, {})


def test_all_mistakes_are_told_at_once() -> None:
    """Each with the name under which it was set and with what is expected."""
    conf = _conf(sidecar_prefix="a b", sidecar_log_max=0)
    environ = {
        "SIDECAR_REDIS_URL": "nonsense",
        "SIDECAR_LEASE_SECONDS": "soon",
        "SIDECAR_LEASE_RENEW_SECONDS": "-1",
        "SIDECAR_HISTORY_MAX": "1.5",
        "SIDECAR_HISTORY_TTL": "inf",
    }
    with pytest.raises(SettingsError) as refusal:
        load(conf, environ)
    mistakes = str(refusal.value).split("; ")
    assert mistakes == [
        "SIDECAR_REDIS_URL is not redis://, rediss://, unix://, sentinel:// or redis+cluster://",
        "sidecar_prefix is not 1 to 64 of A-Z a-z 0-9 _ . : - { }",
        "SIDECAR_LEASE_SECONDS is not seconds above 0",
        "SIDECAR_LEASE_RENEW_SECONDS is not seconds above 0",
        "sidecar_log_max is not a number from 1",
        "SIDECAR_HISTORY_MAX is not a number from 1",
        "SIDECAR_HISTORY_TTL is not seconds above 0",
    ]


@pytest.mark.parametrize("setting", [field.name for field in fields(Settings)])
def test_each_setting_can_be_wrong(setting: str) -> None:
    """None takes whatever comes, also where the type is quite another."""
    with pytest.raises(SettingsError, match=f"sidecar_{setting} is not"):
        load(_conf(**{f"sidecar_{setting}": ["odd", "l i s t"]}), {})


def test_a_lease_must_outlast_its_renewal() -> None:
    """Or every worker would die between two of them."""
    with pytest.raises(SettingsError, match="SIDECAR_LEASE_RENEW_SECONDS must be less than"):
        load(_conf(sidecar_lease_seconds=5), {})


@pytest.mark.parametrize(
    "url", ["http://:geheim@host/", "geheim", "redis://:geheim@host:port/0", "redis://:geheim@host:99999"]
)
def test_a_mistake_repeats_no_secret(url: str) -> None:
    """A URL may hold a password, so its value is left out."""
    with pytest.raises(SettingsError) as refusal:
        load(_conf(), {"SIDECAR_REDIS_URL": url})
    assert "geheim" not in str(refusal.value)
    assert "SIDECAR_REDIS_URL is not" in str(refusal.value)


@pytest.mark.parametrize("url", ["redis://h", "rediss://:p@h:1/2", "unix:///run/redis.sock?db=3"])
def test_urls_that_are_taken(url: str) -> None:
    """With TLS, with a password, and through a socket of this machine."""
    assert url == load(_conf(), {"SIDECAR_REDIS_URL": url}).redis_url


# -- where the state goes --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for queues."""
    path = tmp_path / "queues"
    path.mkdir()
    return path


def _folder_worker(start_worker: StartWorker, folder: Path, backend: str) -> Worker:
    return start_worker(
        folder_app.BROKER,
        backend=backend,
        app="tests.support.folder_app",
        pool="solo",
        arguments=("--without-mingle", "--without-gossip", "--without-heartbeat"),
        env={"TASKS_FOLDER": str(folder)},
    )


def test_the_state_goes_to_the_broker(
    start_worker: StartWorker, redis_server: RedisServer, start_redis: StartRedis, stored: Stored
) -> None:
    """If that is Redis, in its database, whatever the result backend is; one line says so."""
    worker = start_worker(redis_server.url_db(2), backend=start_redis().url, pool="solo")
    worker.wait_for_line(rf"writing to redis://127.0.0.1:{redis_server.port}/2 under 'queue'")
    with Redis.from_url(redis_server.url_db(2)) as client:
        eventually(lambda: Stored(client).workers)
    assert {} == stored.workers


def test_the_state_goes_to_the_result_backend(
    start_worker: StartWorker, redis_server: RedisServer, folder: Path, stored: Stored
) -> None:
    """If that is Redis and the broker is not."""
    _folder_worker(start_worker, folder, redis_server.url)
    app = folder_app.make_folder_app(str(folder), redis_server.url)
    task_id = app.tasks["tests.add"].delay(2, 3).id
    eventually(lambda: task_id in stored.finished)
    app.close()


def test_without_redis_the_plugin_is_off(start_worker: StartWorker, folder: Path, tmp_path: Path) -> None:
    """One clear line says what is missing, and the worker works."""
    results = tmp_path / "results"
    results.mkdir()
    worker = _folder_worker(start_worker, folder, results.as_uri())
    assert 1 == worker.output.count("celery_plugin is off: neither broker nor result backend is Redis")
    assert "SIDECAR_REDIS_URL" in worker.output
    app = folder_app.make_folder_app(str(folder), results.as_uri())
    assert 5 == app.tasks["tests.add"].delay(2, 3).get(timeout=30)
    app.close()


def test_prefix_and_redis_come_from_the_environment(
    start_worker: StartWorker, celery_app: Celery, start_redis: StartRedis, stored: Stored
) -> None:
    """State Redis and broker may be two, and an application may have a prefix of its own."""
    state = start_redis("--requirepass", "geheim")
    url = state.url_db(3, password="geheim")
    worker = start_worker(env={"SIDECAR_REDIS_URL": url, "SIDECAR_PREFIX": "shop"}, pool="solo")
    task_id = celery_app.tasks["tests.add"].delay(2, 3).id
    with Redis.from_url(url) as client:
        eventually(lambda: client.hexists("shop:finished_tasks", task_id))
    assert [] == list(stored.raw())
    assert f"writing to redis://127.0.0.1:{state.port}/3 under 'shop'" in worker.output
    assert "geheim" not in worker.output


WRONG = {
    "two mistakes": (
        {"SIDECAR_REDIS_URL": "http://:geheim@host", "SIDECAR_PREFIX": "a b"},
        "SIDECAR_REDIS_URL is not redis://, rediss://, unix://, sentinel:// or redis+cluster://; "
        "SIDECAR_PREFIX is not 1 to 64 of",
    ),
    "a Cluster and another mistake": (
        {"SIDECAR_REDIS_URL": "redis+cluster://:geheim@a/1;redis+cluster://b", "SIDECAR_LOG_MAX": "x"},
        "SIDECAR_REDIS_URL: a Cluster has no database but 0; SIDECAR_LOG_MAX is not",
    ),
    "a prefix that a Cluster would spread": (
        {"SIDECAR_REDIS_URL": "redis+cluster://:geheim@a", "SIDECAR_LOG_MAX": "x"},
        "SIDECAR_LOG_MAX is not a number from 1; SIDECAR_PREFIX: in a Redis Cluster",
    ),
    "no master's name": (
        {"SIDECAR_REDIS_URL": "sentinel://:geheim@a;sentinel://b"},
        "SIDECAR_REDIS_URL: it does not say the master's name, as ?master_name=mymaster",
    ),
    "an option of no Redis": (
        {"SIDECAR_REDIS_URL": "redis://:geheim@host/0?colour=red"},
        "redis-py does not understand the URL",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_settings_stop_no_worker(kind: str, start_worker: StartWorker, celery_app: Celery) -> None:
    """One line without a secret and without a traceback; the worker works."""
    env, expected = WRONG[kind]
    worker = start_worker(env=env, pool="solo")
    assert 5 == celery_app.tasks["tests.add"].delay(2, 3).get(timeout=30)
    assert 1 == worker.output.count("celery_plugin is off, the worker goes on without it: " + expected)
    assert "geheim" not in worker.output
    assert "Traceback" not in worker.output
