"""Sidecars behind nginx, as it is shipped: they are restarted, and no client misses an event."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from celery import Celery

from deploy.demo.redis_server import RedisServer
from tests.support.batches import Sender, Stored
from tests.support.deadline import eventually
from tests.support.restarting import ENV, EVENTS, restart_each
from tests.support.sse import EventStream
from tests.support.starters import StartNginx, StartSidecar, StartWorker
from tests.support.writing import life


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
    await restart_each(
        nginx.url,
        old,
        count,
        start_sidecar,
        celery_app,
        stored,
        before=lambda sidecar: nginx.take_out(sidecar.port) if taken_out else None,
    )
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
