"""Sidecars that are restarted one after the other, behind a proxy, while tasks run and clients listen."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from celery import Celery

from tests.support.batches import Stored
from tests.support.deadline import eventually, eventually_async
from tests.support.returning import Returning
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar

EVENTS = "/api/v1/queue/events"
# Clients wait for up to 10 s before they come back, and may do so twice.
RETURN_SECONDS = 60.0
ENV = {
    "SIDECAR_DRAIN_SECONDS": "2",
    "SIDECAR_TRUSTED_PROXIES": "127.0.0.1",
    # Each client has an address of its own, which only the proxy knows.
    "SIDECAR_MAX_STREAMS_PER_ADDRESS": "1",
}


async def restart_each(
    proxy: str,
    sidecars: list[Sidecar],
    clients: int,
    start_sidecar: StartSidecar,
    app: Celery,
    stored: Stored,
    before: Callable[[Sidecar], None] = lambda sidecar: None,
) -> list[Sidecar]:
    """Restart each of the sidecars; clients must see every event exactly once and be told to come back."""
    followers = [Returning(proxy + EVENTS, f"127.0.1.{number + 1}") for number in range(clients)]
    new = []
    async with anyio.create_task_group() as tasks:
        for follower in followers:
            tasks.start_soon(follower.run)
        async with traffic(app) as sent:
            await eventually_async(all_of(followers, lambda follower: follower.is_live))
            for sidecar in sidecars:
                before(sidecar)
                new.append(await restarted(sidecar, start_sidecar))
        last = await last_offset(stored, sent)
        await eventually_async(
            all_of(followers, lambda follower: follower.offsets[-1] == last), RETURN_SECONDS
        )
        tasks.cancel_scope.cancel()
    for follower in followers:
        assert list(range(follower.offsets[0], last + 1)) == follower.offsets
        assert (1, 0, 0) == (follower.count("snapshot"), follower.count("reset"), follower.broken)
        assert follower.partings
        assert all(event == "drain" and 1_000 <= retry <= 10_000 for event, retry in follower.partings)
    for sidecar in (*sidecars, *new):
        assert " ERROR " not in sidecar.output
        assert "Traceback" not in sidecar.output
    return new


@asynccontextmanager
async def traffic(app: Celery) -> AsyncIterator[set[str]]:
    """Five tasks a second, whose ids are added to the set."""
    over = anyio.Event()
    sent: set[str] = set()

    async def send() -> None:
        while not over.is_set():
            sent.add(app.send_task("tests.add", [1, 2]).id)
            with anyio.move_on_after(0.2):
                await over.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        yield sent
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


async def last_offset(stored: Stored, sent: set[str]) -> int:
    """Wait until all tasks have ended, and say at which offset."""

    async def have_ended() -> bool:
        return sent == set(stored.finished)

    await eventually_async(have_ended)
    return stored.offset
