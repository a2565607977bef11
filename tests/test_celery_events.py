"""The promise that Celery's own events stay as they were: Flower and its kind see no difference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event as Flag
from threading import Thread
from typing import Any

import pytest
from celery import Celery
from celery.events import EventReceiver

from tests.support import tasks_app
from tests.support.deadline import eventually
from tests.support.starters import StartRedis, StartWorker

JSON = dict[str, Any]

# What differs from run to run, though not by the plugin.
VOLATILE = {
    "clock",
    "hostname",
    "local_received",
    "parent_id",
    "pid",
    "root_id",
    "runtime",
    "timestamp",
    "traceback",
    "uuid",
}
TASKS: list[tuple[str, tuple[Any, ...]]] = [
    ("tests.add", (1, 2)),
    ("tests.fail", ("no",)),
    ("tests.echo", ("ü", [1])),
]
RETRIED: list[tuple[str, tuple[Any, ...]]] = [("tests.retry_once", (0,))]
ENDS = ("task-succeeded", "task-failed")


class Receiver:
    """A real event receiver in a thread."""

    def __init__(self, app: Celery) -> None:
        self.seen: list[JSON] = []
        self._app = app
        self._ready = Flag()
        self._thread = Thread(target=self._capture)

    def start(self) -> None:
        """Return when nothing that is sent from now on can be missed."""
        self._thread.start()
        assert self._ready.wait(30), "the receiver consumes"

    def stop(self) -> None:
        """End the thread."""
        self._receiver.should_stop = True
        self._thread.join(30)

    def of_tasks(self) -> list[JSON]:
        """The events of tasks."""
        return [event for event in self.seen if event["type"].startswith("task-")]

    def _capture(self) -> None:
        with self._app.connection_for_read() as connection:
            self._receiver = EventReceiver(connection, handlers={"*": self.seen.append}, app=self._app)
            ready = self._receiver.on_consume_ready

            def on_consume_ready(*args: Any, **kwargs: Any) -> None:
                ready(*args, **kwargs)
                self._ready.set()

            self._receiver.on_consume_ready = on_consume_ready
            self._receiver.capture(limit=None, timeout=None, wakeup=False)


@contextmanager
def _receiving(app: Celery) -> Iterator[Receiver]:
    receiver = Receiver(app)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()


def _told(url: str, tasks: list[tuple[str, tuple[Any, ...]]], *, events: bool) -> list[JSON]:
    """Run the tasks one after the other and return what was sent."""
    app = tasks_app.make_producer(url)
    with _receiving(app) as receiver:
        for name, arguments in tasks:
            result = app.tasks[name].apply_async(arguments)
            result.get(timeout=30, propagate=False)
            if events:
                eventually(lambda result=result: _ended(receiver, result.id), what="its end is told")
        # The worker answers in its turn: what it had to say before has come.
        app.control.broadcast("heartbeat")
        eventually(lambda: any(event.get("freq") == 5 for event in receiver.seen), what="the heartbeat")
        seen = receiver.seen
    app.close()
    return seen


def _ended(receiver: Receiver, task_id: str) -> bool:
    return any(event["type"] in ENDS and event["uuid"] == task_id for event in receiver.of_tasks())


def _comparable(events: list[JSON]) -> list[tuple[str, int, JSON, list[str]]]:
    """Type, which task, the values that do not differ by chance, and the names of all fields."""
    tasks = [event for event in events if event["type"].startswith("task-")]
    ids = list(dict.fromkeys(event["uuid"] for event in tasks))
    return [
        (
            event["type"],
            ids.index(event["uuid"]),
            {name: value for name, value in event.items() if name not in VOLATILE},
            sorted(event),
        )
        for event in tasks
    ]


@pytest.mark.parametrize(("pool", "tasks"), [("prefork", TASKS), ("solo", TASKS + RETRIED)])
def test_celery_sends_the_same_events(
    start_redis: StartRedis, start_worker: StartWorker, pool: str, tasks: list[tuple[str, tuple[Any, ...]]]
) -> None:
    """With -E, the same sequence with the same fields, with the plugin and without."""
    urls = {plugin: start_redis().url for plugin in (False, True)}
    for plugin, url in urls.items():
        start_worker(url, pool=pool, concurrency=1, events=True, plugin=plugin)
    bare, watched = (_told(url, tasks, events=True) for url in urls.values())
    assert ["task-received", "task-started", "task-succeeded"] == [told[0] for told in _comparable(bare)[:3]]
    assert _comparable(bare) == _comparable(watched)
    assert {event["type"] for event in bare} == {event["type"] for event in watched}


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_without_e_the_plugin_makes_celery_send_nothing_of_tasks(
    start_redis: StartRedis, start_worker: StartWorker, pool: str
) -> None:
    """Heartbeats alone, as without the plugin."""
    url = start_redis().url
    start_worker(url, pool=pool, concurrency=1)
    told = _told(url, TASKS, events=False)
    assert {"worker-heartbeat"} == {event["type"] for event in told}
