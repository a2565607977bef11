"""The OpenAPI document tells what is answered: every route, every member, every event of a stream."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from celery import Celery
from jsonschema import Draft202012Validator

from celery_plugin.contract import QUEUE_STATUS_FIELDS, TASK_STATUS_FIELDS, EventType
from deploy.demo.redis_server import RedisServer
from sidecar.api_docs import page
from sidecar.filters import FILTERS
from sidecar.openapi import make_document
from sidecar.operations import OPERATIONS
from sidecar.routing import make_routes
from sidecar.schemas import MESSAGES, SCHEMAS
from tests.support.batches import Sender
from tests.support.conforming import Document, references
from tests.support.deadline import eventually
from tests.support.guarded import bearer, serving
from tests.support.sidecar_process import Sidecar
from tests.support.sse import EventStream
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import Gate
from tests.support.tokens import SECRET, token
from tests.support.writing import life

QUEUE = "/api/v1/queue"
SHOWN: Any = {"SIDECAR_CAPTURE": "args,kwargs,result,traceback"}


@pytest.fixture
def document() -> Document:
    """What every sidecar shows."""
    return Document(make_document())


# -- the document itself


def test_every_reference_leads_somewhere() -> None:
    """No schema or answer is named that is not there, and each schema is one."""
    whole = make_document()
    for reference in references(whole):
        found: Any = whole
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)


def test_every_event_type_has_a_schema() -> None:
    """A new type of event needs one."""
    assert {value for name, value in vars(EventType).items() if name.isupper()} == MESSAGES.keys()


def test_what_the_contract_promises_is_required() -> None:
    """The members that are always there are so in the document too."""
    assert set(QUEUE_STATUS_FIELDS) <= set(SCHEMAS["QueueStatus"]["required"])
    assert set(TASK_STATUS_FIELDS) <= set(SCHEMAS["Task"]["required"])


def test_every_filter_is_a_parameter_of_each_list_and_stream() -> None:
    """What a list reads it declares: the router refuses anything else."""
    lists = [each for each in OPERATIONS if each.name in ("events", "tasks", "history")]
    assert [FILTERS] * 3 == [each.query[: len(FILTERS)] for each in lists]


def test_a_route_is_not_made_without_its_declaration() -> None:
    """One that is only made, or only declared, keeps the sidecar from starting."""
    endpoints: Any = {each.name: None for each in OPERATIONS}
    with pytest.raises(AssertionError, match="secret_route"):
        make_routes({**endpoints, "secret_route": None})
    with pytest.raises(AssertionError, match="livez"):
        make_routes({name: each for name, each in endpoints.items() if name != "livez"})


def test_it_is_shown_to_anybody(start_sidecar: StartSidecar) -> None:
    """Document and page tell nothing of the queue, so no token is needed; the page has no script."""
    sidecar = start_sidecar(env={"SIDECAR_AUTH_SECRETS": SECRET})
    answer = sidecar.get("/openapi.json")
    assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
    assert make_document() == answer.json()
    shown = sidecar.get("/docs")
    assert (200, page(make_document())) == (shown.status_code, shown.content)
    assert "<script" not in shown.text
    [style] = re.findall(r"<style>(.*?)</style>", shown.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in shown.headers["content-security-policy"]
    assert all(f"{each.method} {each.path}<" in shown.text for each in OPERATIONS)


# -- against a real sidecar


def ask(sidecar: Sidecar, document: Document, path: str, status: int = 200, **options: Any) -> Any:
    """Ask, and hold the answer against the document."""
    method = options.pop("method", "GET")
    with httpx.Client(base_url=sidecar.url, trust_env=False) as client:
        answer = client.request(method, path, **options)
    assert status == answer.status_code, answer.text
    document.check_answer(answer)
    return answer.json() if answer.content and "json" in answer.headers["content-type"] else None


def test_answers_beside_a_real_worker(
    start_sidecar: StartSidecar, start_worker: StartWorker, celery_app: Celery, gate: Gate, document: Document
) -> None:
    """Every answer about tasks of each kind has the members that the document names, and no other."""
    sidecar = start_sidecar()
    start_worker(env=SHOWN)
    with sidecar.events(params={"include": "args,kwargs,result,traceback"}) as stream:
        ids = [celery_app.send_task("tests.wait_for_file", (str(gate),)).id for _ in range(3)]
        scheduled = celery_app.send_task("tests.add", (1, 2), countdown=60).id
        ended = [celery_app.send_task(f"tests.{name}", args).id for name, args in _ENDING]
        waiting = celery_app.send_task("tests.add", (1, 2), queue="nobody_takes_from", priority=3).id
        eventually(lambda: 3 <= ask(sidecar, document, f"{QUEUE}/status")["reserved_tasks"])
        tasks = [f"tasks/{task_id}" for task_id in (ids[0], scheduled, waiting)]
        for path in ("tasks", "history", "workers", *tasks):
            ask(sidecar, document, f"{QUEUE}/{path}")
        assert ask(sidecar, document, f"{QUEUE}/pending", params={"queue": "nobody_takes_from"})["tasks"]
        gate.open()
        for task_id in ended:
            eventually(lambda task_id=task_id: _ends(sidecar, document, task_id))
        ended_now = ask(sidecar, document, f"{QUEUE}/history", params={"limit": 2})
        assert ended_now["next"]
        for event in stream.seen:
            document.check_event(event)
        assert {"snapshot", "live", "task_status", "queue_status"} <= {each.event for each in stream.seen}
        assert any("traceback" in event.data for event in stream.seen)


_ENDING: list[tuple[str, Any]] = [
    ("fail", ()),
    ("retry_once", ()),
    ("progress", ("on my way",)),
    ("add", (1, 2)),
]


def _ends(sidecar: Sidecar, document: Document, task_id: str) -> bool:
    record = ask(sidecar, document, f"{QUEUE}/tasks/{task_id}")
    return record["status"] in ("completed", "failed")


def test_what_is_lost(sidecar: Sidecar, sender: Sender, document: Document) -> None:
    """What a worker had whose lease has ended, and that worker, are told in the document's members."""
    with sidecar.events() as stream:
        stream.until_type("live")
        sender.send(*life("done"), *life("lost")[:2], lease=0.5)
        stream.until_task("lost", "lost")
        for path in ("tasks", "workers", "tasks/lost", "tasks/done", "status"):
            ask(sidecar, document, f"{QUEUE}/{path}")
        for event in stream.seen:
            document.check_event(event)


def test_problems(sidecar: Sidecar, document: Document) -> None:
    """Each problem is one that its route declares."""
    for path, parameters, status in (
        ("tasks", {"limit": 0}, 400),
        ("status", {"what": 1}, 400),
        ("events", {"snapshot": "x"}, 400),
        ("pending", {"queue": "nobody"}, 404),
        ("tasks/nobody", {}, 404),
        ("tasks", {"q": "x" * 17_000}, 414),
    ):
        ask(sidecar, document, f"{QUEUE}/{path}", status, params=parameters)
    ask(sidecar, document, f"{QUEUE}/tasks", 413, headers={"Content-Length": "1"}, content=b"x")
    ask(sidecar, document, f"{QUEUE}/tasks", 421, headers={"Host": "evil.example"})
    ask(sidecar, document, "/api/v1/tickets", 404, method="POST")
    ask(sidecar, document, "/api/v1/session", 204, method="DELETE")


def test_with_tokens(document: Document) -> None:
    """Sessions, tickets, refusals and what a narrow token gets are as the document says, to the end."""
    with serving(auth_secrets=SECRET) as client:
        sidecar = client.sidecar
        ask(sidecar, document, f"{QUEUE}/status", 401)
        narrow = bearer(token({"tasks": ["a"]}))
        ask(sidecar, document, f"{QUEUE}/workers", 403, headers=narrow)
        for path in ("status", "tasks", "tasks/a"):
            ask(sidecar, document, f"{QUEUE}/{path}", headers=narrow)
        ask(sidecar, document, "/api/v1/session", headers=narrow, method="POST")
        ask(sidecar, document, "/api/v1/tickets", headers=narrow, method="POST")
        ending = list(client.events(headers=bearer(token({"tasks": ["a"]}, ttl=1.5))))
        for event in ending:
            document.check_event(event)
        assert "unauthorized" == ending[-1].event


@pytest.fixture
def crowded(sender: Sender, start_sidecar: StartSidecar) -> Sidecar:
    """A sidecar with room for two streams."""
    sidecar = start_sidecar(env={"SIDECAR_MAX_STREAMS": "2"})
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    return sidecar


@pytest.fixture
def streams(crowded: Sidecar) -> Iterator[list[EventStream]]:
    """The two, of which one comes back with an id that nobody gave out."""
    odd = f"{'0' * 15}1-5"
    with crowded.events() as one, crowded.events(last_event_id=odd) as two:
        yield [one, two]


def test_what_a_stream_says_of_itself(
    crowded: Sidecar,
    streams: list[EventStream],
    sender: Sender,
    redis_server: RedisServer,
    document: Document,
) -> None:
    """Resets, outages, ends, refusals and goodbyes are messages of the document, too."""
    one, two = streams
    two.until_type("reset")
    two.until_type("live")
    one.until_type("live")
    with crowded.events() as third:
        third.until_type("overloaded")
    seen = list(third.seen)
    two.close()
    sender.send(*life("done"))
    one.until_task("done", "completed")
    with crowded.events(f"{QUEUE}/tasks/done/events") as of_one_task:
        of_one_task.until_type("end")
        of_one_task.wait_for_end()
    redis_server.stop()
    one.until_type("stale")
    ask(crowded, document, f"{QUEUE}/status", 503)
    redis_server.start()
    one.until_type("fresh")
    crowded.stop()
    one.until_type("drain")
    seen += [*one.seen, *two.seen, *of_one_task.seen]
    for event in seen:
        document.check_event(event)
    assert {"reset", "overloaded", "end", "stale", "fresh", "drain"} <= {event.event for event in seen}
