"""A sidecar that goes away lets its streams go one after the other, and its clients come back elsewhere."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

import pytest

from tests.support.batches import Sender
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar
from tests.support.sse import EventStream
from tests.support.starters import StartSidecar
from tests.support.writing import life


def opened(stack: ExitStack, sidecar: Sidecar, count: int) -> list[EventStream]:
    """Open so many streams."""
    streams = [stack.enter_context(sidecar.events()) for _ in range(count)]
    for stream in streams:
        stream.until_type("live")
    return streams


def test_drain(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Streams end over the time that is given, each cleanly and with a time of its own to come back."""
    sidecar = start_sidecar(env={"SIDECAR_DRAIN_SECONDS": "2"})
    with ExitStack() as stack:
        streams = opened(stack, sidecar, 20)
        sidecar.send_signal(signal.SIGTERM)
        began = time.monotonic()
        ends = []
        for stream in streams:
            stream.wait_for_end()
            ends.append(time.monotonic() - began)
            assert "drain" == stream.seen[-1].event
        assert ends[0] < 1.5
        assert 1.5 < ends[-1] < 3.5
    assert 0 == sidecar.wait(5)
    retries = {stream.retry_ms for stream in streams}
    assert all(1_000 <= (retry or 0) <= 10_000 for retry in retries)
    assert len(retries) > 10
    assert " ERROR " not in sidecar.output
    assert "Traceback" not in sidecar.output


def test_meanwhile(sender: Sender, start_sidecar: StartSidecar) -> None:
    """While it drains it is not ready, admits no stream, and those that are there miss nothing."""
    sidecar = start_sidecar(env={"SIDECAR_DRAIN_SECONDS": "4"})
    with ExitStack() as stack:
        streams = opened(stack, sidecar, 3)
        sidecar.send_signal(signal.SIGTERM)
        eventually(lambda: sidecar.get("/readyz").status_code == 503)
        assert 200 == sidecar.get("/livez").status_code
        with sidecar.events() as late:
            assert "drain" == late.next().event
            late.wait_for_end()
            assert 1_000 <= (late.retry_ms or 0) <= 10_000
        last = sender.send(*life("a"))
        streams[-1].until(lambda event: event.id == str(last.position))
        streams[-1].until_type("drain")
    assert 0 == sidecar.wait(10)


def test_at_once(sender: Sender, start_sidecar: StartSidecar) -> None:
    """Without a time to drain all streams end at once, as cleanly."""
    sidecar = start_sidecar(env={"SIDECAR_DRAIN_SECONDS": "0"})
    with ExitStack() as stack:
        streams = opened(stack, sidecar, 20)
        assert 0 == sidecar.stop(3)
        for stream in streams:
            stream.wait_for_end(1)
            assert "drain" == stream.seen[-1].event


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal(sender: Sender, start_sidecar: StartSidecar, second: signal.Signals) -> None:
    """Who cannot wait is not kept waiting."""
    sidecar = start_sidecar(env={"SIDECAR_DRAIN_SECONDS": "60"})
    with ExitStack() as stack:
        opened(stack, sidecar, 20)
        sidecar.send_signal(signal.SIGTERM)
        eventually(lambda: sidecar.get("/readyz").status_code == 503)
        assert 0 == sidecar.stop(2, second)
    assert " ERROR " not in sidecar.output
    assert "Traceback" not in sidecar.output
