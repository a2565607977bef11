"""Starts to watch when a worker has been set up. A fault here never stops a worker."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import weakref
from functools import partial
from typing import Any

from celery import signals
from celery.bootsteps import CLOSE, TERMINATE
from kombu.utils.encoding import safe_repr
from kombu.utils.imports import symbol_by_name

from celery_plugin.connections import BadUrl, make_client
from celery_plugin.contract import Keys
from celery_plugin.depths import DepthMeter
from celery_plugin.dispatcher import lend_dispatcher, observing
from celery_plugin.events import RECEIVED, UNRECEIVED
from celery_plugin.progress import Progress, ToRedis
from celery_plugin.queues import QueueNames
from celery_plugin.redact import Redactor
from celery_plugin.requests import observe_requests
from celery_plugin.runs import Run, read_run
from celery_plugin.script import Script
from celery_plugin.settings import Settings, SettingsError, load
from celery_plugin.state_redis import Place, find_redis, named_redis
from celery_plugin.worker import WorkerRecord, new_worker_id
from celery_plugin.writer import STOPPING, UNFETCHED, Writer

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
    place = named_redis(settings) or find_redis(worker.app)
    if place is None:
        logger.error(
            "celery_plugin is off: neither broker nor result backend is Redis; "
            "say where the state goes with SIDECAR_REDIS_URL=redis://…"
        )
        return
    watcher = _Watcher(worker, settings, place)
    watcher.start()


class _Watcher:
    """Ties one worker to its writer."""

    def __init__(self, worker: Any, settings: Settings, place: Place) -> None:
        client = make_client(*place)
        database = client.connection_pool.connection_kwargs.get("db") or 0
        self._worker = worker
        self._pid = os.getpid()
        self._queues = QueueNames(worker.app)
        self._numbers = itertools.count(1)
        record = WorkerRecord(worker, new_worker_id(worker.hostname), settings.lease_seconds)
        script = Script(Keys(settings.prefix, int(database)))
        self._hostname = worker.hostname
        self._worker_id = record.worker_id
        self._writer = Writer(script, client, settings, record)
        self._observe = self._writer.observe
        from_child = partial(ToRedis, partial(make_client, *place), script, settings, record.worker_id)
        self._progress = Progress(self._observe, from_child, Redactor(settings.redact).repr_text)
        logger.info("celery_plugin: writing to %s under %r", place, settings.prefix)
        self._depths = DepthMeter(worker.app, self._observe, settings.lease_renew_seconds)

    def start(self) -> None:
        """Begin to watch; the writer's thread starts when the pool has forked its children."""
        events = self._worker.app.events
        base = symbol_by_name(events.dispatcher_cls)
        events.dispatcher_cls = observing(base, self._hostname, self._offline)
        # Celery keeps the class once it was asked for.
        events.__dict__.pop("Dispatcher", None)
        lend_dispatcher(self._worker.consumer)
        observe_requests(self._worker.app, self._tell)
        self._progress.watch()
        signals.task_received.connect(self._received, weak=False)
        signals.task_unknown.connect(self._unknown, weak=False)
        signals.task_rejected.connect(self._invalid, weak=False)
        signals.worker_ready.connect(self._ready, weak=False)
        signals.worker_shutting_down.connect(self._shutting_down, weak=False)
        signals.worker_shutdown.connect(self._stop, weak=False)
        atexit.register(self._stop)

    def _ready(self, **_: Any) -> None:
        self._writer.start()
        self._depths.start()

    def _received(self, request: Any, **_: Any) -> None:
        if request.hostname == self._hostname:
            run = self._run(request.request_dict, request.task)
            run.request = weakref.ref(request)
            request.sidecar_run = run
            self._observe(RECEIVED, {}, run)

    def _run(self, headers: Any, task: Any = None) -> Run:
        queue = self._queues.of(headers.get("delivery_info") or {})
        run_id = f"{self._worker_id}/{next(self._numbers)}"
        return read_run(run_id, headers, queue, getattr(task, "max_retries", None))

    def _tell(self, request: Any, event: str, fields: dict[str, Any]) -> None:
        if request.sidecar_run is not None:
            self._observe(event, fields, request.sidecar_run)
        elif request.hostname == self._hostname:
            self._tell_unreceived(self._run(request.request_dict, request.task), event, fields)

    def _tell_unreceived(self, run: Run, event: str, ending: dict[str, Any]) -> None:
        self._observe(UNRECEIVED, {"event": event, "ending": ending}, run)

    def _unknown(self, sender: Any, message: Any, name: str, id: str, **_: Any) -> None:  # noqa: A002  # Celery's
        if sender.hostname == self._hostname:
            facts = {"id": id, "task": name, "delivery_info": _delivery(message)}
            ending = {"exception": f"NotRegistered({name!r})"}
            self._tell_unreceived(self._run({**message.headers, **facts}), "task-failed", ending)

    def _invalid(self, sender: Any, message: Any, exc: BaseException | None, **_: Any) -> None:
        if sender.hostname == self._hostname and {"id", "task"} <= set(message.headers or ()):
            run = self._run({**message.headers, "delivery_info": _delivery(message)})
            self._tell_unreceived(run, "task-rejected", {"exception": safe_repr(exc)})

    def _offline(self) -> None:
        # Celery says so also where it has lost the broker; then it comes back.
        ends = self._worker.blueprint.state in (CLOSE, TERMINATE)
        self._observe(STOPPING if ends else UNFETCHED, {})

    def _shutting_down(self, **_: Any) -> None:
        if os.getpid() == self._pid:
            self._observe(STOPPING, {})

    def _stop(self, **_: Any) -> None:
        # A child of the pool inherits this handler.
        if os.getpid() == self._pid:
            self._depths.stop()
            self._writer.stop()


def _delivery(message: Any) -> dict[str, Any]:
    return {**(message.delivery_info or {}), "priority": (message.properties or {}).get("priority")}
