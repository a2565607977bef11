"""Sidecars behind Caddy, as it is shipped."""

from __future__ import annotations

import subprocess

import httpx
from celery import Celery

from deploy.demo.redis_server import RedisServer
from tests.support.batches import Sender, Stored
from tests.support.caddy import SHIPPED, find_caddy
from tests.support.guarded import STATUS, bearer
from tests.support.needed import need
from tests.support.restarting import ENV, EVENTS, restart_each
from tests.support.sidecar_process import Sidecar
from tests.support.sse import EventStream
from tests.support.starters import StartCaddy, StartSidecar, StartWorker
from tests.support.writing import life

# Between the sidecar's signs of life.
QUIET_SECONDS = 15.0


def test_it_is_a_configuration() -> None:
    """Caddy takes the file as it is, TLS included, and finds nothing to put right in its form."""
    caddy = need(find_caddy(), "caddy")
    for arguments in (["validate", "--adapter", "caddyfile", "--config"], ["fmt"]):
        done = subprocess.run([caddy, *arguments, SHIPPED], capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr
        assert '"level":"warn"' not in done.stderr
    assert SHIPPED.read_text() == done.stdout


def test_an_event_comes_at_once_and_a_viewer_goes_at_once(
    sender: Sender, sidecar: Sidecar, start_caddy: StartCaddy
) -> None:
    """Caddy holds no event back, and the sidecar is told of a viewer who has gone."""
    caddy = start_caddy(sidecar)
    with EventStream(caddy.url + EVENTS) as stream:
        stream.until_type("live")
        position = sender.send(*life("a")).position
        stream.until(lambda event: event.id == str(position), QUIET_SECONDS / 3)
    sidecar.wait_for_line(f"{EVENTS} 200", QUIET_SECONDS / 3)


async def test_both_are_restarted(
    redis_server: RedisServer,
    stored: Stored,
    start_worker: StartWorker,
    start_sidecar: StartSidecar,
    start_caddy: StartCaddy,
    celery_app: Celery,
) -> None:
    """Clients see every event exactly once; each stream ends cleanly, with a time to come back."""
    start_worker()
    old = [start_sidecar(env=ENV) for _ in range(2)]
    caddy = start_caddy(*old)
    await restart_each(caddy.url, old, 50, start_sidecar, celery_app, stored)


def test_none_is_there(sender: Sender, start_sidecar: StartSidecar, start_caddy: StartCaddy) -> None:
    """Whoever finds no sidecar may come back, and finds one as soon as there is one."""
    sidecar = start_sidecar()
    caddy = start_caddy(sidecar)
    with EventStream(caddy.url + EVENTS) as stream:
        last = stream.until_type("live").id
        sidecar.kill()
        stream.wait_for_end()
    with EventStream(caddy.url + EVENTS, headers={"Origin": "https://shop.example"}) as in_vain:
        in_vain.wait_for_end()
        headers = in_vain.response.headers
        assert (200, "text/event-stream") == (in_vain.status, headers["content-type"])
        assert "https://shop.example" == headers["access-control-allow-origin"]
        assert [] == in_vain.seen
    assert 502 <= httpx.get(caddy.url + STATUS, trust_env=False).status_code <= 503
    position = sender.send(*life("a")).position
    start_sidecar(port=sidecar.port)
    with EventStream(caddy.url + EVENTS, last_event_id=last) as again:
        again.until(lambda event: event.id == str(position))
        assert "task_status" == again.seen[0].event


def test_no_ticket_is_logged(sender: Sender, start_sidecar: StartSidecar, start_caddy: StartCaddy) -> None:
    """What Caddy says of requests, also of those that it could not pass on, lets nobody in."""
    sidecar = start_sidecar()
    caddy = start_caddy(sidecar)
    options = {"params": {"ticket": "secret-ticket"}, "headers": bearer("secret-token")}
    with EventStream(caddy.url + EVENTS, **options) as stream:
        stream.next()
    caddy.wait_for_line(f"handled request.*{EVENTS}")
    sidecar.kill()
    said = caddy.line_count
    with EventStream(caddy.url + EVENTS, **options) as in_vain:
        in_vain.wait_for_end()
    caddy.wait_for_line(f"handled request.*{EVENTS}", after=said)
    assert "secret" not in caddy.output
