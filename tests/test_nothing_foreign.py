"""Whoever may see some tasks never sees a byte of another, whatever is asked and whatever happens.

All that is foreign has that word in it: name, id, queue, arguments, results. A real worker runs tasks of
both, is killed in their midst, and Redis loses its log.
"""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from celery_plugin.contract import Position
from tests.support import acl, tenants_app
from tests.support.celery_worker import Worker
from tests.support.deadline import PATIENCE_SECONDS, eventually
from tests.support.guarded import EVENTS, NO_RATE, STATUS, TASKS, bearer, without_id
from tests.support.sidecar_process import Sidecar, launch_sidecar, wait_until_alive
from tests.support.site import Site, open_site
from tests.support.sse import EventStream
from tests.support.tenants_app import FOREIGN, MINE, TENANTS
from tests.support.tokens import SECRET, token

QUEUE = "/api/v1/queue"
MINE_IDS = [f"{MINE}-{number:03}" for number in range(100)]
FOREIGN_IDS = [f"{FOREIGN}-{number:03}" for number in range(100)]
SCOPES: dict[str, Any] = {
    "tasks": {"tasks": MINE_IDS},
    "names": {"names": [f"{MINE}.*"]},
    "queues": {"queues": [MINE]},
    "all three": {"tasks": MINE_IDS[:5], "names": [f"{MINE}.r*"], "queues": [MINE]},
}
PARAMETERS: tuple[dict[str, Any], ...] = (
    {},
    {"include": "args,kwargs,result,traceback"},
    {"task_name": "*", "snapshot": "all"},
    {"types": "task_status,worker_status,queue_status"},
)
KINDS = ("report", "fail", "retry")
REQUESTS = 400
# A stream of which nothing more comes for so long has said all.
QUIET_SECONDS = 0.2


@dataclass
class Tenants:
    """Two tenants and what runs their tasks."""

    site: Site
    sidecar: Sidecar
    # Foreign tasks of which each is in another state, for as long as the tests want.
    kept: list[str] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TENANTS, 0))

    def worker(self) -> Worker:
        """Start a worker for both."""
        captured = {"SIDECAR_CAPTURE": "args,kwargs,result,traceback"}
        queues = ("-Q", ",".join(TENANTS))
        return self.site.start(app=tenants_app.__name__, concurrency=4, env=captured, arguments=queues)

    def send(self, tenant: str, kind: str, *more: str, **options: Any) -> str:
        """Send the next task of a tenant."""
        task_id = self.next_id(tenant)
        arguments = [f"{tenant}-secret", *more]
        self.site.app.send_task(f"{tenant}.{kind}", arguments, task_id=task_id, queue=tenant, **options)
        return task_id

    def keep(self) -> None:
        """Have foreign tasks that run, that wait in a worker and in a queue that nobody takes from.

        And one of each tenant that has ended.
        """
        if self.kept:
            return
        self.worker()
        ended = [self.send(tenant, "report") for tenant in TENANTS]
        gate = str(self.site.gate())
        running = self.send(FOREIGN, "hold", gate)
        later = self.send(FOREIGN, "report", countdown=600)
        waiting = self.next_id(FOREIGN)
        name = f"{FOREIGN}.report"
        self.site.app.send_task(name, [f"{FOREIGN}-secret"], task_id=waiting, queue=f"{FOREIGN}-idle")
        self.kept = [running, later, waiting]
        expected = ["completed", "completed", "active", "scheduled", "pending"]
        eventually(lambda: expected == [self.status(task_id) for task_id in (*ended, *self.kept)])

    def status(self, task_id: str) -> str | None:
        """What a task is, to who may see everything."""
        answer = self.get(f"{QUEUE}/tasks/{task_id}", "*")
        return answer.json()["status"] if answer.status_code == 200 else None

    def next_id(self, tenant: str) -> str:
        """An id that was not used so far."""
        number, self.sent[tenant] = self.sent[tenant], self.sent[tenant] + 1
        return f"{tenant}-{number:03}"

    @contextmanager
    def sending(self, count: int) -> Iterator[None]:
        """Send so many tasks of each tenant meanwhile, of every kind."""
        chance = random.Random(3)

        def send() -> None:
            for _ in range(count):
                for tenant in TENANTS:
                    self.send(tenant, chance.choice(KINDS), countdown=chance.choice([0, 0, 0.2]))
                # Longer than a task takes: there are always some that run.
                if over.wait(0.05):
                    break

        over = threading.Event()
        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def get(self, path: str, read: Any, **params: Any) -> httpx.Response:
        """Ask with a token."""
        return self.sidecar.get(path, headers=bearer(token(read, ["args"], ttl=600)), params=params)

    def stream(self, read: Any, path: str = EVENTS, **params: Any) -> EventStream:
        """Open a stream with a token."""
        headers = bearer(token(read, ["args"], ttl=600))
        return self.sidecar.events(path, headers=headers, params=params)


@pytest.fixture(scope="module")
def tenants() -> Iterator[Tenants]:
    """Both tenants, and a sidecar that wants tokens."""
    with open_site() as site:
        env = {"SIDECAR_AUTH_SECRETS": SECRET, "SIDECAR_RATE_LIMIT": NO_RATE, "SIDECAR_LOG_LEVEL": "debug"}
        sidecar = launch_sidecar(acl.as_user(site.state.url), env=env)
        try:
            wait_until_alive(sidecar)
            yield Tenants(site, sidecar)
        finally:
            print(f"--- {sidecar.name}\n{sidecar.output}")
            sidecar.close()


def foreign_in(text: str) -> bool:
    """Tell whether something foreign is in a text, in any case, or in what its cursor says."""
    cursor = ""
    with suppress(ValueError, TypeError, KeyError):
        cursor = base64.urlsafe_b64decode(json.loads(text)["next"] + "==").decode("utf-8", "replace")
    return FOREIGN in text.lower() or FOREIGN in cursor.lower()


def tasks_of(stream: EventStream, *statuses: str) -> set[str]:
    """The tasks that a stream has told to be in one of these statuses."""
    told = [event.data for event in stream.seen if event.event == "task_status"]
    return {each["task_id"] for each in told if each["status"] in statuses}


# -- streams, while everything happens


def test_streams(tenants: Tenants) -> None:
    """Snapshots, events, figures, losses, resets and replays have all of one's own, and nothing else."""
    with ExitStack() as stack:
        everything = stack.enter_context(tenants.stream("*"))
        streams = {
            f"{name} {params}": stack.enter_context(tenants.stream(scope, **params))
            for name, scope in SCOPES.items()
            for params in PARAMETERS
        }
        expected = _let_everything_happen(tenants, everything)
        for stream in streams.values():
            stream.until_task(expected["last"], "completed", seconds=60)
        again = {
            name: stack.enter_context(_resumed(stream, expected["last"])) for name, stream in streams.items()
        }
        for stream in again.values():
            stream.until_task(expected["last"], "completed")
    assert any(foreign_in(event.text) for event in everything.seen)
    for name, stream in streams.items():
        assert {"snapshot", "live", "reset", "task_status"} <= {event.event for event in stream.seen}, name
        assert {expected["child"], expected["last"]} <= tasks_of(stream, "completed"), name
        assert expected["lost"] in tasks_of(stream, "lost"), name
    for name, stream in [*streams.items(), *again.items()]:
        _has_nothing_foreign(name, stream)


def _let_everything_happen(tenants: Tenants, everything: EventStream) -> dict[str, str]:
    """Run tasks, lose a worker and the log; return the ids of tasks that each must have seen."""
    worker = tenants.worker()
    with tenants.sending(15):
        child = tenants.next_id(MINE)
        tenants.send(FOREIGN, "spawn", child, MINE)
        everything.until_task(child, "completed", seconds=60)
    gate = str(tenants.site.gate())
    held = {tenant: tenants.send(tenant, "hold", gate) for tenant in TENANTS}
    eventually(lambda: set(held.values()) <= tasks_of(everything, "active"))
    worker.kill()
    everything.until_task(held[MINE], "lost", seconds=60)
    tenants.worker()
    with tenants.sending(15):
        tenants.site.client.delete("queue:log")
        everything.until_type("reset", seconds=60)
        everything.until_type("live")
    last = [tenants.send(tenant, "report") for tenant in (FOREIGN, MINE)][-1]
    return {"child": child, "lost": held[MINE], "last": last}


def _resumed(stream: EventStream, task_id: str) -> EventStream:
    """The stream again, from just before a task came."""
    told = (event for event in stream.seen if event.event == "task_status")
    first = Position.parse(next(event.id for event in told if event.data["task_id"] == task_id))
    return stream.reconnect(last_event_id=str(first._replace(offset=first.offset - 1)))


def _has_nothing_foreign(name: str, stream: EventStream) -> None:
    assert [] == [event for event in stream.seen if foreign_in(event.text)], name
    assert "worker_status" not in {event.event for event in stream.seen}, name
    for event in stream.seen:
        figures = event.data if event.event == "queue_status" else event.data.get("queue_status")
        if figures is not None:
            assert {None} == {figures[each] for each in ("workers_online", "failed_last_hour")}, name
        assert "workers" not in event.data, name


# -- any request at all


def test_any_request(tenants: Tenants) -> None:
    """No parameter, path, cursor or id makes any route tell of what is foreign, and none makes it fail."""
    chance = random.Random(7)
    tenants.keep()
    answered: set[tuple[str, int]] = set()
    with tenants.sending(50), httpx.Client(base_url=tenants.sidecar.url, trust_env=False) as client:
        known = _known(tenants) | {"kept": tenants.kept}
        for _ in range(REQUESTS):
            path, params = _any_request(chance, known)
            status, text = _ask(client, chance.choice(list(SCOPES.values())), path, params)
            what = f"{path} {params} → {status} {text[:2000]}"
            assert status in (200, 204, 400, 403, 404), what
            assert not foreign_in(_without_echo(status, text, path, params)), what
            answered.add((path.replace(MINE, "").rstrip("0123456789"), status))
    assert " ERROR " not in tenants.sidecar.output
    assert {
        (path, 200) for path in (STATUS, TASKS, f"{QUEUE}/history", f"{QUEUE}/pending", EVENTS)
    } <= answered


def _known(tenants: Tenants) -> dict[str, list[str]]:
    """Cursors and ids as they are given out to who may see everything, and to who may not."""
    cursors, ids = [], []
    for read in ("*", *SCOPES.values()):
        for path in (TASKS, f"{QUEUE}/history"):
            page = tenants.get(path, read, limit=1).json()
            cursors += [page["next"]] if page["next"] else []
        with tenants.stream(read) as stream:
            ids.append(stream.until_type("live").id)
    everything = tenants.get(f"{QUEUE}/history", "*").json()
    assert any(foreign_in(json.dumps(each)) for each in everything["tasks"])
    return {"cursor": cursors, "last_event_id": ids}


def _any_request(chance: random.Random, known: dict[str, list[str]]) -> tuple[str, list[tuple[str, str]]]:
    ids = [*chance.sample(MINE_IDS, 2), *chance.sample(FOREIGN_IDS, 2), *known["kept"], "x", "*"]
    pools = {
        "task_id": ids,
        "task_name": ["*", "mine.*", "foreign.*", "*foreign*", "*e*", "foreign.report", "mine.report"],
        "queue": [MINE, FOREIGN, f"{FOREIGN}-idle", "celery"],
        "status": ["active", "reserved", "completed", "failed", "lost", "retrying"],
        "worker": ["*", "celery@one"],
        "q": [FOREIGN, "secret", "e", "fore", f"{FOREIGN}-secret"],
        "limit": ["1", "2", "1000"],
        "include": ["args", "args,kwargs,result,traceback"],
        "types": ["worker_status", "queue_status,task_status", "task_status,live"],
        "snapshot": ["all", "0", "5"],
        **known,
        "cursor": [*known["cursor"], "W10", "!"],
    }
    task_id = chance.choice(ids)
    listing = ("task_id", "task_name", "queue", "status", "worker", "q", "limit", "cursor")
    streaming = (*listing[:5], "include", "types", "snapshot", "last_event_id")
    path, names = chance.choice(
        [
            (STATUS, ()),
            (TASKS, listing),
            (f"{QUEUE}/history", listing),
            (f"{QUEUE}/pending", ("queue", "limit", "cursor")),
            (f"{QUEUE}/tasks/{task_id}", ()),
            (f"{QUEUE}/workers", ()),
            (EVENTS, streaming),
            (f"{QUEUE}/tasks/{task_id}/events", ("include", "last_event_id")),
        ]
    )
    count = chance.choice([0, 0, 1, 1, 2, 3])
    chosen = chance.choices(names, k=count) if names else []
    # A queue must be named to be looked into.
    chosen += ["queue"] if path.endswith("pending") and "queue" not in chosen else []
    return path, [(name, chance.choice(pools[name])) for name in chosen]


def _ask(client: httpx.Client, read: Any, path: str, params: list[tuple[str, str]]) -> tuple[int, str]:
    """The status and all of an answer; of a stream what comes until it is live, or quiet."""
    headers = bearer(token(read, ["args"], ttl=600))
    with suppress(httpx.ReadTimeout):
        return _answer(client, path, params, headers, QUIET_SECONDS)
    # Not even its head came: the machine is busy.
    return _answer(client, path, params, headers, PATIENCE_SECONDS)


def _answer(
    client: httpx.Client, path: str, params: list[tuple[str, str]], headers: dict[str, str], quiet: float
) -> tuple[int, str]:
    text = ""
    with client.stream("GET", path, params=params, headers=headers, timeout=quiet) as answer:
        with suppress(httpx.ReadTimeout):
            for chunk in answer.iter_text():
                text += chunk
                if "event: live" in text:
                    break
        return answer.status_code, text


def _without_echo(status: int, text: str, path: str, params: list[tuple[str, str]]) -> str:
    """An answer without what was asked: an error names it, and the stream of a task begins with its id."""
    if status >= 400:
        for given in [path, path.rpartition("/")[2], *(value for _, value in params)]:
            text = text.replace(given, "")
    asked = path.removesuffix("/events").rpartition("/")[2]
    return text.replace(f'"task_id":"{asked}"', "") if path.endswith(f"{asked}/events") else text


# -- what is hidden is like what is not there


@pytest.mark.parametrize("name", SCOPES)
def test_hidden_like_unknown(tenants: Tenants, name: str) -> None:
    """Whether a foreign task exists is told by no answer: not by its status, its words, nor by a stream."""
    tenants.keep()
    unknown = _told_of(tenants, SCOPES[name], f"{FOREIGN}-x")
    for task_id in (FOREIGN_IDS[0], *tenants.kept):
        assert tenants.status(task_id)
        assert unknown == _told_of(tenants, SCOPES[name], task_id)
    assert 404 == unknown[0]


def _told_of(tenants: Tenants, read: Any, task_id: str) -> list[Any]:
    """All that can be learnt of a task by its id, without the id."""
    path = f"{QUEUE}/tasks/{task_id}"
    one = tenants.get(path, read)
    told = [one.status_code, without_id(one)]
    with tenants.stream(read, f"{path}/events") as stream:
        last = stream.until_type("live").id
        told += [event.text for event in stream.seen if event.event != "live"]
    with tenants.stream(read, f"{path}/events", last_event_id=last) as again:
        told.append(again.status)
    told += [tenants.get(each, read, task_id=task_id).text for each in (TASKS, f"{QUEUE}/history")]
    return [each.replace(task_id, "…") if isinstance(each, str) else each for each in told]
