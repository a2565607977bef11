"""The viewer with a real worker, and while a worker, the sidecar or Redis goes away and comes back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from celery import Celery
from playwright.sync_api import Page, expect

from deploy.demo.redis_server import RedisServer
from tests.support.batches import Sender
from tests.support.browser import LONGEST_PAUSE, Look, card, connection, figure
from tests.support.sidecar_process import Sidecar
from tests.support.site import SHORT_LEASE
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import Gate
from tests.support.writing import task, worker

# What the page shows, and the browser's clock at which it did, by id and state.
WATCH = """viewer => {
  window.seen = {};
  const look = () => {
    for (const row of viewer.shadowRoot.querySelectorAll('li[data-task-id]')) {
      window.seen[`${row.dataset.taskId} ${row.dataset.status}`] ??= Date.now() / 1000;
    }
  };
  const options = { childList: true, subtree: true, attributes: true };
  new MutationObserver(look).observe(viewer.shadowRoot, options);
}"""


def clock(page: Page, task_id: str) -> str:
    """What the clock of a card shows."""
    return card(page, task_id).locator(".clock").inner_text()


def seconds_until_shown(page: Page, celery_app: Celery, gate: Gate) -> float:
    """How long after its start a task is in the page."""
    task_id = celery_app.tasks["tests.wait_for_file"].delay(str(gate)).id
    expect(card(page, task_id)).to_have_attribute("data-status", "active")
    shown = page.evaluate("id => window.seen[`${id} active`]", task_id)
    task = "id => document.querySelector('queue-viewer').queue.getTask(id)"
    started = page.evaluate(f"id => ({task})(id).started_at", task_id)
    gate.open()
    return float(shown - started)


def test_shown_at_once(page: Page, start_worker: StartWorker, celery_app: Celery, tmp_path: Path) -> None:
    """A task that starts is in the page within 0.2 s, unless the machine is busy with something else."""
    start_worker()
    page.locator("queue-viewer").evaluate(WATCH)
    attempts = (seconds_until_shown(page, celery_app, Gate(tmp_path / f"gate{n}")) for n in range(10))
    assert any(seconds < 0.2 for seconds in attempts)


def test_a_task_from_its_start_to_its_end(
    page: Page, start_worker: StartWorker, celery_app: Celery, gate: Gate
) -> None:
    """It appears with its progress, its clock ticks, its parameters open, and it leaves when done."""
    start_worker()
    task_id = celery_app.tasks["tests.progress"].delay("Halfway there", str(gate)).id
    row = card(page, task_id)
    expect(row).to_have_attribute("data-status", "active")
    expect(figure(page, "active")).to_have_text("1")
    expect(row.locator(".says")).to_contain_text("50 %")
    expect(row.locator(".says")).to_contain_text("Halfway there")
    before = clock(page, task_id)
    expect(row.locator(".clock")).not_to_have_text(before)
    row.locator(".head").click()
    expect(row.locator(".parameters")).to_contain_text(str(gate))
    gate.open()
    expect(row).to_have_attribute("data-status", "completed")
    page.mouse.move(5, 5)
    page.locator(".label").click()
    expect(row).to_have_count(0)
    expect(figure(page, "active")).to_have_text("0")


def test_a_task_whose_worker_is_killed(
    page: Page, start_worker: StartWorker, celery_app: Celery, gate: Gate
) -> None:
    """It turns to lost, and its clock stands while the others go on."""
    worker = start_worker(env=SHORT_LEASE)
    task_id = celery_app.tasks["tests.wait_for_file"].delay(str(gate)).id
    row = card(page, task_id)
    expect(row).to_have_attribute("data-status", "active")
    worker.kill()
    expect(row).to_have_attribute("data-status", "lost")
    expect(row.locator(".state-word")).to_have_text("Lost")
    stopped = clock(page, task_id)
    for _ in range(2):
        age = page.locator(".conn-rest").inner_text()
        expect(page.locator(".conn-rest")).not_to_have_text(age)
    assert stopped == clock(page, task_id)
    expect(page.locator("li.worker", has_text="Lost, last seen")).to_have_count(1)


def test_sidecar_killed_and_started_again(
    sender: Sender, sidecar: Sidecar, start_sidecar: StartSidecar, page: Page
) -> None:
    """The page says that it reconnects, then shows what is, without a reload and without a card twice."""
    sender.send(task("kept", "active"), task("ends", "active"))
    expect(card(page, "ends")).to_be_visible()
    sidecar.kill()
    expect(connection(page)).to_have_text("Reconnecting…")
    sender.send(task("ends", "completed"), task("new", "active"))
    start_sidecar(port=sidecar.port)
    expect(connection(page)).to_have_text("Live")
    expect(card(page, "new")).to_have_count(1)
    expect(card(page, "kept")).to_have_count(1)
    expect(card(page, "kept")).to_have_attribute("data-status", "active")
    expect(card(page, "ends")).to_have_count(0)
    expect(figure(page, "active")).to_have_text("2")


@pytest.mark.parametrize(("target", "event"), [("window", "online"), ("document", "visibilitychange")])
def test_a_look_at_the_page_reconnects(
    target: str, event: str, sender: Sender, sidecar: Sidecar, start_sidecar: StartSidecar, look: Look
) -> None:
    """Clocks stand while nothing is heard; a new look or network does not wait for the pause's end."""
    page = look("about:blank")
    page.clock.install()
    page.goto(f"{sidecar.url}/")
    sender.send(task("one", "active", started_at=time.time()))
    expect(card(page, "one")).to_be_visible()
    before = clock(page, "one")
    page.clock.run_for(2000)
    assert before != clock(page, "one")
    sidecar.kill()
    expect(connection(page)).to_have_text("Reconnecting…")
    before = clock(page, "one")
    for _ in range(8):
        with page.expect_event("requestfailed"):
            page.clock.run_for(LONGEST_PAUSE)
    assert before == clock(page, "one")
    start_sidecar(port=sidecar.port)
    expect(connection(page)).to_have_text("Reconnecting…")
    page.evaluate(f"{target}.dispatchEvent(new Event('{event}'))")
    # By itself it would try again after 15 s at the earliest.
    expect(connection(page)).to_have_text("Live", timeout=10_000)


def test_redis_frozen_and_back(redis_server: RedisServer, sender: Sender, page: Page) -> None:
    """Within 10 s the page says since when the figures are old, and dims them; then it is live again."""
    redis_server.pause()
    try:
        expect_stale(page)
    finally:
        redis_server.resume()
    expect(connection(page)).to_have_text("Live", timeout=30_000)
    sender.send(task("after", "active"))
    expect(card(page, "after")).to_be_visible()


def test_redis_stopped_and_started(redis_server: RedisServer, sender: Sender, page: Page) -> None:
    """The same where Redis has ended; as it comes back empty, the page shows that nothing is left."""
    sender.send(task("before", "active"))
    expect(card(page, "before")).to_be_visible()
    redis_server.stop()
    try:
        expect_stale(page)
        expect(card(page, "before")).to_be_visible()
    finally:
        redis_server.start()
    sender.send(worker(), task("after", "active"))
    expect(connection(page)).to_have_text("Live", timeout=30_000)
    expect(card(page, "after")).to_be_visible()
    expect(card(page, "before")).to_have_count(0)


def expect_stale(page: Page) -> None:
    """Wait for at most 10 s until the page says that Redis is away."""
    expect(connection(page)).to_have_text("Redis unreachable", timeout=10_000)
    expect(page.locator(".conn-rest")).to_contain_text("since")
    expect(page.locator(".viewer")).to_have_attribute("data-old", "")
