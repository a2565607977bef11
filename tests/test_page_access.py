"""The viewer and a sidecar that wants a token: from another origin, for some tasks, and on its own page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, Response, expect

from tests.support.batches import Sender
from tests.support.browser import card, open_browser, open_page
from tests.support.deadline import eventually
from tests.support.foreign_site import Mint, Shop
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar
from tests.support.tokens import SECRET, token
from tests.support.writing import life, task

INLINE = '<queue-viewer inline src="{gate}" token-url="/token"></queue-viewer>'
BUTTON = '<queue-button src="{gate}" token-url="/token"></queue-button>'
PROGRESS = '<task-progress src="{gate}" token-url="/token" task-id="mine"></task-progress>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of the module."""
    with open_browser() as browser:
        yield browser


@contextmanager
def shop(browser: Browser, start_sidecar: StartSidecar, body: str, mint: Mint) -> Iterator[Page]:
    """A page of another origin, whose application mints tokens, and a sidecar that takes them."""
    with Shop(mint, body) as site:
        sidecar = start_sidecar(env={"SIDECAR_AUTH_SECRETS": SECRET, "SIDECAR_CORS_ORIGINS": site.url})
        mint.url = sidecar.url
        page = open_page(browser, site.url)
        yield page
        complaints = page.complaints  # type: ignore[attr-defined] # set by open_page
        page.context.close()
        assert [] == complaints


@pytest.fixture
def guarded(sender: Sender, start_sidecar: StartSidecar) -> Sidecar:
    """A sidecar that wants a token."""
    sidecar = start_sidecar(env={"SIDECAR_AUTH_SECRETS": SECRET})
    eventually(lambda: sidecar.get("/readyz").status_code == 200)
    return sidecar


def refusals_of(page: Page) -> list[int]:
    """The errors that a page is answered from now on."""
    statuses: list[int] = []

    def note(response: Response) -> None:
        if response.status >= 400:
            statuses.append(response.status)

    page.on("response", note)
    return statuses


def test_tokens_that_end(browser: Browser, sender: Sender, start_sidecar: StartSidecar) -> None:
    """A stream that ends with its token goes on with the next one; nothing is refused, missed or doubled."""
    mint = Mint(good_for=2.0)
    with shop(browser, start_sidecar, INLINE, mint) as page:
        expect(page.locator(".conn-word")).to_have_text("Live")
        refused = refusals_of(page)
        for number in range(1, 4):
            sender.send(task(f"t{number}", "active"))
            expect(card(page, f"t{number}")).to_have_count(1)
            page.wait_for_event("requestfinished", lambda request: "/token" in request.url)
        expect(page.locator(".conn-word")).to_have_text("Live")
        expect(page.locator("li.task")).to_have_count(3)
        assert [] == refused
        assert mint.issued >= 4


def test_some_tasks_alone(browser: Browser, sender: Sender, start_sidecar: StartSidecar) -> None:
    """Who may see some tasks sees these, and is not told that there is nothing else."""
    sender.send(
        task("mine", "active", extra={"args": "('secret',)"}),
        task("other", "active"),
        task("waits", "reserved", queue="mine"),
    )
    mint = Mint(read={"tasks": ["mine", "waits"]})
    with shop(browser, start_sidecar, BUTTON + INLINE, mint) as page:
        expect(card(page, "mine")).to_be_visible()
        expect(card(page, "other")).to_have_count(0)
        expect(page.get_by_role("button", name="Queue: at least 2 tasks")).to_be_visible()
        for name, shown in (("active", "1"), ("total", "–"), ("workers", "–"), ("failed", "–")):
            expect(page.locator(f'[data-figure="{name}"] .value')).to_have_text(shown)
        expect(page.locator(".side")).to_have_attribute("data-unknown", "")
        card(page, "mine").locator(".head").click()
        expect(card(page, "mine").locator(".parameters")).to_have_text(
            "No parameters: none are kept, or you may not see them."
        )
        page.get_by_role("tab", name="Waiting").click()
        expect(card(page, "waits")).to_be_visible()
        expect(page.locator(".note")).to_have_text("How many tasks wait in the broker is not known.")


def test_one_task_alone(browser: Browser, sender: Sender, start_sidecar: StartSidecar) -> None:
    """A token for one task is enough for its progress, from before it is seen to its end."""
    mint = Mint(read={"tasks": ["mine"]}, good_for=2.0)
    with shop(browser, start_sidecar, PROGRESS, mint) as page:
        refused = refusals_of(page)
        state = page.locator(".state-word")
        expect(state).to_have_text("Unknown")
        sender.send(task("mine", "active"))
        expect(state).to_have_text("Active")
        issued = mint.issued
        eventually(lambda: page.evaluate("1") and mint.issued > issued)
        expect(page.locator(".task-progress[data-old]")).to_have_count(0)
        sender.send(*life("other"), task("mine", "completed"))
        expect(state).to_have_text("Completed")
        assert {404} >= set(refused), "404: it is not among what waits in the broker"


def test_another_task(browser: Browser, sender: Sender, start_sidecar: StartSidecar) -> None:
    """A task that a token does not reach is as unknown as one that there is not."""
    sender.send(task("mine", "active"))
    with shop(browser, start_sidecar, PROGRESS, Mint(read={"tasks": ["other"]})) as page:
        expect(page.locator(".state-word")).to_have_text("Unknown")


def test_no_scope(browser: Browser, sender: Sender, start_sidecar: StartSidecar) -> None:
    """Who may see nothing is told so, once."""
    mint = Mint(read={})
    with shop(browser, start_sidecar, BUTTON, mint) as page:
        expect(page.get_by_role("button", name="number of tasks not known, No access")).to_be_visible()
        assert 1 == mint.issued


def test_sign_in(browser: Browser, sender: Sender, guarded: Sidecar) -> None:
    """The sidecar's own page takes a token, keeps it where no script finds it, and asks again at its end."""
    sender.send(task("one", "active"))
    page = open_page(browser, f"{guarded.url}/#/tasks/one")
    field, button = page.get_by_label("Token"), page.get_by_role("button", name="Sign in")
    expect(page.locator(".conn-word")).to_have_text("Not signed in")
    expect(page.locator(".main")).to_be_hidden()
    field.fill(token("*", ttl=-1))
    button.click()
    expect(page.get_by_role("alert")).to_have_text("This token is not right, or has ended.")
    field.fill(token("*", ["args"], ttl=6))
    button.click()
    expect(page.locator(".page-state .state-word")).to_have_text("Active")
    expect(page.locator(".conn-word")).to_have_text("Live")
    expect(field).to_be_hidden()
    assert "" == page.evaluate("document.cookie + Object.keys(localStorage) + Object.keys(sessionStorage)")
    assert "ey" not in page.url
    page.reload()
    expect(page.locator(".conn-word")).to_have_text("Live")
    expect(page.locator(".conn-word")).to_have_text("Not signed in")
    expect(field).to_be_visible()
    page.context.close()
