"""The stream of one task: what it is, each change, and the end."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

import pytest
from celery import Celery

from celery_plugin.operations import Other
from celery_plugin.writer import PROGRESS
from deploy.demo.ports import HOST
from deploy.demo.redis_server import RedisServer
from sidecar.filters import TaskFilter
from sidecar.problems import Unavailable
from sidecar.task_beginning import TaskBeginnings
from sidecar.wanted import Wanted
from tests.support.batches import Sender, step
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.sse import Event, EventStream
from tests.support.starters import StartSidecar, StartWorker
from tests.support.viewing import EPOCH, NoBacklog, live_feed
from tests.support.writing import life, task, worker, writing

EXTRA = {"args": "(1,)", "kwargs": "{}"}


def path_of(task_id: str) -> str:
    """Where the stream of a task is."""
    return f"/api/v1/queue/tasks/{task_id}/events"


def begin(stream: EventStream) -> dict[str, Any]:
    """Take the beginning; return the task that it shows."""
    [shown] = stream.until_type("snapshot").data["tasks"]
    stream.until_type("live")
    return dict(shown)


def statuses(stream: EventStream) -> list[str]:
    """The statuses that were told, in their order."""
    return [event.data["status"] for event in stream.seen if event.event == "task_status"]


def progress(task_id: str, message: str) -> Other:
    """What a task reports of itself."""
    return Other(task_id, (PROGRESS, f'{{"message":"{message}","updated_at":1.000}}', task_id))


def end_of(stream: EventStream) -> Event:
    """Wait for the end, and for that of the stream."""
    end = stream.until_type("end")
    stream.wait_for_end()
    assert end == stream.seen[-1]
    return end


def test_a_whole_life(sidecar: Sidecar, sender: Sender) -> None:
    """Who comes before the task has every step, nothing of others, and then the end."""
    with sidecar.events(path_of("a")) as stream:
        shown = begin(stream)
        assert ("a", "unknown", None, None) == (
            shown["task_id"],
            shown["status"],
            shown["position"],
            shown["task_name"],
        )
        sender.send(*life("other"), *life("a"), *life("later"))
        assert {"type": "end", "task_id": "a", "status": "completed"} == end_of(stream).data
    assert ["reserved", "active", "completed"] == statuses(stream)
    assert {"snapshot", "live", "task_status", "end"} == {event.event for event in stream.seen}


@pytest.mark.parametrize("last", ["completed", "failed", "revoked", "rejected"])
def test_ends(sidecar: Sidecar, sender: Sender, last: str) -> None:
    """Each end ends the stream."""
    with sidecar.events(path_of("a")) as stream:
        begin(stream)
        sender.send(task("a", "active"), task("a", last))
        assert last == end_of(stream).data["status"]


@pytest.mark.parametrize("between", ["retrying", "pending"])
def test_no_end(sidecar: Sidecar, sender: Sender, between: str) -> None:
    """A task that will be tried again, or went back to the queue, may go on, and so does its stream."""
    with sidecar.events(path_of("a")) as stream:
        begin(stream)
        sender.send(task("a", "active"), task("a", between))
        sender.send(
            *(step("a", status, "one/2", task_name="tests.add") for status in ("active", "completed"))
        )
        end_of(stream)
    assert ["active", between, "active", "completed"] == statuses(stream)


def test_lost_is_no_end(sidecar: Sidecar, sender: Sender, redis_server: RedisServer) -> None:
    """What was lost may come back: by the lease without an id, by a peer with one."""
    with sidecar.events(path_of("a")) as stream, writing(redis_server.url, "two") as peer:
        begin(stream)
        sender.send(task("a", "active"), lease=0.3)
        stream.until_task("a", "lost")
        peer.send(worker("two"), step("a", "lost", "one/a", kind="end"))
        sender.send(task("a", "active"))
        sender.send(task("a", "completed"))
        end_of(stream)
    assert "lost" in statuses(stream)
    assert "completed" == statuses(stream)[-1]


def test_progress(sidecar: Sidecar, sender: Sender) -> None:
    """What a task reports while it runs comes, and shows in the snapshot of who comes later."""
    sender.send(step("a", "active"))
    with sidecar.events(path_of("a")) as stream:
        stream.until_type("live")
        sender.send(progress("a", "half"), number=0)
        assert "half" == stream.until_type("task_status").data["message"]
        with sidecar.events(path_of("a")) as later:
            shown = begin(later)
            assert ("active", "half") == (shown["status"], shown["message"])


@pytest.mark.parametrize("status", ["reserved", "scheduled", "active"])
def test_a_task_that_a_worker_has(sidecar: Sidecar, sender: Sender, status: str) -> None:
    """It begins with the task as it is, without its arguments unless they are asked for."""
    sender.send(task("a", status, extra=EXTRA))
    with sidecar.events() as stream:
        stream.until(lambda event: event.event in ("task_status", "live"))
    with (
        sidecar.events(path_of("a")) as lean,
        sidecar.events(path_of("a"), params={"include": "args"}) as full,
    ):
        shown = begin(lean)
        assert (status, False) == (shown["status"], "args" in shown)
        assert ("(1,)", False) == (begin(full)["args"], "kwargs" in full.seen[0].data["tasks"][0])
        sender.send(task("a", "completed", extra=EXTRA))
        assert ["completed"] == (end_of(lean), end_of(full), statuses(lean))[2]
    assert "(1,)" == full.seen[-2].data["args"]


def test_a_task_that_has_ended(sidecar: Sidecar, sender: Sender) -> None:
    """Its end is shown, and then the stream ends."""
    sender.send(*life("a", extra=EXTRA))
    with sidecar.events(path_of("a"), params={"include": "kwargs"}) as stream:
        shown = begin(stream)
        assert ("completed", "{}", False) == (shown["status"], shown["kwargs"], "args" in shown)
        end_of(stream)


# -- coming back


def test_come_back_in_the_middle(sidecar: Sidecar, sender: Sender) -> None:
    """While the task goes on, who comes back gets exactly what it missed."""
    with sidecar.events(path_of("a")) as stream:
        begin(stream)
        sender.send(task("a", "reserved"))
        stream.until_type("task_status")
    sender.send(*life("other"), task("a", "active"))
    with stream.reconnect() as again:
        again.until_task("a", "active")
        sender.send(task("a", "completed"))
        end_of(again)
    assert (["reserved"], ["active", "completed"]) == (statuses(stream), statuses(again))
    assert not [event for event in again.seen if event.event in ("snapshot", "reset")]


def test_come_back_after_the_end(sidecar: Sidecar, sender: Sender) -> None:
    """Who has seen the end is told to stay away, which is the only answer that stops an EventSource."""
    with sidecar.events(path_of("a")) as stream:
        begin(stream)
        sender.send(*life("a"))
        end_of(stream)
    for last in (stream.last_event_id, str(sender.send(*life("other")).position)):
        assert 204 == sidecar.get(path_of("a"), headers={"Last-Event-ID": last}).status_code


def test_come_back_before_the_end(sidecar: Sidecar, sender: Sender) -> None:
    """Who has not seen it gets what it missed, or is told that it cannot and gets snapshot and end; and 204
    when it comes with the id of that."""
    first = sender.send(task("a", "reserved")).position
    sender.send(task("a", "active"), task("a", "completed"))
    for last in (str(first), f"{EPOCH}-5"):
        with sidecar.events(path_of("a"), last_event_id=last) as stream:
            if last == str(first):
                end_of(stream)
                assert ["active", "completed"] == statuses(stream)
                assert not [event for event in stream.seen if event.event in ("snapshot", "reset", "live")]
            else:
                assert "epoch" == stream.until_type("reset").data["reason"]
                assert "completed" == begin(stream)["status"]
                end_of(stream)
        assert 204 == sidecar.get(path_of("a"), headers={"Last-Event-ID": stream.last_event_id}).status_code


def test_an_end_of_an_earlier_epoch(sidecar: Sidecar, sender: Sender, redis_client: Any) -> None:
    """Its offset says nothing beside the ids of today: the client is let go all the same."""
    sender.send(*life("x"), *life("y"), *life("a"))
    redis_client.delete("queue:log", "queue:events")
    later = sender.send(*life("b")).position
    with sidecar.events(path_of("b")) as stream:
        begin(stream)
    for _ in range(2):
        answer = sidecar.get(path_of("a"), headers={"Last-Event-ID": str(later)})
        assert 204 == answer.status_code


def test_a_mistake(sidecar: Sidecar) -> None:
    """There is nothing to filter; an id that was never given out is told to be none."""
    for name, value in (("status", "active"), ("include", "x"), ("last_event_id", "x")):
        answer = sidecar.get(path_of("a"), params={name: value})
        assert (400, name) == (answer.status_code, answer.json()["parameter"])


def test_while_redis_is_away(start_sidecar: StartSidecar, redis_server: RedisServer, sender: Sender) -> None:
    """Who comes then waits, and is told once Redis is back."""
    sender.send(*life("a"))
    redis_server.pause()
    sidecar = start_sidecar()
    with sidecar.events(path_of("a")) as stream:
        assert "stale" == stream.next().event
        redis_server.resume()
        stream.until_type("fresh")
        assert "completed" == begin(stream)["status"]
        end_of(stream)


def test_many_at_once(redis_server: RedisServer, redis_client: Any, start_sidecar: StartSidecar) -> None:
    """A thousand pages that open together are asked of Redis in few questions, over few connections."""
    sidecar = start_sidecar(env={"SIDECAR_MAX_STREAMS_PER_ADDRESS": "2000"})
    with sidecar.events() as stream:
        stream.until_type("live")
    before = redis_client.info("stats")["total_connections_received"]
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((HOST, sidecar.port))) for _ in range(1000)]
        for number, client in enumerate(clients):
            client.sendall(f"GET {path_of(f't{number}')} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        for client in clients:
            client.settimeout(30)
            body = b""
            while b"event: live" not in body:
                body += client.recv(65536)
            assert b'"status":"unknown"' in body
    assert redis_client.info("stats")["total_connections_received"] - before <= 10


@pytest.mark.parametrize("include", ["", "?include=args"])
def test_a_task_that_waits_in_the_broker(
    sidecar: Sidecar, celery_app: Celery, start_worker: StartWorker, include: str
) -> None:
    """It is shown where it waits, with how many are ahead of it, and then as the worker takes it."""
    celery_app.send_task("tests.add", (1, 2), queue="high")
    sent = celery_app.send_task("tests.add", (3, 4), queue="high")
    eventually(lambda: sidecar.get(f"/api/v1/queue/tasks/{sent.id}").status_code == 200)
    with sidecar.events(path_of(sent.id) + include) as stream:
        shown = begin(stream)
        assert ("pending", 1, "high", "tests.add") == tuple(
            shown[name] for name in ("status", "position", "queue", "task_name")
        )
        assert ("(3, 4)" if include else None) == shown.get("args")
        start_worker(arguments=("-Q", "high"))
        end_of(stream)
        assert "completed" == statuses(stream)[-1]


# -- without a server


class Nothing:
    """Redis keeps nothing of any task."""

    async def ended(self, task_ids: list[str]) -> dict[str, bytes]:
        """Nothing."""
        return {}


async def test_the_broker_is_away() -> None:
    """A stream begins also where the broker cannot be asked; the task counts as not seen."""

    async def find(task_id: str) -> None:
        raise Unavailable

    feed = live_feed()
    store: Any = Nothing()
    wanted = Wanted(TaskFilter(task_ids=frozenset({"a"})), until_end=True)
    beginning = await TaskBeginnings(feed, store, NoBacklog(feed), find).make(wanted)
    assert b'"status":"unknown"' in beginning.part(0)
