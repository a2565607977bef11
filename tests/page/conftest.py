"""Fixtures of the tests that drive a browser: a module shares its browser, its Redis and its sidecar.

Each test gets an empty Redis, a worker's announcement and pages of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from deploy.demo.redis_server import RedisServer
from tests.support.batches import Sender, Stored
from tests.support.browser import Look, connection, open_browser, open_page
from tests.support.home import Home
from tests.support.sidecar_process import Sidecar


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of the module."""
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """One Redis and one sidecar for all tests of the module."""
    with Home() as home:
        yield home


@pytest.fixture
def redis_server(home: Home) -> RedisServer:
    """The module's Redis, empty."""
    home.empty()
    return home.redis


@pytest.fixture
def sidecar(home: Home, sender: Sender, stored: Stored) -> Iterator[Sidecar]:
    """The module's sidecar, which knows the worker of `sender` and nothing else."""
    sidecar = home.sidecar()
    home.settle(stored)
    said = len(sidecar.output)
    yield sidecar
    print(f"--- {sidecar.name}\n{sidecar.output[said:]}")  # pytest shows it where a test fails


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Open pages; nothing that the browser complains of passes unseen, also not what a policy forbids."""
    pages: list[Page] = []

    def open_it(url: str, **options: object) -> Page:
        pages.append(open_page(browser, url, **options))
        return pages[-1]

    yield open_it
    complaints = [page.complaints for page in pages]  # type: ignore[attr-defined] # set by open_page
    for page in pages:
        page.context.close()
    assert [[] for _ in pages] == complaints


@pytest.fixture
def page(look: Look, sidecar: Sidecar) -> Page:
    """The sidecar's page, live; the tasks are those of `sender`."""
    page = look(f"{sidecar.url}/")
    expect(connection(page)).to_have_text("Live")
    return page
