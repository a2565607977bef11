"""The rounds: everybody gets everything once, in pieces of a bounded size, whatever one of them does."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from starlette.types import Message

from celery_plugin.contract import Position
from sidecar import pump as pump_module
from tests.support.viewing import EPOCH, Service, Viewer, append, live_feed, serving, watching


def offsets(viewer: Viewer) -> list[int]:
    """The offsets of the events that a viewer was sent."""
    return [Position.parse(event.id).offset for event in viewer.events if event.event == "task_status"]


async def at(viewer: Viewer, offset: int) -> None:
    """Wait until a viewer knows an id."""
    await viewer.until(lambda: viewer.parser.last_event_id == f"{EPOCH}-{offset}")


async def test_viewers_that_come_in_the_midst_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """However a round gives way to others, who comes meanwhile gets each event once."""
    monkeypatch.setattr(pump_module, "TURN_VIEWERS", 1)
    feed, viewers = live_feed(length=1000), []
    async with serving(feed) as service, AsyncExitStack() as stack:
        for number in range(20):
            viewers.append(await stack.enter_async_context(watching(service)))
            append(feed, 10)
            await at(viewers[number // 2], 10 * (number + 1))
        for viewer in viewers:
            await at(viewer, 200)
    for viewer in viewers:
        told = offsets(viewer)
        assert list(range(201 - len(told), 201)) == told
    assert 190 <= len(offsets(viewers[0]))


async def test_what_is_sent_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much comes at once, a viewer that is slow holds no more than one round."""
    monkeypatch.setattr(pump_module, "ROUND_FRAMES", 10)
    feed = live_feed(length=1000)
    async with serving(feed) as service, watching(service) as viewer:
        await at(viewer, 0)
        before = len(viewer.messages)
        append(feed, 95)
        await at(viewer, 95)
    pieces = [message["body"].count(b"event: task_status") for message in viewer.messages[before:]]
    assert [10] * 9 + [5] == [piece for piece in pieces if piece]


async def test_a_fault_of_one(caplog: pytest.LogCaptureFixture) -> None:
    """A fault in sending to one viewer is told, and ends that stream alone."""

    async def send(message: Message) -> None:
        if message["body"].count(b"task_status"):
            raise RuntimeError("a fault")

    feed = live_feed()
    async with serving(feed) as service, watching(service) as good:
        await at(good, 0)
        bad = _viewer(service)
        bad.send = send
        async with watching(service) as other:
            await at(other, 0)
            append(feed, 1)
            await at(other, 1)
            append(feed, 1)
            await at(other, 2)
    assert [] == offsets(good)
    assert "a fault of the sidecar's own" in caplog.text


def _viewer(service: Service) -> pump_module.Viewer:
    [only] = service.pump.viewers
    return only


async def test_nothing_is_left_of_who_has_gone() -> None:
    """Neither a viewer nor its audience stays."""
    feed = live_feed()
    async with serving(feed) as service:
        async with watching(service) as viewer:
            await at(viewer, 0)
        assert ({}, []) == (service.pump.viewers, list(service.audiences))
