"""The promise that a worker gets the plugin without a call in application code, in every way and pool."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from tests.support.batches import Stored
from tests.support.deadline import eventually
from tests.support.starters import StartWorker


def _sees_tasks(stored: Stored, app: Celery) -> None:
    task_id = app.tasks["tests.add"].delay(2, 3).id
    record = eventually(lambda: stored.finished.get(task_id), what="the plugin tells of the task")
    assert ("completed", "tests.add", "(2, 3)") == (record["status"], record["task_name"], record["args"])
    assert ["reserved", "active", "completed"] == stored.statuses(task_id)
    (worker,) = stored.workers.values()
    assert (record["worker"], "online") == (worker["worker"], worker["status"])


WAYS: dict[str, dict[str, Any]] = {
    "-I celery_plugin": {"plugin": False, "arguments": ("-I", "celery_plugin"), "pool": "prefork"},
    "imports": {"plugin": False, "app": "tests.support.importing_app", "pool": "solo"},
    "CELERY_WORKER_INCLUDE": {"plugin": True, "pool": "threads"},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_plugin_is_loaded(
    way: str, start_worker: StartWorker, celery_app: Celery, stored: Stored
) -> None:
    """By the command line, by the configuration or by the environment alone."""
    start_worker(**WAYS[way])
    _sees_tasks(stored, celery_app)


FLAGS = {
    "-E": ("prefork", "-E"),
    "--without-heartbeat": ("solo", "--without-heartbeat"),
    "--without-gossip": ("solo", "--without-gossip"),
    # With both, and without -E, Celery disables the dispatcher.
    "both on prefork": ("prefork", "--without-heartbeat", "--without-gossip"),
    "both on solo": ("solo", "--without-heartbeat", "--without-gossip", "--without-mingle"),
}


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_of_the_worker_change_nothing(
    flags: str, start_worker: StartWorker, celery_app: Celery, stored: Stored
) -> None:
    """The plugin sees the tasks whatever Celery itself is told to send."""
    pool, *arguments = FLAGS[flags]
    start_worker(pool=pool, arguments=tuple(arguments))
    _sees_tasks(stored, celery_app)


def test_without_the_plugin_nothing_is_written(
    start_worker: StartWorker, celery_app: Celery, stored: Stored
) -> None:
    """What the other tests see comes from the plugin."""
    start_worker(plugin=False, pool="solo")
    assert 5 == celery_app.tasks["tests.add"].delay(2, 3).get(timeout=30)
    assert [] == list(stored.raw())


def test_the_producer_needs_no_plugin(celery_app: Celery) -> None:
    """An application that only enqueues never imports it."""
    assert "celery.events.dispatcher:EventDispatcher" == celery_app.events.dispatcher_cls
