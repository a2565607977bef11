"""The stream is read by what others have written: a browser's EventSource, httpx-sse, and curl."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse
from playwright.sync_api import Browser, Page

from celery_plugin.contract import Position
from deploy.demo.ports import HOST
from tests.support.batches import Sender
from tests.support.browser import open_browser, open_page
from tests.support.deadline import PATIENCE_SECONDS, eventually
from tests.support.needed import need
from tests.support.sidecar_process import Sidecar
from tests.support.sse import Parser
from tests.support.starters import StartNginx, StartProcess, StartSidecar
from tests.support.writing import life, many

EVENTS = "/api/v1/queue/events"
# What ends a line for some and not for others, what is long in UTF-8, what JSON escapes.
DIFFICULT = 'a\u2028b\u2029c\x85d\u00e9\U0001f680"\\\n\r\t\x00'

FOLLOW = """url => {
  window.seen = [];
  window.opened = 0;
  // The stricter case, where it is of another origin.
  window.source = new EventSource(url, {withCredentials: true});
  source.onopen = () => { opened += 1; };
  for (const type of ["snapshot", "live", "reset", "task_status", "worker_status", "drain"])
    source.addEventListener(type, e => seen.push({type, id: e.lastEventId, data: JSON.parse(e.data)}));
}"""
HAS_SEEN = "id => window.seen.some(event => event.id === id)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of the module."""
    with open_browser() as browser:
        yield browser


@pytest.fixture
def front_end(tmp_path: Path) -> Iterator[str]:
    """The origin of somebody's front end, which has a page."""
    (tmp_path / "index.html").write_text("<!doctype html><title>A front end</title>")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer((HOST, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{HOST}:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def follow(browser: Browser, origin: str, url: str) -> Page:
    """Open a page of an origin, and a stream in it."""
    page = open_page(browser, origin)
    page.evaluate(FOLLOW, url)
    page.wait_for_function("() => window.seen.some(event => event.type === 'live')")
    return page


def from_log(events: list[dict[str, Any]]) -> list[int]:
    """The offsets of what came from the log."""
    return [Position.parse(event["id"]).offset for event in events if event["type"].endswith("_status")]


def task_ids(events: list[dict[str, Any]]) -> list[str]:
    """The tasks that the events are about."""
    return [event["data"]["task_id"] for event in events if event["type"] == "task_status"]


# -- a browser


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_event_source(
    browser: Browser, sender: Sender, sidecar: Sidecar, start_sidecar: StartSidecar, number: signal.Signals
) -> None:
    """It reads every event as it was meant, and comes back by itself to a sidecar that was restarted."""
    page = follow(browser, f"{sidecar.url}/livez", EVENTS)
    first = sender.send(*life("a", task_name=DIFFICULT)).position
    page.wait_for_function(HAS_SEEN, arg=str(first))
    sidecar.send_signal(number)
    sidecar.wait()
    for batch in many(100):
        sender.send(*batch)
    start_sidecar(port=sidecar.port)
    last = sender.send(*life("z")).position
    page.wait_for_function(HAS_SEEN, arg=str(last))
    seen = page.evaluate("seen")
    assert list(range(first.offset - 2, last.offset + 1)) == from_log(seen)
    assert ["snapshot", "live"] == [each["type"] for each in seen[:2]]
    assert {"task_status", "drain"} >= {each["type"] for each in seen[2:]}
    assert [DIFFICULT] * 3 == [each["data"]["task_name"] for each in seen[2:5]]
    assert 2 == page.evaluate("opened")


def test_event_source_of_another_origin(
    browser: Browser,
    sender: Sender,
    front_end: str,
    start_sidecar: StartSidecar,
) -> None:
    """A page of an origin that was named reads on after a restart, too; one of another reads nothing."""
    sidecar = start_sidecar(env={"SIDECAR_CORS_ORIGINS": front_end})
    page = follow(browser, front_end, sidecar.url + EVENTS)
    first = sender.send(*life("a")).position
    page.wait_for_function(HAS_SEEN, arg=str(first))
    sidecar.kill()
    for batch in many(100):
        sender.send(*batch)
    start_sidecar(port=sidecar.port, env={"SIDECAR_CORS_ORIGINS": front_end})
    last = sender.send(*life("z")).position
    page.wait_for_function(HAS_SEEN, arg=str(last))
    assert list(range(first.offset - 2, last.offset + 1)) == from_log(page.evaluate("seen"))
    page.close()
    stranger = open_page(browser, front_end.replace(HOST, "localhost"))
    stranger.evaluate(FOLLOW, sidecar.url + EVENTS)
    stranger.wait_for_function("() => source.readyState === EventSource.CLOSED")
    assert [[], 0] == stranger.evaluate("[seen, opened]")
    stranger.close()


def test_event_source_of_another_origin_through_nginx(
    browser: Browser,
    sender: Sender,
    front_end: str,
    start_sidecar: StartSidecar,
    start_nginx: StartNginx,
) -> None:
    """Through nginx it is the same, and needs no question beforehand.

    While no sidecar is there it is told to come back, in a way that it may read.
    """
    env = {"SIDECAR_CORS_ORIGINS": front_end}
    sidecar = start_sidecar(env=env)
    nginx = start_nginx(sidecar)
    page = follow(browser, front_end, nginx.url + EVENTS)
    first = sender.send(*life("a")).position
    page.wait_for_function(HAS_SEEN, arg=str(first))
    sidecar.kill()
    for batch in many(100):
        sender.send(*batch)
    page.wait_for_function("() => window.seen.at(-1).type === 'drain'")
    start_sidecar(port=sidecar.port, env=env)
    last = sender.send(*life("z")).position
    page.wait_for_function(HAS_SEEN, arg=str(last))
    assert list(range(first.offset - 2, last.offset + 1)) == from_log(page.evaluate("seen"))
    page.close()
    eventually(lambda: len(nginx.requests) > 2)
    assert [] == [line for line in nginx.requests if "OPTIONS" in line]


def test_event_source_of_a_task(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """The stream of a task that has ended stops for good: the answer to the next attempt is 204."""
    page = open_page(browser, f"{sidecar.url}/livez")
    page.evaluate(FOLLOW, "/api/v1/queue/tasks/a/events")
    page.wait_for_function("() => window.seen.some(event => event.type === 'live')")
    sender.send(*life("a"))
    page.wait_for_function("() => source.readyState === EventSource.CLOSED")
    seen = page.evaluate("seen")
    assert ["a"] * 3 == task_ids(seen)
    assert 1 == page.evaluate("opened")


# -- programs


def test_httpx_sse(sender: Sender, sidecar: Sidecar) -> None:
    """httpx-sse reads each event, its type, id and retry, and resumes with the last id."""
    with httpx.Client(trust_env=False, timeout=15) as client:
        with connect_sse(client, "GET", sidecar.url + EVENTS) as source:
            events = source.iter_sse()
            seen = [next(events)]
            while seen[-1].event != "live":
                seen.append(next(events))
            first = sender.send(*life("a", task_name=DIFFICULT)).position
            seen += until(events, first)
        last = sender.send(*life("z")).position
        resumed = {"Last-Event-ID": seen[-1].id}
        with connect_sse(client, "GET", sidecar.url + EVENTS, headers=resumed) as source:
            again = until(source.iter_sse(), last)
    told = [event for event in (*seen, *again) if event.event == "task_status"]
    assert [*range(first.offset - 2, last.offset + 1)] == [Position.parse(event.id).offset for event in told]
    assert [DIFFICULT] * 3 == [event.json()["task_name"] for event in told[:3]]


def until(events: Iterator[ServerSentEvent], position: Position) -> list[ServerSentEvent]:
    """The events up to the one at a position; the figures, which come all the time, end the wait for it."""
    end, seen = time.monotonic() + PATIENCE_SECONDS, [next(events)]
    while seen[-1].id != str(position):
        assert time.monotonic() < end, f"{position} did not come, but {seen}"
        seen.append(next(events))
    return seen


def test_curl_through_nginx(
    sender: Sender, sidecar: Sidecar, start_nginx: StartNginx, start_process: StartProcess
) -> None:
    """With ``curl -N`` through nginx each event is there at once, not when more have come."""
    curl = start_process([need(shutil.which("curl"), "curl"), "-sSN", start_nginx(sidecar).url + EVENTS])
    curl.wait_for_line("^event: live")
    first = sender.send(*life("a", task_name=DIFFICULT)).position
    curl.wait_for_line(f"^id: {first}")
    last = [sender.send(*batch) for batch in many(300)][-1].position
    curl.wait_for_line(f"^id: {last}")
    curl.wait_for_line("^$", after=curl.line_count - 1)
    told = [event for event in Parser().feed(curl.output.encode()) if event.event == "task_status"]
    assert [*range(first.offset - 2, last.offset + 1)] == [Position.parse(event.id).offset for event in told]
    assert DIFFICULT == json.loads(told[0].text)["task_name"]
