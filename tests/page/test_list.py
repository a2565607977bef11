"""The list of tasks: what moves it, what leaves it, and how one finds and opens a task."""

from __future__ import annotations

import time

from playwright.sync_api import Page, expect

from tests.support.batches import Sender
from tests.support.browser import Look, card, connection, figure
from tests.support.sidecar_process import Sidecar
from tests.support.writing import task


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


def test_what_has_ended_leaves(sender: Sender, sidecar: Sidecar, look: Look) -> None:
    """A finished task leaves the list after 5 s and the store after 30 s."""
    page = look("about:blank")
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
    """Finished and failed tasks come from the history, and what ends meanwhile is added; also searched."""
    sender.send(
        task("good", "completed", finished_at=1_700_000_000, extra={"args": "('needle',)"}),
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
    page.keyboard.press("/")
    page.keyboard.type("needle")
    expect(card(page, "later")).to_have_count(0)
    expect(card(page, "good")).to_be_visible()


def test_page_of_a_task(look: Look, sender: Sender, sidecar: Sidecar) -> None:
    """Its address shows what failed first, then the timeline with each attempt, and its family."""
    sender.send(task("root", "active", started_at=time.time()))
    sender.send(
        task("one", "active", parent_id="root", root_id="root"), task("kid", "active", parent_id="one")
    )
    sender.send(task("one", "failed", parent_id="root", root_id="root", exception="ValueError('broken')"))
    page = look(f"{sidecar.url}/#/tasks/one")
    expect(page.locator(".page-body section").first).to_contain_text("ValueError('broken')")
    expect(page.locator(".timeline li")).to_have_count(2)
    expect(page.locator(".relatives")).to_contain_text("Child")
    page.locator(".relatives button").first.click()
    ticks = page.locator(".page-clock")
    for _ in range(3):
        before = ticks.inner_text()
        expect(ticks).not_to_have_text(before)
    expect(page).to_have_url(f"{sidecar.url}/#/tasks/root")
    page.keyboard.press("Escape")
    expect(page.get_by_role("tab", name="Active")).to_be_visible()


def test_queue_without_workers(sender: Sender, page: Page) -> None:
    """A queue that nobody consumes says so."""
    sender.client.sadd("_kombu.binding.orphan", "orphan\x06\x16\x06\x16orphan")
    sender.client.lpush("orphan", "{}")
    queue = page.locator(".queue", has_text="orphan")
    expect(queue.locator(".who")).to_have_text("No workers")
    expect(queue.locator(".who")).to_have_attribute("data-warning", "")
    expect(page.locator(".queue", has_text="celery").locator(".who")).to_have_text("1 worker")
    expect(page.locator(".who[data-warning]")).to_have_count(1)
    expect(figure(page, "pending")).to_have_text("1")
