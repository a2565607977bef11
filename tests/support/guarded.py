"""The real sidecar with settings of access, over a Redis with two tasks, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar, launch_sidecar, wait_until_alive
from tests.support.sse import Event, Parser
from tests.support.writing import task, worker, writing

STATUS = "/api/v1/queue/status"
TASKS = "/api/v1/queue/tasks"
TASK = "/api/v1/queue/tasks/a"
EVENTS = "/api/v1/queue/events"
TASK_EVENTS = "/api/v1/queue/tasks/a/events"
WORKERS = "/api/v1/queue/workers"
SESSION = "/api/v1/session"
TICKETS = "/api/v1/tickets"

Options = dict[str, Any]
# What a test asks for one after the other is more than one client may.
NO_RATE = "0"


def without_id(answer: httpx.Response) -> str:
    """What is answered, without what each request has of its own."""
    return answer.text.replace(answer.headers["x-request-id"], "…")


class Client(httpx.Client):
    """Asks one sidecar, whatever proxy the environment names."""

    def __init__(self, sidecar: Sidecar) -> None:
        super().__init__(base_url=sidecar.url, trust_env=False)
        self.sidecar = sidecar

    def code(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """The status of an answer, and the code of a problem; of a stream no more is read."""
        with self.stream(method, path, **options) as answer:
            if answer.headers.get("content-type") != "application/problem+json" or method == "HEAD":
                return answer.status_code, ""
            answer.read()
            return answer.status_code, answer.json().get("code", "")

    def headers_of(self, method: str, path: str, **options: Any) -> httpx.Headers:
        """The headers of an answer, which may be a stream."""
        with self.stream(method, path, **options) as answer:
            return answer.headers

    def events(self, path: str = EVENTS, **options: Any) -> Iterator[Event]:
        """The events of a stream, until it ends."""
        parser = Parser()
        with self.stream("GET", path, **options) as answer:
            assert 200 == answer.status_code, answer.read()
            for chunk in answer.iter_bytes():
                yield from parser.feed(chunk)

    def shown(self, path: str, **options: Any) -> list[Any]:
        """The tasks of a list, of an answer about one, or of the beginning of a stream."""
        if path in (EVENTS, TASK_EVENTS):
            parts = []
            for event in self.events(path, **options):
                if event.event == "live":
                    return [each for part in parts for each in part["tasks"]]
                parts.append(event.data)
        answer = self.get(path, **options)
        if answer.status_code == 404:
            return []
        body = answer.raise_for_status().json()
        return list(body["tasks"]) if "tasks" in body else [body]

    def sees(self, path: str = TASKS, **options: Any) -> str:
        """The ids of the tasks that it is shown, one letter each."""
        tasks = [each for each in self.shown(path, **options) if each["status"] != "unknown"]
        return "".join(sorted(each["task_id"] for each in tasks))


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def serving(**settings: str) -> Iterator[Client]:
    """Run a sidecar with these settings over a Redis of its own, with the tasks ``a`` and ``b``."""
    variables = {"rate_limit": NO_RATE} | settings
    env = {f"SIDECAR_{name.upper()}": value for name, value in variables.items()}
    with RedisServer(*acl.arguments()) as redis, writing(redis.url) as sender:
        sender.send(
            worker(queues=["celery", "of_a", "of_b"]),
            *(task(name, "active", queue=f"of_{name}") for name in "ab"),
        )
        sidecar = launch_sidecar(acl.as_user(redis.url), env=env)
        try:
            wait_until_alive(sidecar)
            eventually(lambda: sidecar.get("/readyz").status_code == 200)
            with Client(sidecar) as client:
                yield client
        finally:
            print(f"--- {sidecar.name}\n{sidecar.output}")
            sidecar.close()
