"""The promises about progress, with real workers: it is shown, as it is now, and no task notices."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import AsyncResult
from redis import Redis

from celery_plugin.contract import RECORD_MAX_BYTES, Keys
from celery_plugin.operations import Other
from celery_plugin.progress import Progress, ToRedis
from celery_plugin.script import Script
from celery_plugin.settings import Settings
from celery_plugin.writer import PROGRESS
from deploy.demo.redis_server import RedisServer
from tests.support.batches import Sender, Stored, step
from tests.support.celery_worker import Worker
from tests.support.deadline import eventually
from tests.support.processes import descendants, runs
from tests.support.starters import StartRedis, StartWorker
from tests.support.tasks_app import Gate

POOLS = ["prefork", "solo", "threads", "gevent"]
APP = "tests.support.progress_app"

Call = Callable[..., AsyncResult]


@pytest.fixture
def state(start_redis: StartRedis) -> RedisServer:
    """A Redis for the state alone, so that it may go while broker and tasks go on."""
    return start_redis()


@pytest.fixture
def stored(state: RedisServer) -> Iterator[Stored]:
    """What stands in it."""
    with Redis.from_url(state.url) as client:
        yield Stored(client)


@pytest.fixture
def start(start_worker: StartWorker, state: RedisServer) -> Callable[..., Worker]:
    """Start a worker of these tasks."""

    def start_it(**options: Any) -> Worker:
        return start_worker(env={"SIDECAR_REDIS_URL": state.url}, **{"app": APP, "concurrency": 1} | options)

    return start_it


@pytest.fixture
def call(celery_app: Celery) -> Call:
    """Enqueue a task of the module above by its name."""
    # Before 5.7 an old result tries for 20 s to tell a Redis that has gone that nobody waits for it.
    celery_app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 1}}

    def enqueue(name: str, *arguments: Any, **options: Any) -> AsyncResult:
        return celery_app.send_task(f"progress.{name}", arguments, **options)

    return enqueue


def shown(stored: Stored, task_id: str) -> dict[str, Any]:
    """The progress of a task that runs, {} where it has none."""
    return stored.active.get(task_id, {}).get("progress", {})  # type: ignore[no-any-return]  # it is JSON


def told(stored: Stored, task_id: str) -> list[dict[str, Any]]:
    """Each progress that the stream tells of a task."""
    events = [event for event in stored.events if event.get("task_id") == task_id]
    return [event["progress"] for event in events if "progress" in event]


# -- it is shown -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
def test_progress_is_shown_while_a_task_runs(
    pool: str, start: Callable[..., Worker], celery_app: Celery, stored: Stored, gate: Gate
) -> None:
    """A task that knows nothing of the plugin: in its record, in the stream, in the hash; gone at its end."""
    worker = start(pool=pool, app="tests.support.tasks_app")
    task_id = celery_app.tasks["tests.progress"].delay("Half way", str(gate)).id
    eventually(lambda: shown(stored, task_id))
    progress = shown(stored, task_id)
    assert 0 <= time.time() - progress.pop("updated_at") < 30
    assert {"message": "Half way", "current": 1, "total": 2, "percent": 50} == progress
    assert "Half way" == stored.active[task_id]["message"]
    assert shown(stored, task_id) == stored.progress[task_id]
    assert [shown(stored, task_id)] == told(stored, task_id)
    gate.open()
    eventually(lambda: task_id in stored.finished)
    assert {} == stored.progress
    assert "progress" not in stored.finished[task_id]
    assert ["reserved", "active", "completed"] == list(dict.fromkeys(stored.statuses(task_id)))
    assert 0 == worker.stop()
    assert "Traceback" not in worker.output


@pytest.mark.parametrize("pool", POOLS)
def test_a_flood_reaches_redis_ten_times_a_second(
    pool: str, start: Callable[..., Worker], call: Call, stored: Stored, gate: Gate
) -> None:
    """Of a thousand updates and more in a tight loop, a few reach Redis, and the last one is there."""
    start(pool=pool)
    result = call("flood", 1000, 0.5, str(gate))
    eventually(lambda: shown(stored, result.id).get("message") == "Last")
    gate.open()
    count, seconds = result.get(timeout=30)
    seen = told(stored, result.id)
    assert 1000 <= count == seen[-1]["current"]
    assert 2 <= len(seen) <= 2 + 10 * seconds
    eventually(lambda: result.id in stored.finished)
    assert {} == stored.progress


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_without_a_result_backend(
    pool: str, start: Callable[..., Worker], call: Call, stored: Stored, gate: Gate
) -> None:
    """Celery stores nothing then, and says nothing; progress is shown all the same."""
    start(pool=pool, backend="disabled://")
    task_id = call("say", [{"file": "a"}, {"file": "b"}], str(gate), "UPLOADING").id
    eventually(lambda: shown(stored, task_id).get("message") == "{'file': 'b'}")
    assert ("UPLOADING", "{'file': 'b'}") == (
        shown(stored, task_id)["state"],
        stored.active[task_id]["message"],
    )
    gate.open()


def test_a_backend_that_raises_raises(
    start: Callable[..., Worker], call: Call, stored: Stored, tmp_path: Path
) -> None:
    """The task gets what it would get without the plugin, and its progress is shown."""
    start(backend=f"{APP}:RaisingBackend")
    answer = tmp_path / "answer"
    task_id = call("raises", str(answer)).id
    eventually(lambda: shown(stored, task_id))
    assert "Told all the same" == shown(stored, task_id)["message"]
    assert f"no place for {task_id}" == eventually(lambda: answer.exists() and answer.read_text())
    Gate(tmp_path / "answer.gate").open()
    eventually(lambda: task_id in stored.finished)
    assert "completed" == stored.finished[task_id]["status"]


def test_progress_before_the_start_is_kept(state: RedisServer, stored: Stored) -> None:
    """It mostly comes before the worker has told that the task runs; it is shown with that."""
    json_text = '{"message":"Early","updated_at":1.000}'
    with Redis.from_url(state.url) as client:
        worker = Sender(client)
        worker.begin()
        early = Other("a", (PROGRESS, json_text, "a"))
        worker.send(early, number=0)
        worker.send(step("a", "reserved"))
        worker.send(early, number=0)
        assert [] == told(stored, "a")
        worker.send(step("a", "active"))
        assert "Early" == shown(stored, "a")["message"] == stored.active["a"]["message"]
        worker.send(step("a", "completed"))
        worker.send(early, number=0)
    assert {} == stored.progress
    assert "progress" not in stored.finished["a"]


def test_progress_of_the_next_run_in_the_batch_stays(state: RedisServer, stored: Stored) -> None:
    """One batch may have the end of a run, the start of the next one, and what that says."""
    again = Other("a", (PROGRESS, '{"message":"Again","updated_at":2.000}', "a"))
    with Redis.from_url(state.url) as client:
        worker = Sender(client)
        worker.begin()
        worker.send(step("a", "active", "one/1"), Other("a", (PROGRESS, '{"updated_at":1.000}', "a")))
        worker.send(step("a", "retrying", "one/1"), step("a", "active", "one/2"), again)
    assert "Again" == shown(stored, "a")["message"]
    assert shown(stored, "a") == stored.progress["a"]


def test_the_end_of_another_run_takes_no_progress(state: RedisServer, stored: Stored) -> None:
    """A run before ends late, while the task runs and says how far it is."""
    said = Other("a", (PROGRESS, '{"message":"On","updated_at":2.000}', "a"))
    with Redis.from_url(state.url) as client:
        worker = Sender(client)
        worker.begin()
        worker.send(step("a", "active", "one/1"), step("a", "active", "one/2"), said)
        worker.send(step("a", "retrying", "one/1"))
        assert "On" == shown(stored, "a")["message"]
        assert shown(stored, "a") == stored.progress["a"]
        worker.send(step("a", "completed", "one/2"))
    assert {} == stored.progress


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_nothing_stays_of_short_tasks(
    pool: str, start: Callable[..., Worker], call: Call, stored: Stored
) -> None:
    """What a task says at its very end is not told after it."""
    start(pool=pool, concurrency=4)
    ids = {call("say", [{"current": number} for number in range(3)]).id for _ in range(100)}
    eventually(lambda: ids == set(stored.finished))
    assert {} == stored.progress
    for task_id in ids:
        assert "completed" == stored.statuses(task_id)[-1]


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_only_the_task_that_runs_is_told(
    pool: str, start: Callable[..., Worker], call: Call, stored: Stored, gate: Gate
) -> None:
    """Not another id, not a task that runs eagerly inside it or is called; its own id always."""
    start(pool=pool)
    task_id = call("of_others", str(gate)).id
    eventually(lambda: shown(stored, task_id).get("current") == 1)
    assert {task_id} == set(stored.progress)
    assert {"By another's method", "By the current task"} >= {
        seen["message"] for seen in told(stored, task_id)
    }
    gate.open()
    eventually(lambda: task_id in stored.finished)
    assert {} == stored.progress


def test_the_record_stays_small(start: Callable[..., Worker], call: Call, stored: Stored, gate: Gate) -> None:
    """With long arguments and all that progress may say it is 1 KB at most; it goes before arguments."""
    start()
    meta = {"message": "ü" * 200, "current": 999_999_999_999_999, "total": 1e15}
    task_id = call("say", [meta, meta], str(gate), argsrepr="é" * 2000, kwargsrepr="x" * 2000).id
    eventually(lambda: shown(stored, task_id))
    client: Any = stored.client
    assert client.hstrlen("queue:active_tasks", task_id) <= RECORD_MAX_BYTES
    assert all(len(event) + len(extra) <= RECORD_MAX_BYTES for _, event, extra in stored.entries)
    assert stored.active[task_id]["message"].startswith("üüü")
    gate.open()


# -- children of the pool --------------------------------------------------------------------------------


def _threads(worker: Worker) -> list[int]:
    """How many threads each child of the pool has."""
    return sorted(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in descendants(worker.pid))


def _connections(stored: Stored) -> int:
    """How many connections of the plugin there are: one is the writer's."""
    client: Any = stored.client
    return sum(found["name"] == "celery-sidecar-plugin" for found in client.client_list())


def test_a_child_has_a_thread_only_when_it_needs_one(
    start: Callable[..., Worker], call: Call, stored: Stored
) -> None:
    """Neither thread nor connection where nothing is reported, and one of each however much is."""
    worker = start(concurrency=2)
    ids = [call("say", []).id for _ in range(10)]
    eventually(lambda: set(ids) == set(stored.finished))
    assert ([1, 1], 1) == (_threads(worker), _connections(stored))
    for _ in range(10):
        call("flood", 10, 0.0).get(timeout=30)
    assert _threads(worker) in ([1, 2], [2, 2])
    assert _connections(stored) <= 3


def test_children_that_run_one_task_each(
    start: Callable[..., Worker], call: Call, stored: Stored, state: RedisServer, gate: Gate
) -> None:
    """Each has a thread of its own and none waits for it at its end, also where Redis does not answer."""
    start(arguments=("--max-tasks-per-child=1",))
    for name in ("first", "second"):
        its_gate = Gate(gate.path.with_name(name))
        task_id = call("say", [{"message": name}], str(its_gate)).id
        eventually(lambda task_id=task_id: shown(stored, task_id))
        assert name == shown(stored, task_id)["message"]
        its_gate.open()
    state.pause()
    # Had one waited for its thread, it would have been for the socket's time limit of 2 s.
    for _ in range(3):
        pid = call("say_where").get(timeout=30)
        eventually(lambda pid=pid: not runs(pid), seconds=1.5)
    state.resume()
    eventually(lambda: 5 == len(stored.finished) and {} == stored.progress)


def test_a_process_that_a_task_forks_tells_too(
    start: Callable[..., Worker], call: Call, stored: Stored, gate: Gate
) -> None:
    """It begins anew: with a thread and a connection of its own."""
    worker = start()
    task_id = call("forks", str(gate)).id
    eventually(lambda: shown(stored, task_id).get("message") == "From the child of the child")
    # The first child's thread may still be connecting when its own child has told.
    eventually(lambda: 3 == _connections(stored))
    assert [2, 2] == _threads(worker)
    gate.open()
    eventually(lambda: task_id in stored.finished)


def test_what_a_process_says_late_does_not_undo_what_another_said_since(stored: Stored) -> None:
    """Of the processes of one task, one may still connect while another has told. A clock that was set back
    long ago does not stand in the way."""
    sender = Sender(stored.client)
    sender.begin()
    now = time.time()

    def say(message: str, at: float) -> str:
        said = f'{{"message":"{message}","updated_at":{at:.3f}}}'
        sender.send(Other("a", (PROGRESS, said, "a")), number=0)
        return str(stored.progress["a"]["message"])

    sender.send(step("a", "active"))
    assert "second" == say("second", now)
    assert "second" == say("first", now - 1)
    assert "third" == say("third", now)
    assert "set back" == say("set back", now - 3600)
    assert ["second", "third", "set back"] == [progress["message"] for progress in told(stored, "a")]


def test_a_process_is_held_up_by_no_other_that_connects(state: RedisServer) -> None:
    """A fork finds every lock as it was held: no two of them may have one in common."""
    connecting, go_on = Event(), Event()

    def slowly() -> None:
        connecting.set()
        assert go_on.wait(30)
        raise ConnectionError("Redis is away")

    with Redis.from_url(state.url) as client, ThreadPoolExecutor(2) as threads:
        script = Script(Keys())
        first = threads.submit(ToRedis(slowly, script, Settings(), "one"), [("a", "{}")])
        try:
            assert connecting.wait(30)
            threads.submit(ToRedis(lambda: client, script, Settings(), "one"), [("b", "{}")]).result(30)
        finally:
            go_on.set()
        assert isinstance(first.exception(), ConnectionError)


# -- no task notices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
def test_tasks_report_at_full_speed_while_redis_is_away(
    pool: str, start: Callable[..., Worker], call: Call, state: RedisServer, stored: Stored, gate: Gate
) -> None:
    """Nothing waits, at most one line says so, and afterwards the latest is shown."""
    worker = start(pool=pool, backend="disabled://")
    task_id = call("say", [{"message": "Before"}], f"{gate}.first").id
    eventually(lambda: shown(stored, task_id))
    state.pause()
    Gate(gate.path.with_name(f"{gate.path.name}.first")).open()
    begin = time.monotonic()
    flooding = call("flood", 100_000, 3.0, str(gate)).id
    worker.wait_for_line("(progress does not reach|cannot write to) Redis")
    state.resume()
    eventually(lambda: shown(stored, flooding).get("message") == "Last")
    # 100,000 updates, each of which costs some microseconds, and what Redis was away for.
    assert time.monotonic() - begin < 25
    gate.open()
    eventually(lambda: {task_id, flooding} == set(stored.finished))
    assert worker.output.count("progress does not reach Redis") <= 1
    assert "Traceback" not in worker.output


@pytest.fixture
def observed() -> Iterator[list[tuple[str, str]]]:
    """What a watch in this process observes, task id and JSON of each; it ends with the test."""
    original = Task.update_state
    seen: list[tuple[str, str]] = []
    progress = Progress(lambda _, fields: seen.append((fields["of"], fields["json"])), lambda: seen.extend)
    progress.watch()
    yield seen
    Task.update_state = original


def _nothing() -> None:
    """Do nothing."""


@pytest.fixture
def task() -> Iterator[Task]:
    """A task that runs in this thread as it does in a worker, under the id `here`."""
    app = Celery("here", broker="memory://", backend="disabled://", set_as_current=False)
    task = app.task(_nothing, name="here.task", lazy=False)
    task.push_request(id="here", called_directly=False)
    yield task
    task.pop_request()
    app.close()


def test_the_method_looks_as_it_did(observed: list[tuple[str, str]], task: Task) -> None:
    """Its signature, its name and its words for a wrong call are Celery's; it returns what it did."""
    original = inspect.unwrap(Task.update_state)
    assert original is not Task.update_state
    assert inspect.signature(original) == inspect.signature(Task.update_state)
    assert (original.__qualname__, original.__doc__) == (
        Task.update_state.__qualname__,
        Task.update_state.__doc__,
    )
    with pytest.raises(TypeError, match=r"update_state\(\) takes from 1 to 4"):
        task.update_state(1, 2, 3, 4, 5)
    assert None is task.update_state(None, "PROGRESS", {"message": "By position"})
    eventually(lambda: observed)
    assert ["here"] == [task_id for task_id, _ in observed]
    assert "By position" == json.loads(observed[0][1])["message"]


class _Raising(dict[str, Any]):
    """A meta that raises when it is looked into."""

    def __init__(self, error: Exception) -> None:
        super().__init__(a=1)
        self.error = error

    def get(self, *_: Any) -> Any:
        """Raise."""
        raise self.error


def test_no_fault_of_ours_reaches_a_task(
    observed: list[tuple[str, str]], task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes wrong in telling is logged, once; the task's own time limit is the task's."""
    for _ in range(3):
        task.update_state(state="PROGRESS", meta=_Raising(ValueError("odd")))
    assert ["celery_plugin: a task's progress is given up: odd"] == [
        record.getMessage() for record in caplog.records
    ]
    with pytest.raises(SoftTimeLimitExceeded):
        task.update_state(state="PROGRESS", meta=_Raising(SoftTimeLimitExceeded()))
    assert [] == observed
