"""What waits in the broker: one task from before it is sent, and the list of all that nobody has taken."""

from __future__ import annotations

import re

from celery import Celery
from playwright.sync_api import Browser, Page, expect

from celery_plugin.contract import JSON
from tests.support.batches import Sender, step
from tests.support.browser import Look, card, connection, figure
from tests.support.deadline import eventually
from tests.support.foreign_site import ADD_PROGRESS, shop
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar
from tests.support.writing import life, task, worker

# In ms: neither the first pause between two looks at the broker nor the second one is longer.
LONGEST_LOOK = 8000


def says(page: Page, task_id: str) -> object:
    """What a card says of its task."""
    return card(page, task_id).locator(".says")


def order(page: Page) -> list[str]:
    """The cards in sight, from the top."""
    rows = page.locator("li[data-task-id]").evaluate_all("rows => rows.map((row) => row.dataset.taskId)")
    return list(rows)


# -- one task


def test_a_task_before_it_is_sent(
    browser: Browser, sender: Sender, sidecar: Sidecar, celery_app: Celery
) -> None:
    """It is unknown, then in the broker behind so many others, then with a worker, and then at its end."""
    with shop(browser, sidecar, "") as (page, gate):
        page.clock.install()
        page.locator("main").evaluate(ADD_PROGRESS, gate.url)
        state, message = page.locator(".state-word"), page.locator(".message")
        expect(state).to_have_text("Unknown")
        expect(message).to_have_text("not seen so far")
        for task_id in ("first", "second", "one"):
            celery_app.send_task("tests.add", (1, 2), task_id=task_id)
        page.clock.run_for(LONGEST_LOOK)
        expect(state).to_have_text("Pending")
        expect(message).to_have_text("2 ahead of it")
        sender.client.rpop("celery")
        page.clock.run_for(LONGEST_LOOK)
        expect(message).to_have_text("1 ahead of it")
        sender.send(task("one", "active"))
        expect(state).to_have_text("Active")
        sender.send(task("one", "completed"))
        expect(state).to_have_text("Completed")


def test_page_of_a_task_that_waits(look: Look, sender: Sender, sidecar: Sidecar, celery_app: Celery) -> None:
    """A task's own page follows it from the broker to its end, with its parameters and its result."""
    celery_app.send_task("tests.add", ("needle", 2), task_id="one")
    page = look(f"{sidecar.url}/#/tasks/one")
    expect(page.locator(".page-state .state-word")).to_have_text("Pending")
    expect(page.locator(".page-message")).to_have_text("next in its queue")
    expect(page.locator(".page-body")).to_contain_text("needle")
    sender.client.rpop("celery")
    extra = {"args": "('needle', 2)", "kwargs": "{}"}
    sender.send(task("one", "reserved", extra=extra), task("one", "active", extra=extra))
    expect(page.locator(".page-state .state-word")).to_have_text("Active")
    expect(page.locator(".timeline li")).to_have_count(2)
    sender.send(task("one", "completed", extra={**extra, "result": "'found'"}))
    expect(page.locator(".page-body")).to_contain_text("'found'")
    expect(page.locator(".timeline li")).to_have_count(3)


def test_page_of_a_task_that_nobody_knows(page: Page, sender: Sender, sidecar: Sidecar) -> None:
    """It says so, and shows the task as soon as there is one; also when its id is used once more."""
    page.goto(f"{sidecar.url}/#/tasks/one")
    expect(page.locator(".page-body")).to_contain_text("No worker has seen this task")
    state = page.locator(".page-state .state-word")
    sender.send(*life("one"))
    expect(state).to_have_text("Completed")
    sender.send(step("one", "active", "one/again", task_name="tests.add"))
    expect(state).to_have_text("Active")


# -- what waits


def test_what_waits_in_the_broker(page: Page, sender: Sender, celery_app: Celery) -> None:
    """It is listed behind what workers hold, in the order in which it is taken, with its parameters."""
    sender.send(task("held", "reserved"))
    for number in range(3):
        celery_app.send_task("tests.add", (f"needle{number}", 2), task_id=f"p{number}")
    page.clock.install()
    page.get_by_role("tab", name="Waiting").click()
    expect(card(page, "p2")).to_be_visible()
    assert ["held", "p0", "p1", "p2"] == order(page)
    expect(says(page, "p0")).to_have_text(re.compile("Pending.*next in its queue"))
    expect(says(page, "p2")).to_contain_text("2 ahead of it")
    card(page, "p1").locator(".head").click()
    expect(card(page, "p1").locator(".parameters")).to_contain_text("needle1")
    sender.client.rpop("celery")
    sender.send(task("p0", "active"))
    page.locator(".label").click()
    page.mouse.move(5, 5)
    page.clock.run_for(10_000)
    expect(card(page, "p0")).to_have_count(0)
    expect(says(page, "p2")).to_contain_text("1 ahead of it")
    page.keyboard.press("/")
    page.keyboard.type("needle2")
    expect(card(page, "p1")).to_have_count(0)
    expect(card(page, "p2")).to_be_visible()


def test_many_wait_in_the_broker(page: Page, sender: Sender, celery_app: Celery) -> None:
    """The first are listed, and the others as far as somebody scrolls."""
    for number in range(250):
        celery_app.send_task("tests.add", (1, 2), task_id=f"p{number:03}")
    celery_app.send_task("tests.add", (1, 2), task_id="other", queue="zoo")
    sender.send(worker("two", worker="celery@two", queues=["zoo"]))
    expect(figure(page, "pending")).to_have_text("251")
    page.get_by_role("tab", name="Waiting").click()
    expect(card(page, "p000")).to_be_visible()
    expect(page.locator(".note")).to_have_text("151 more tasks wait in the broker.")
    card(page, "p000").locator(".head").focus()
    for last in ("p099", "p199", "other"):
        eventually(lambda last=last: _is_at_the_end(page, last))
    expect(page.locator(".note")).to_have_text("")


def _is_at_the_end(page: Page, task_id: str) -> bool:
    # The end moves down when more is listed.
    page.keyboard.press("End")
    return bool(page.locator("li:focus-within").get_attribute("data-task-id") == task_id)


def test_a_message_that_is_no_task(page: Page, sender: Sender) -> None:
    """It keeps its place in the list, and says why it cannot be read."""
    sender.client.lpush("celery", "nonsense")
    page.get_by_role("tab", name="Waiting").click()
    expect(says(page, "celery 0")).to_contain_text("it is not JSON")


def test_a_broker_that_cannot_be_looked_into(look: Look, sender: Sender, start_sidecar: StartSidecar) -> None:
    """The list says that it cannot show what waits there, and not that nothing does."""
    sidecar = start_sidecar(env={"SIDECAR_BROKER_URL": "amqp://127.0.0.1:1//"})
    page = look(f"{sidecar.url}/")
    expect(connection(page)).to_have_text("Live")
    page.get_by_role("tab", name="Waiting").click()
    expect(page.locator(".note")).to_contain_text("What waits in this broker cannot be listed.")
    expect(page.locator(".note")).to_contain_text("How many tasks wait in the broker is not known.")
    expect(page.locator(".empty-title")).to_have_text("Nothing to list.")


def test_list_all(look: Look, sender: Sender, sidecar: Sidecar) -> None:
    """Where workers hold more than a snapshot has, the list says how many, and has them all when asked to."""
    for start in range(0, 1100, 220):
        sender.send(
            *(task(f"t{number:04}", "reserved", received_at=number) for number in range(start, start + 220))
        )
    # A snapshot is given to whoever comes within the next moments, with what has changed since.
    eventually(lambda: _snapshot_of(sidecar)["truncated"])
    page = look(f"{sidecar.url}/")
    expect(figure(page, "total")).to_have_text("1,100")
    page.get_by_role("tab", name="Waiting").click()
    expect(page.locator(".note")).to_contain_text("Of 1,100 tasks that workers held the first are listed")
    page.get_by_role("button", name="List all").click()
    expect(page.get_by_role("button", name="List all")).to_be_hidden()
    page.locator("li.task .head").first.focus()
    page.keyboard.press("End")
    expect(card(page, "t1099").locator(".head")).to_be_focused()


def _snapshot_of(sidecar: Sidecar) -> JSON:
    with sidecar.events() as stream:
        return stream.until_type("snapshot").data
