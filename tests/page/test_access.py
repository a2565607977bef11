"""The viewer and a sidecar that wants a token: from another origin, for some tasks, and on its own page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Page, Response, expect

from deploy.demo.child import environment
from deploy.demo.ports import HOST, free_port
from tests.support.batches import Sender
from tests.support.browser import Look, card
from tests.support.deadline import eventually
from tests.support.foreign_site import Mint, Shop
from tests.support.home import Home
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartProcess
from tests.support.tokens import SECRET, token
from tests.support.writing import life, task

INLINE = '<queue-viewer inline src="{gate}" token-url="/token"></queue-viewer>'
BUTTON = '<queue-button src="{gate}" token-url="/token"></queue-button>'
PROGRESS = '<task-progress src="{gate}" token-url="/token" task-id="mine"></task-progress>'

OpenShop = Callable[[str, Mint], Page]


@pytest.fixture(scope="module")
def shop_port() -> int:
    """The port of the application's site, which the sidecar lets in."""
    return free_port()


@pytest.fixture(scope="module")
def home(shop_port: int) -> Iterator[Home]:
    """One Redis for all tests of the module, and one sidecar that wants a token."""
    env = {"SIDECAR_AUTH_SECRETS": SECRET, "SIDECAR_CORS_ORIGINS": f"http://{HOST}:{shop_port}"}
    with Home(env, token("*", ttl=3600)) as home:
        yield home


@pytest.fixture
def open_shop(look: Look, sidecar: Sidecar, shop_port: int) -> Iterator[OpenShop]:
    """Open pages of another origin, whose application mints tokens."""
    with ExitStack() as shops:

        def open_it(body: str, mint: Mint) -> Page:
            mint.url = sidecar.url
            return look(shops.enter_context(Shop(mint, body, port=shop_port)).url)

        yield open_it


def refusals_of(page: Page) -> list[int]:
    """The errors that a page is answered from now on."""
    statuses: list[int] = []

    def note(response: Response) -> None:
        if response.status >= 400:
            statuses.append(response.status)

    page.on("response", note)
    return statuses


def test_tokens_that_end(sender: Sender, open_shop: OpenShop) -> None:
    """A stream that ends with its token goes on with the next one; nothing is refused, missed or doubled."""
    mint = Mint(good_for=2.0)
    page = open_shop(INLINE, mint)
    expect(page.locator(".conn-word")).to_have_text("Live")
    refused = refusals_of(page)
    for number in range(1, 3):
        sender.send(task(f"t{number}", "active"))
        expect(card(page, f"t{number}")).to_have_count(1)
        issued = mint.issued
        eventually(lambda issued=issued: page.evaluate("1") and mint.issued > issued)
    expect(page.locator(".conn-word")).to_have_text("Live")
    expect(page.locator("li.task")).to_have_count(2)
    assert [] == refused
    assert mint.issued >= 3


def test_some_tasks_alone(sender: Sender, open_shop: OpenShop) -> None:
    """Who may see some tasks sees these, and is not told that there is nothing else."""
    sender.send(
        task("mine", "active", extra={"args": "('secret',)"}),
        task("other", "active"),
        task("waits", "reserved", queue="mine"),
    )
    mint = Mint(read={"tasks": ["mine", "waits"]})
    page = open_shop(BUTTON + INLINE, mint)
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


def test_one_task_alone(sender: Sender, open_shop: OpenShop) -> None:
    """A token for one task is enough for its progress, from before it is seen to its end."""
    mint = Mint(read={"tasks": ["mine"]}, good_for=2.0)
    page = open_shop(PROGRESS, mint)
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


def test_another_task(sender: Sender, open_shop: OpenShop) -> None:
    """A task that a token does not reach is as unknown as one that there is not."""
    sender.send(task("mine", "active"))
    page = open_shop(PROGRESS, Mint(read={"tasks": ["other"]}))
    expect(page.locator(".state-word")).to_have_text("Unknown")


def test_no_scope(sender: Sender, open_shop: OpenShop) -> None:
    """Who may see nothing is told so, once."""
    mint = Mint(read={})
    page = open_shop(BUTTON, mint)
    expect(page.get_by_role("button", name="number of tasks not known, No access")).to_be_visible()
    assert 1 == mint.issued


def test_sign_in(look: Look, sender: Sender, sidecar: Sidecar) -> None:
    """The sidecar's own page takes a token, keeps it where no script finds it, and asks again at its end."""
    sender.send(task("one", "active"))
    page = look(f"{sidecar.url}/#/tasks/one")
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


@pytest.fixture
def django_site(start_process: StartProcess, sidecar: Sidecar, shop_port: int, tmp_path: Path) -> str:
    """The address of a Django site made of the documents; /enter lets in a user with the task `mine`."""
    command = [sys.executable, "-m", "tests.support.django_site", str(shop_port), str(tmp_path / "database")]
    env = environment(SIDECAR_URL=sidecar.url, SIDECAR_AUTH_SECRETS=SECRET)
    start_process(command, name="Django", env=env).wait_for_line("ready")
    return f"http://{HOST}:{shop_port}"


def test_django_site(look: Look, sender: Sender, django_site: str) -> None:
    """A user sees the tasks that are theirs, and is told when the session with its tokens has ended."""
    sender.send(task("mine", "active"), task("other", "active"))
    page = look(f"{django_site}/enter")
    expect(page.locator("task-progress .state-word")).to_have_text("Active")
    expect(page.get_by_role("button", name="Queue: at least 1 task")).to_be_visible()
    page.get_by_role("button", name="Queue: at least 1 task").click()
    expect(card(page, "mine")).to_be_visible()
    expect(card(page, "other")).to_have_count(0)
    page.keyboard.press("Escape")
    assert "Goodbye" == page.request.get(f"{django_site}/leave").text()
    # It asks for a token again.
    page.locator("queue-button").evaluate("button => button.queue.listAll()")
    expect(page.get_by_role("button", name="Not signed in")).to_be_visible()
