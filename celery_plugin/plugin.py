"""Starts to watch when a worker has been set up. A fault here never stops a worker."""

from __future__ import annotations

import atexit
import logging
import os
from typing import Any
from urllib.parse import urlsplit

from celery import signals
from kombu.utils.imports import symbol_by_name

from celery_plugin.connections import BadUrl, make_client
from celery_plugin.contract import Keys
from celery_plugin.dispatcher import lend_dispatcher, observing
from celery_plugin.events import RECEIVED, received_fields
from celery_plugin.queues import QueueNames
from celery_plugin.script import Script
from celery_plugin.settings import Settings, SettingsError, load
from celery_plugin.worker import WorkerRecord, new_worker_id
from celery_plugin.writer import Writer

logger = logging.getLogger("celery_plugin")


def install() -> None:
    """Connect to the signal that Celery sends when a worker has been set up."""
    signals.celeryd_after_setup.connect(_after_setup, weak=False, dispatch_uid="celery_plugin")


def _after_setup(sender: str, instance: Any, **_: Any) -> None:
    try:
        _watch(instance)
    except (SettingsError, BadUrl) as error:
        logger.error("celery_plugin is off, the worker goes on without it: %s", error)
    except Exception:
        logger.exception("celery_plugin is off, the worker goes on without it")


def _watch(worker: Any) -> None:
    settings = load(worker.app.conf)
    url = settings.redis_url or _redis_of(worker.app)
    if url is None:
        logger.error(
            "celery_plugin is off: neither broker nor result backend is Redis; "
            "say where the state goes with SIDECAR_REDIS_URL=redis://…"
        )
        return
    watcher = _Watcher(worker, settings, url)
    watcher.start()


def _redis_of(app: Any) -> str | None:
    """The broker's URL if it is Redis, else the result backend's if it is."""
    broker = app.connection_for_read().as_uri(include_password=True)
    for url in (broker, app.conf.result_backend):
        scheme = urlsplit(url or "").scheme
        if scheme in ("redis", "rediss"):
            return str(url)
        if scheme == "redis+socket":
            return str(url).replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=")
    return None


class _Watcher:
    """Ties one worker to its writer."""

    def __init__(self, worker: Any, settings: Settings, url: str) -> None:
        client = make_client(url)
        database = client.connection_pool.connection_kwargs.get("db") or 0
        self._worker = worker
        self._pid = os.getpid()
        self._queues = QueueNames(worker.app)
        record = WorkerRecord(worker, new_worker_id(worker.hostname))
        self._writer = Writer(Script(Keys(settings.prefix, int(database))), client, settings, record)
        logger.info("celery_plugin: writing to %s under %r", _without_password(url), settings.prefix)

    def start(self) -> None:
        """Begin to watch; the writer's thread starts when the pool has forked its children."""
        events = self._worker.app.events
        base = symbol_by_name(events.dispatcher_cls)
        events.dispatcher_cls = observing(base, self._worker.hostname, self._writer.observe)
        # Celery keeps the class once it was asked for.
        events.__dict__.pop("Dispatcher", None)
        lend_dispatcher(self._worker.consumer)
        signals.task_received.connect(self._received, weak=False)
        signals.worker_ready.connect(self._ready, weak=False)
        signals.worker_shutdown.connect(self._stop, weak=False)
        atexit.register(self._stop)

    def _ready(self, **_: Any) -> None:
        self._writer.start()

    def _received(self, request: Any, **_: Any) -> None:
        if request.hostname == self._worker.hostname:
            queue = self._queues.of(request.delivery_info)
            self._writer.observe(RECEIVED, received_fields(request, queue))

    def _stop(self, **_: Any) -> None:
        # A child of the pool inherits this handler.
        if os.getpid() == self._pid:
            self._writer.stop()


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
