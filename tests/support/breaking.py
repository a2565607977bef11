"""A sidecar with clients of every kind and workers that are busy, and what can break between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
from redis import Redis

from celery_plugin.contract import Position
from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.batches import Stored
from tests.support.celery_worker import launch_worker, wait_until_ready
from tests.support.checking import Client, Logs, Looks, Reader, open_tasks, read_log
from tests.support.deadline import eventually
from tests.support.load import Load
from tests.support.proxy import Proxy
from tests.support.sidecar_process import Sidecar, launch_sidecar, wait_until_alive
from tests.support.tasks_app import make_app

# What breaks, and for how long what lasts: a silent connection is given up after 6 s.
FAULTS = ("subscriptions", "sidecar", "pause", "slow", "buffer", "restart", "black_hole", "empty")
RATE = 150.0
# How many steps come between two faults, and while one lasts.
BETWEEN = 100
CATCH_UP_SECONDS = 60.0

TASKS = ("task_status",)
TWO = "celery@two"
LOOKS = (
    Looks("all"),
    Looks("active", {"status": "active"}, TASKS, lambda task: task["status"] == "active"),
    Looks("queue", {"queue": "high"}, TASKS, lambda task: task.get("queue") == "high"),
    Looks("name", {"task_name": "tests.*"}, TASKS, lambda task: task["task_name"].startswith("tests.")),
    Looks(
        "worker",
        {"worker": "celery@two", "types": "task_status"},
        TASKS,
        lambda task: task["worker"] == "celery@two",
    ),
    Looks("workers", {"types": "worker_status"}, ("worker_status",)),
)


@dataclass
class Report:
    """What came of it."""

    faults: list[str]
    events: int  # of the log
    seen: int  # by all clients
    clients: int
    connections: int
    resets: list[str]


class Site:
    """Use it in a `with`; ``seed`` decides what tasks and clients do."""

    def __init__(self, seed: int, clients: int = 1, rate: float = RATE) -> None:
        self._seed, self._of_each, self._rate = seed, clients, rate
        self._logs: Logs = {}
        self._clients: list[Client] = []
        self._sent: list[str] = []
        self._faults: dict[str, Callable[[], None]] = {
            "subscriptions": self._kill_subscriptions,
            "sidecar": self._kill_sidecar,
            "pause": self._pause,
            "slow": self._slow,
            "buffer": self._limit_buffer,
            "restart": self._restart,
            "black_hole": self._black_hole,
            "empty": self._empty,
        }

    def __enter__(self) -> Site:
        self._stack = stack = ExitStack()
        with ExitStack() as undo:
            undo.push(stack)
            self._redis = RedisServer(*acl.arguments()).start()
            stack.callback(self._redis.close)
            self._broker = stack.enter_context(RedisServer())
            self._client: Redis = stack.enter_context(Redis.from_url(self._redis.url))
            self._stored = Stored(self._client)
            self._network = stack.enter_context(Proxy(self._redis.port))
            self._loads = [
                stack.enter_context(Load(self._redis.url, name, rate=self._rate / 2, seed=self._seed + at))
                for at, name in enumerate(("one", "two"))
            ]
            self._start_worker()
            self._sidecar = self._start_sidecar()
            stack.callback(self._close_sidecar)
            self._start_clients()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def suffer(self, fault: str) -> None:
        """Let something break and be mended, in the midst of work."""
        self._work()
        self._faults[fault]()
        self._work()

    def finish(self) -> Report:
        """Wait until everyone has all there is, and look whether that is the truth."""
        self._rest()
        end = self._keep_log()
        for client in self._clients:
            client.bytes_per_second = None  # who was slow reads on as fast as it can
        readers = [client.reader for client in self._clients]
        with suppress(AssertionError):  # what is missing is told below
            eventually(lambda: self._all_have_all(readers, end), CATCH_UP_SECONDS)
        faults = [fault for reader in readers for fault in self._faults_of(reader, end)]
        seen = sum(len(stretch.seen) for reader in readers for stretch in reader.stretches)
        resets = [reason for reader in readers for reason in reader.resets]
        connections = sum(reader.connections for reader in readers)
        return Report(faults, sum(map(len, self._logs.values())), seen, len(readers), connections, resets)

    # -- what can break ----------------------------------------------------------------------------

    def _kill_subscriptions(self) -> None:
        self._client.client_kill_filter(_type="pubsub")

    def _kill_sidecar(self) -> None:
        self._sidecar.kill()
        self._sidecar.close()
        self._work()
        self._sidecar = self._start_sidecar(self._sidecar.port)

    def _pause(self) -> None:
        self._redis.pause()
        self._wait(3)
        self._redis.resume()

    def _slow(self) -> None:
        self._network.slow_down(20_000)
        self._work()
        self._network.slow_down(None)

    def _limit_buffer(self) -> None:
        limit = "client-output-buffer-limit"
        before = self._client.config_get(limit)[limit]
        self._client.config_set(limit, "pubsub 1 1 1")
        self._work()
        self._client.config_set(limit, before)

    def _black_hole(self) -> None:
        self._network.vanish()
        self._wait(8)
        self._network.come_back()

    def _restart(self) -> None:
        self._rest()
        self._keep_log()
        self._client.save()
        self._redis.kill()
        self._redis.start()
        self._go_on()

    def _empty(self) -> None:
        self._rest()
        self._keep_log()
        self._redis.kill()
        (self._redis.directory / "dump.rdb").unlink(missing_ok=True)
        self._redis.start()
        self._go_on()

    # -- work --------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Let some tasks go their way."""
        counts = [load.steps + BETWEEN // 2 for load in self._loads]
        self._sent += [self._celery.send_task("tests.add", (number, 1)).id for number in range(10)]
        eventually(
            lambda: all(load.steps >= wanted for load, wanted in zip(self._loads, counts, strict=True))
        )

    def _wait(self, seconds: float) -> None:
        steps = self._loads[0].steps + seconds * self._rate / 2
        eventually(lambda: self._loads[0].steps >= steps)

    def _rest(self) -> None:
        for load in self._loads:
            load.rest()
        sent, self._sent = self._sent, []
        # What has ended before Redis was emptied is not kept, so each is waited for before that.
        eventually(lambda: self._client.hmget("queue:finished_tasks", sent or [""]).count(None) <= (not sent))

    def _go_on(self) -> None:
        for load in self._loads:
            load.go_on()

    def _keep_log(self) -> Position:
        return read_log(self._stored, self._logs)

    # -- parts -------------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        self._celery = make_app(self._broker.url, self._broker.url)
        env = {
            "SIDECAR_REDIS_URL": self._redis.url,
            "SIDECAR_LEASE_SECONDS": "120",
            "SIDECAR_LOG_MAX": "1000000",
        }
        worker = launch_worker(self._broker.url, pool="solo", concurrency=1, env=env)
        self._stack.callback(worker.close)
        wait_until_ready(worker)

    def _start_sidecar(self, port: int | None = None) -> Sidecar:
        env = {"SIDECAR_BROKER_URL": self._broker.url, "SIDECAR_MAX_STREAMS_PER_ADDRESS": "1000"}
        sidecar = launch_sidecar(acl.as_user(self._network.url), port=port, env=env)
        wait_until_alive(sidecar)
        return sidecar

    def _close_sidecar(self) -> None:
        self._sidecar.close()

    def _start_clients(self) -> None:
        for number in range(self._of_each):
            for looks in LOOKS:
                for leaves, by_query in ((False, False), (True, False), (True, True)):
                    self._clients.append(Client(Reader(looks), leaves, by_query))
            self._clients.append(Client(Reader(LOOKS[0]), bytes_per_second=60_000))
            for at in (5, 50, 200, 1000):
                task_id = self._loads[number % 2].task_id(at + number)
                self._clients.append(Client(Reader(Looks(task_id, types=("task_status",), task_id=task_id))))
        portal = self._stack.enter_context(anyio.from_thread.start_blocking_portal())
        url = f"{self._sidecar.url}/api/v1/queue"
        for number, client in enumerate(self._clients):
            running = portal.start_task_soon(client.run, url, self._seed + number)
            self._stack.callback(running.cancel)
            running.add_done_callback(partial(self._note_failure, client))

    def _note_failure(self, client: Client, running: Any) -> None:
        if not running.cancelled() and (error := running.exception()) is not None:
            client.reader.faults.append(f"{client.reader.looks.name}: {error!r}")

    # -- the truth ---------------------------------------------------------------------------------

    def _all_have_all(self, readers: list[Reader], end: Position) -> bool:
        return all(reader.has_ended or reader.is_up_to_date(self._logs, end) for reader in readers)

    def _faults_of(self, reader: Reader, end: Position) -> Iterator[str]:
        name = reader.looks.name
        yield from reader.faults
        yield from reader.missed(self._logs)
        if not reader.has_ended and not reader.is_up_to_date(self._logs, end):
            yield f"{name}: not up to date"
        if "task_status" in reader.looks.types and not reader.has_ended:
            tasks = open_tasks(self._stored)
            expected = {task_id: task for task_id, task in tasks.items() if reader.looks.shows(task)}
            if expected != reader.tasks:
                yield f"{name}: {_difference(expected, reader.tasks)}"
        if "worker_status" in reader.looks.types:
            workers = {worker_id: worker["status"] for worker_id, worker in self._stored.workers.items()}
            if workers != reader.workers:
                yield f"{name}: {_difference(workers, reader.workers)}"


def _difference(expected: dict[str, Any], there: dict[str, Any]) -> str:
    odd = [key for key in {**expected, **there} if expected.get(key) != there.get(key)]
    return f"{len(odd)} other than in Redis, {[(expected.get(key), there.get(key)) for key in odd[:2]]}"
