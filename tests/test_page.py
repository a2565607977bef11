"""The viewer in a real browser, on a real sidecar, Redis and worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from playwright.sync_api import Browser, Page, expect

from deploy.demo.redis_server import RedisServer
from tests.support.batches import Sender
from tests.support.browser import card, open_browser, open_page
from tests.support.sidecar_process import Sidecar
from tests.support.site import SHORT_LEASE
from tests.support.starters import StartSidecar, StartWorker
from tests.support.tasks_app import Gate
from tests.support.writing import task

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

Look = Callable[[str], Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of the module."""
    with open_browser() as browser:
        yield browser


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Open pages; nothing that the browser complains of passes unseen, also not what a policy forbids."""
    pages: list[Page] = []

    def open_it(url: str) -> Page:
        pages.append(open_page(browser, url))
        return pages[-1]

    yield open_it
    for page in pages:
        complaints = page.complaints  # type: ignore[attr-defined] # set by open_page
        page.context.close()
        assert [] == complaints


@pytest.fixture
def page(look: Look, sidecar: Sidecar) -> Page:
    """The sidecar's page, live; the tasks are those of `sender`."""
    page = look(f"{sidecar.url}/")
    expect(connection(page)).to_have_text("Live")
    return page


def connection(page: Page) -> object:
    """The word that says what the connection is like."""
    return page.locator(".conn-word")


def figure(page: Page, name: str) -> object:
    """A figure of the strip."""
    return page.locator(f'[data-figure="{name}"] .value')


def clock(page: Page, task_id: str) -> str:
    """What the clock of a card shows."""
    return card(page, task_id).locator(".clock").inner_text()


def test_a_task_from_its_start_to_its_end(
    look: Look, start_worker: StartWorker, start_sidecar: StartSidecar, celery_app: Celery, gate: Gate
) -> None:
    """It appears at once with its progress, its clock ticks, its parameters open, and it leaves when done."""
    start_worker()
    page = look(f"{start_sidecar().url}/")
    expect(connection(page)).to_have_text("Live")
    page.locator("queue-viewer").evaluate(WATCH)
    task_id = celery_app.tasks["tests.progress"].delay("Halfway there", str(gate)).id
    row = card(page, task_id)
    expect(row).to_have_attribute("data-status", "active")
    started = page.evaluate(
        "id => document.querySelector('queue-viewer').queue.getTask(id).started_at", task_id
    )
    shown = page.evaluate("id => window.seen[`${id} active`]", task_id)
    # The goal is 0.2 s, on a machine that does nothing else.
    assert shown - started < 1.0
    print(f"shown {shown - started:.3f} s after its start")
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
    look: Look, start_worker: StartWorker, start_sidecar: StartSidecar, celery_app: Celery, gate: Gate
) -> None:
    """It turns to lost, and its clock stands while the others go on."""
    worker = start_worker(env=SHORT_LEASE)
    page = look(f"{start_sidecar().url}/")
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
    expect(page.locator(".worker .who")).to_contain_text("Lost, last seen")


def test_sidecar_killed_and_started_again(
    look: Look, sender: Sender, sidecar: Sidecar, start_sidecar: StartSidecar, page: Page
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


def test_redis_frozen_and_back(redis_server: RedisServer, sender: Sender, page: Page) -> None:
    """Within 10 s the page says since when the figures are old, and dims them; then it is live again."""
    pid = sender.client.info("server")["process_id"]  # type: ignore[index] # redis-py types sync and async
    os.kill(pid, signal.SIGSTOP)
    try:
        expect(connection(page)).to_have_text("Redis unreachable", timeout=10_000)
        expect(page.locator(".conn-rest")).to_contain_text("since")
        expect(page.locator(".viewer")).to_have_attribute("data-old", "")
    finally:
        os.kill(pid, signal.SIGCONT)
    expect(connection(page)).to_have_text("Live", timeout=30_000)
    sender.send(task("after", "active"))
    expect(card(page, "after")).to_be_visible()


def test_nothing_moves_under_the_pointer(sender: Sender, page: Page) -> None:
    """While the pointer is on a card, no card moves, comes or goes; what is new waits behind a button."""
    sender.send(*(task(f"t{number}", "active", received_at=number) for number in range(5)))
    row = card(page, "t2")
    row.hover()
    before = row.bounding_box()
    sender.send(task("t4", "completed"), *(task(f"new{number}", "active") for number in range(7)))
    expect(card(page, "t4")).to_have_attribute("data-status", "completed")
    expect(page.locator(".fresh")).to_have_text("+7 new")
    assert before == row.bounding_box()
    page.mouse.move(5, 5)
    expect(card(page, "new0")).to_be_visible()
    expect(page.locator(".fresh")).to_be_hidden()


def test_an_open_card_stays_open(sender: Sender, page: Page) -> None:
    """Neither changes nor new cards close a card, and its details are not written anew."""
    sender.send(task("one", "active", received_at=1))
    card(page, "one").locator(".head").click()
    details = card(page, "one").locator(".details").element_handle()
    sender.send(*(task(f"new{number}", "active") for number in range(3)))
    page.locator(".label").click()
    page.mouse.move(5, 5)
    expect(card(page, "new0")).to_be_visible()
    assert details.evaluate("details => details.isConnected")


def test_what_has_ended_leaves(sender: Sender, sidecar: Sidecar, browser: Browser) -> None:
    """A finished task leaves the list after 5 s and the store after 30 s."""
    page = open_page(browser, "about:blank")
    page.clock.install()
    page.goto(f"{sidecar.url}/")
    expect(connection(page)).to_have_text("Live")
    sender.send(task("one", "active"))
    expect(card(page, "one")).to_be_visible()
    sender.send(task("one", "completed"))
    expect(card(page, "one")).to_have_attribute("data-status", "completed")
    in_store = "document.querySelector('queue-viewer').queue.tasks.has('one')"
    page.clock.run_for(3000)
    expect(card(page, "one")).to_be_visible()
    page.clock.run_for(4000)
    expect(card(page, "one")).to_have_count(0)
    assert page.evaluate(in_store)
    page.clock.run_for(25_000)
    assert not page.evaluate(in_store)
    page.context.close()


def test_keys(sender: Sender, page: Page) -> None:
    """/ searches, Esc leaves the search, p pauses and resumes; paused the page tells how much has changed."""
    sender.send(task("apple", "active"), task("pear", "active"))
    expect(card(page, "pear")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("app")
    expect(card(page, "pear")).to_have_count(0)
    expect(card(page, "apple")).to_be_visible()
    page.keyboard.press("Escape")
    expect(card(page, "pear")).to_be_visible()
    page.locator(".label").click()
    page.keyboard.press("p")
    expect(connection(page)).to_have_text("Paused")
    sender.send(task("pear", "completed"), task("plum", "active"))
    expect(page.locator(".conn-rest")).to_have_text("– 2 changes")
    expect(card(page, "plum")).to_have_count(0)
    expect(card(page, "pear")).to_have_attribute("data-status", "active")
    page.keyboard.press("p")
    expect(card(page, "plum")).to_be_visible()
    expect(card(page, "pear")).to_have_attribute("data-status", "completed")


def test_search_finds_arguments(sender: Sender, page: Page) -> None:
    """What only the sidecar knows is searched by it."""
    sender.send(task("one", "active", extra={"args": "('needle',)"}), task("two", "active"))
    expect(card(page, "two")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("needle")
    expect(card(page, "one")).to_be_visible()
    expect(card(page, "two")).to_have_count(0)


def test_arrows_go_from_card_to_card(sender: Sender, page: Page) -> None:
    """One card is a stop of the Tab key; the arrows go on, far beyond what is in sight, and Enter opens."""
    sender.send(*(task(f"t{number:03}", "active", received_at=number) for number in range(200)))
    expect(card(page, "t199")).to_be_visible()
    assert 1 == page.locator('.head[tabindex="0"]').count()
    card(page, "t199").locator(".head").focus()
    page.keyboard.press("End")
    expect(card(page, "t000").locator(".head")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(card(page, "t001").locator(".head")).to_be_focused()
    page.keyboard.press("Enter")
    expect(card(page, "t001").locator(".details")).to_be_visible()


def test_only_what_is_in_sight_is_in_the_page(sender: Sender, page: Page) -> None:
    """Of a thousand tasks some dozens are in the page."""
    for start in range(0, 1000, 200):
        sender.send(
            *(task(f"t{number:04}", "reserved", received_at=number) for number in range(start, start + 200))
        )
    page.get_by_role("tab", name="Waiting").click()
    expect(figure(page, "total")).to_have_text("1,000")
    expect(card(page, "t0000")).to_be_visible()
    assert page.locator("li.task").count() < 60


def test_history(sender: Sender, page: Page) -> None:
    """Finished and failed tasks come from the history, and what ends meanwhile is added at the top."""
    sender.send(
        task("good", "completed", finished_at=1_700_000_000),
        task("bad", "failed", exception="ValueError('no')"),
    )
    page.get_by_role("tab", name="Failed").click()
    expect(card(page, "bad")).to_contain_text("ValueError('no')")
    expect(card(page, "good")).to_have_count(0)
    page.get_by_role("tab", name="Finished").click()
    expect(card(page, "good")).to_be_visible()
    sender.send(task("later", "active"))
    sender.send(task("later", "completed", finished_at=1_800_000_000))
    expect(card(page, "later")).to_be_visible()


def test_page_of_a_task(look: Look, sender: Sender, sidecar: Sidecar) -> None:
    """Its address shows what failed first, then the timeline with each attempt, and its family."""
    sender.send(task("root", "active"))
    sender.send(
        task("one", "active", parent_id="root", root_id="root"), task("kid", "active", parent_id="one")
    )
    sender.send(task("one", "failed", parent_id="root", root_id="root", exception="ValueError('broken')"))
    page = look(f"{sidecar.url}/#/tasks/one")
    expect(page.locator(".page-body section").first).to_contain_text("ValueError('broken')")
    expect(page.locator(".timeline li")).to_have_count(2)
    expect(page.locator(".relatives")).to_contain_text("Child")
    page.locator(".relatives button").first.click()
    expect(page).to_have_url(f"{sidecar.url}/#/tasks/root")
    page.keyboard.press("Escape")
    expect(page.get_by_role("tab", name="Active")).to_be_visible()


def test_queue_without_workers(sender: Sender, page: Page) -> None:
    """A queue that nobody consumes says so."""
    sender.client.sadd("_kombu.binding.orphan", "orphan\x06\x16\x06\x16orphan")
    sender.client.lpush("orphan", "{}")
    queue = page.locator(".queue", has_text="orphan")
    expect(queue.locator(".who")).to_have_text("No workers")
    expect(page.locator(".queue", has_text="celery").locator(".who")).to_have_text("1 worker")
    expect(figure(page, "pending")).to_have_text("1")
