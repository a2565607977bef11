"""The viewer in pages of others: another origin, a strict policy, tokens."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, expect

from tests.support.batches import Sender
from tests.support.browser import card
from tests.support.deadline import eventually
from tests.support.foreign_site import shop
from tests.support.sidecar_process import Sidecar
from tests.support.writing import task

BUTTON = '<queue-button src="{gate}" token-url="/token"></queue-button>'


def test_button_counts_and_opens(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """The badge counts, a click opens the modal; Tab stays within, Esc closes and gives the focus back."""
    with shop(browser, sidecar, BUTTON) as (page, _):
        expect(page.locator(".badge")).to_have_text("0")
        sender.send(task("one", "active"), task("two", "active"))
        expect(page.locator(".badge")).to_have_text("2")
        button = page.get_by_role("button", name="Queue: 2 tasks")
        button.click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        expect(card(page, "two")).to_be_visible()
        order = []
        for _ in range(40):
            page.keyboard.press("Tab")
            order.append(page.evaluate(FOCUSED))
        assert None not in order, "the focus has left the modal"
        assert order[0] in order[1:], "it came round"
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(button).to_be_focused()


# What has the focus within the modal, or null.
FOCUSED = """() => {
  const viewer = document.querySelector('queue-button').shadowRoot.querySelector('queue-viewer');
  const active = viewer.shadowRoot.activeElement;
  return active && `${active.tagName} ${active.className} ${active.textContent.slice(0, 20)}`;
}"""


def test_token_ends_and_is_renewed(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """A token that ends is asked for anew, and nothing is missed or shown twice."""
    inline = '<queue-viewer inline src="{gate}" token-url="/token"></queue-viewer>'
    with shop(browser, sidecar, inline) as (page, gate):
        expect(page.locator(".conn-word")).to_have_text("Live")
        for number in range(1, 3):
            sender.send(task(f"t{number}", "active"))
            expect(card(page, f"t{number}")).to_have_count(1)
            issued = gate.issued
            gate.expire()
            eventually(lambda issued=issued: gate.issued > issued)
        expect(page.locator(".conn-word")).to_have_text("Live")
        expect(page.locator("li.task")).to_have_count(2)


def test_token_that_is_refused(browser: Browser, sidecar: Sidecar) -> None:
    """Where no token is good enough, the viewer says so and does not ask for ever."""
    with shop(browser, sidecar, BUTTON, good_for=-1.0) as (page, gate):
        expect(page.get_by_role("button", name=re.compile("Not signed in"))).to_be_visible()
        assert gate.refused == 3


def test_twice_on_a_page(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """Elements that want the same share one stream: a browser opens only six connections to a server."""
    inline = '<queue-viewer inline src="{gate}" token-url="/token"></queue-viewer>'
    with shop(browser, sidecar, BUTTON + inline + inline) as (page, gate):
        sender.send(task("one", "active"))
        expect(card(page, "one")).to_have_count(2)
        expect(page.locator(".badge")).to_have_text("1")
        assert 1 == gate.issued


def test_progress_of_one_task(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """The page that started a task sees its state, its progress and its end."""
    sender.send(task("one", "reserved"))
    element = '<task-progress src="{gate}" token-url="/token" task-id="one"></task-progress>'
    with shop(browser, sidecar, element) as (page, _):
        expect(page.locator(".state-word")).to_have_text("Reserved")
        progress = {"message": "Page 3 of 4", "percent": 75.0, "updated_at": 1.0}
        sender.send(task("one", "active", progress=progress))
        expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "75")
        expect(page.locator(".message")).to_have_text("Page 3 of 4")
        sender.send(task("one", "completed", runtime=1.5))
        expect(page.locator(".state-word")).to_have_text("Completed")
        expect(page.locator(".clock")).to_have_text("1.50 s")
