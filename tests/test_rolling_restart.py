"""Sidecars behind nginx, as it is shipped: they are restarted, and no client misses an event."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager

import anyio
import pytest
from celery import Celery

from deploy.demo.redis_server import RedisServer
from tests.support.batches import Sender, Stored
from tests.support.deadline import eventually, eventually_async
from tests.support.returning import Returning
from tests.support.sidecar_process import Sidecar
from tests.support.sse import EventStream
from tests.support.starters import StartNginx, StartSidecar, StartWorker
from tests.support.writing import life

EVENTS = "/api/v1/queue/events"
# Clients wait for up to 10 s before they come back, and may do so twice.
RETURN_SECONDS = 60.0
ENV = {
    "SIDECAR_DRAIN_SECONDS": "2",
    "SIDECAR_TRUSTED_PROXIES": "127.0.0.1",
    # Each client has an address of its own, which only nginx knows.
    "SIDECAR_MAX_STREAMS_PER_ADDRESS": "1",
}


@asynccontextmanager
async def traffic(app: Celery) -> AsyncIterator[None]:
    """Five tasks a second."""
    over = anyio.Event()

    async def send() -> None:
        while not over.is_set():
            app.send_task("tests.add", [1, 2])
            with anyio.move_on_after(0.2):
                await over.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        yield
        over.set()


async def restarted(old: Sidecar, start_sidecar: StartSidecar) -> Sidecar:
    """End a sidecar as a deployment does, and start the next one in its place."""
    old.send_signal(signal.SIGTERM)
    await anyio.to_thread.run_sync(lambda: eventually(lambda: old.get("/readyz").status_code == 503))
    assert 0 == await anyio.to_thread.run_sync(old.wait)
    new = start_sidecar(port=old.port, env=ENV, ready=False)
    await anyio.to_thread.run_sync(new.wait_for_line, "following Redis from")
    return new


def all_of(clients: list[Returning], condition: Callable[[Returning], bool]) -> Callable[[], Awaitable[bool]]:
    """Ask whether it holds for all clients."""

    async def ask() -> bool:
        return all(map(condition, clients))

    return ask


async def last_offset(stored: Stored) -> int:
    """Wait until the last task has ended, and say at which offset."""

    async def is_quiet() -> bool:
        return not (stored.active or stored.waiting)

    await eventually_async(is_quiet)
    return stored.offset


@pytest.mark.parametrize(("count", "taken_out"), [(200, False), (20, True)])
async def test_both_are_restarted(
    redis_server: RedisServer,
    stored: Stored,
    start_worker: StartWorker,
    start_sidecar: StartSidecar,
    start_nginx: StartNginx,
    celery_app: Celery,
    count: int,
    taken_out: bool,
) -> None:
    """Clients see every event exactly once; each stream ends cleanly, with a time to come back."""
    start_worker()
    old = [start_sidecar(env=ENV) for _ in range(2)]
    nginx = start_nginx(*old)
    clients = [Returning(nginx.url + EVENTS, f"127.0.1.{number + 1}") for number in range(count)]
    async with anyio.create_task_group() as tasks:
        for client in clients:
            tasks.start_soon(client.run)
        async with traffic(celery_app):
            await eventually_async(all_of(clients, lambda client: client.is_live))
            new = []
            for sidecar in old:
                if taken_out:
                    nginx.take_out(sidecar.port)
                new.append(await restarted(sidecar, start_sidecar))
        last = await last_offset(stored)
        await eventually_async(all_of(clients, lambda client: client.offsets[-1] == last), RETURN_SECONDS)
        tasks.cancel_scope.cancel()
    for client in clients:
        assert list(range(client.offsets[0], last + 1)) == client.offsets
        assert (1, 0, 0) == (client.count("snapshot"), client.count("reset"), client.broken)
        assert client.partings
        assert all(event == "drain" and 1_000 <= retry <= 10_000 for event, retry in client.partings)
    for sidecar in (*old, *new):
        assert " ERROR " not in sidecar.output
        assert "Traceback" not in sidecar.output
    # Where nginx does not know that nobody listens on a port, it says so and goes to the other one.
    assert [] == [line for line in nginx.complaints if taken_out or "(111: Connection refused)" not in line]


def test_none_is_there(sender: Sender, start_sidecar: StartSidecar, start_nginx: StartNginx) -> None:
    """Whoever finds no sidecar comes back, and once they are there again, finds one at once."""
    sidecars = [start_sidecar() for _ in range(2)]
    nginx = start_nginx(*sidecars)
    with EventStream(nginx.url + EVENTS) as stream:
        last = stream.until_type("live").id
        for sidecar in sidecars:
            sidecar.kill()
        stream.wait_for_end()
    for _ in range(4):
        with EventStream(nginx.url + EVENTS, last_event_id=last) as in_vain:
            in_vain.wait_for_end()
            assert (200, "text/event-stream") == (in_vain.status, in_vain.response.headers["content-type"])
            assert ["drain"] == [event.event for event in in_vain.seen]
            assert 2_000 <= (in_vain.retry_ms or 0) <= 8_000
    position = sender.send(*life("a")).position
    for sidecar in sidecars:
        start_sidecar(port=sidecar.port)
    with ExitStack() as stack:
        # Streams that stay open: nginx must not take that for a sidecar that is away.
        for _ in range(20):
            again = stack.enter_context(EventStream(nginx.url + EVENTS, last_event_id=last))
            again.until(lambda event: event.id == str(position))
            assert "task_status" == again.seen[0].event


def test_no_ticket_is_logged(sender: Sender, start_sidecar: StartSidecar, start_nginx: StartNginx) -> None:
    """The log of nginx has each request, and nothing that lets somebody in."""
    nginx = start_nginx(start_sidecar())
    with EventStream(nginx.url + EVENTS, params={"ticket": "secret"}) as stream:
        stream.next()
    [line] = eventually(lambda: nginx.requests)
    assert EVENTS in line
    assert "secret" not in line
