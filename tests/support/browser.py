"""A real Chromium, which the tests of the viewer drive; without it they are skipped, in CI they fail."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.support.needed import need

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Neither a sandbox, which root cannot have, nor shared memory, of which a container has little.
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
DESKTOP = {"width": 1280, "height": 800}
# Several times what anything here takes.
PATIENCE_MS = 20_000
# In ms: the viewer makes no longer pause between two attempts.
LONGEST_PAUSE = 60_000
PHONE = {"width": 390, "height": 844}

# Opens the page of an address, with the options of a context.
Look = Callable[..., Page]


def find_chromium() -> str | None:
    """Find the browser."""
    return next((path for name in CHROMIUM if (path := shutil.which(name))), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium."""
    expect.set_options(timeout=PATIENCE_MS)
    executable = need(find_chromium(), "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


def open_page(browser: Browser, url: str, **options: Any) -> Page:
    """Open a page in a context of its own; what it complains of is kept in `page.complaints`."""
    context: BrowserContext = browser.new_context(**{"viewport": DESKTOP, **options})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.complaints = []  # type: ignore[attr-defined] # for the test to look at
    page.on("pageerror", lambda error: page.complaints.append(str(error)))  # type: ignore[attr-defined]
    page.on("console", lambda message: _note(page, message.type, message.text))
    page.goto(url)
    return page


def card(page: Page, task_id: str) -> Locator:
    """The card of a task."""
    return page.locator(f'li[data-task-id="{task_id}"]')


def connection(page: Page) -> Locator:
    """The word that says what the connection is like."""
    return page.locator(".conn-word")


def figure(page: Page, name: str) -> Locator:
    """A figure of the strip."""
    return page.locator(f'[data-figure="{name}"] .value')


def _note(page: Any, kind: str, text: str) -> None:
    # A server that is away is what some tests are about.
    if kind in ("error", "warning") and "Failed to load resource" not in text:
        page.complaints.append(text)
