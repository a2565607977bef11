"""The viewer and the stream: what a sidecar says of itself, one task from before it is sent, what waits."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest
from celery import Celery
from playwright.sync_api import Browser, Page, Request, expect

from tests.support.batches import Sender, step
from tests.support.browser import card, open_browser, open_page
from tests.support.deadline import eventually
from tests.support.foreign_site import shop
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar
from tests.support.writing import life, task, worker

BUTTON = '<queue-button src="{gate}" token-url="/token"></queue-button>'
INLINE = '<queue-viewer inline src="{gate}" token-url="/token"></queue-viewer>'
PROGRESS = '<task-progress src="{gate}" token-url="/token" task-id="one"></task-progress>'
ADD_PROGRESS = """(main, url) => {
  const element = document.createElement("task-progress");
  for (const [name, value] of Object.entries({ src: url, "token-url": "/token", "task-id": "one" })) {
    element.setAttribute(name, value);
  }
  main.append(element);
}"""
# In ms: no pause is longer, between two attempts or two looks.
LONGEST_PAUSE = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of the module."""
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, sidecar: Sidecar) -> Iterator[Page]:
    """The sidecar's page, live; the tasks are those of `sender`."""
    page = open_page(browser, f"{sidecar.url}/")
    expect(connection(page)).to_have_text("Live")
    yield page
    complaints = page.complaints  # type: ignore[attr-defined] # set by open_page
    page.context.close()
    assert [] == complaints


def connection(page: Page) -> object:
    """The word that says what the connection is like."""
    return page.locator(".conn-word")


def figure(page: Page, name: str) -> object:
    """A figure of the strip."""
    return page.locator(f'[data-figure="{name}"] .value')


def says(page: Page, task_id: str) -> object:
    """What a card says of its task."""
    return card(page, task_id).locator(".says")


def order(page: Page) -> list[str]:
    """The cards in sight, from the top."""
    rows = page.locator("li[data-task-id]").evaluate_all("rows => rows.map((row) => row.dataset.taskId)")
    return list(rows)


def streams_of(page: Page) -> list[str]:
    """The streams that a page asks for from now on."""
    asked: list[str] = []

    def note(request: Request) -> None:
        if "/events" in request.url:
            asked.append(request.url)

    page.on("request", note)
    return asked


# -- what a sidecar says of itself


def test_drain(browser: Browser, sender: Sender, start_sidecar: StartSidecar) -> None:
    """When a sidecar goes away the viewer goes on with another one where it was, and has no card twice."""
    leaves, stays = start_sidecar(env={"SIDECAR_DRAIN_SECONDS": "0.5"}), start_sidecar()
    with shop(browser, leaves, INLINE) as (page, gate):
        sender.send(task("kept", "active"), task("ends", "active"))
        expect(card(page, "ends")).to_be_visible()
        gate.sidecar_port = stays.port
        leaves.send_signal(signal.SIGTERM)
        expect(connection(page)).to_have_text("Reconnecting…")
        expect(page.locator(".viewer")).to_have_attribute("data-old", "")
        last = sender.send(*life("while away"), task("ends", "completed"), task("new", "active"))
        assert 0 == leaves.wait(10)
        expect(connection(page)).to_have_text("Live")
        expect(card(page, "new")).to_have_count(1)
        expect(card(page, "kept")).to_have_count(1)
        expect(card(page, "ends")).to_have_attribute("data-status", "completed")
        expect(figure(page, "active")).to_have_text("2")
    first, second = gate.streams
    assert "last_event_id" not in first
    assert f"last_event_id={last.position.epoch}-" in second


def test_overloaded(browser: Browser, sender: Sender, start_sidecar: StartSidecar) -> None:
    """Where there is no room the viewer says so, comes back as late as it is asked to, and then shows all."""
    sidecar = start_sidecar(env={"SIDECAR_MAX_STREAMS": "1"})
    page = open_page(browser, "about:blank")
    page.clock.install()
    asked = streams_of(page)
    with sidecar.events() as other:
        other.until_type("live")
        page.goto(f"{sidecar.url}/")
        expect(connection(page)).to_have_text("Too many viewers")
        expect(figure(page, "total")).to_have_text("–")
        page.clock.run_for(29_000)
        page.evaluate("window.dispatchEvent(new Event('online'))")
        assert 1 == len(asked)
    sender.send(task("one", "active"))
    page.clock.run_for(LONGEST_PAUSE)
    eventually(lambda: _is_live_after(page))
    expect(card(page, "one")).to_be_visible()
    page.context.close()


def _is_live_after(page: Page) -> bool:
    # The sidecar may have learnt only now that the other one has gone.
    page.clock.run_for(1000)
    return page.locator(".conn-word").inner_text() == "Live"


def test_the_end_of_a_stream_is_no_cut(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """After the end of its task a stream is not asked for again."""
    with shop(browser, sidecar, "") as (page, gate):
        page.clock.install()
        page.locator("main").evaluate(ADD_PROGRESS, gate.url)
        expect(page.locator(".state-word")).to_have_text("Unknown")
        sender.send(*life("one", runtime=1.5))
        expect(page.locator(".state-word")).to_have_text("Completed")
        expect_closed(page, "ended")
        page.clock.run_for(2 * LONGEST_PAUSE)
        expect(page.locator(".clock")).to_have_text("1.50 s")
        assert ["/api/v1/queue/tasks/one/events"] == gate.streams


def test_cut_before_the_end(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """Who has seen the last change but not the end comes back, is told 204, and stops."""
    sender.send(task("one", "active"))
    with shop(browser, sidecar, PROGRESS) as (page, gate):
        expect(page.locator(".state-word")).to_have_text("Active")
        gate.cuts_before = b"event: end"
        with page.expect_response(lambda response: response.status == 204):
            sender.send(task("one", "completed", runtime=1.5))
        expect_closed(page, "ended")
        expect(page.locator(".state-word")).to_have_text("Completed")
        expect(page.locator(".task-progress[data-old]")).to_have_count(0)
        assert 2 == len(gate.streams)


def test_comes_back_after_the_end(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """A task that ends while its page is away is shown as it ended."""
    sender.send(task("one", "active"))
    with shop(browser, sidecar, PROGRESS) as (page, gate):
        expect(page.locator(".state-word")).to_have_text("Active")
        page.context.set_offline(True)
        gate.cuts_before = b"event: task_status"
        sender.send(task("one", "failed", exception="ValueError('no')"))
        expect(page.locator(".task-progress[data-old]")).to_have_count(1)
        page.context.set_offline(False)
        expect(page.locator(".state-word")).to_have_text("Failed")
        expect(page.locator(".message")).to_have_text("ValueError('no')")
        expect_closed(page, "ended")


def test_told_that_a_token_has_ended(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """An `unauthorized` within the stream makes the viewer ask for another token at once."""
    with shop(browser, sidecar, INLINE, good_for=1.5) as (page, gate):
        gate.says_why = True
        expect(connection(page)).to_have_text("Live")
        for number in range(1, 4):
            sender.send(task(f"t{number}", "active"))
            expect(card(page, f"t{number}")).to_have_count(1)
            page.wait_for_event("requestfinished", lambda request: "/token" in request.url)
        expect(connection(page)).to_have_text("Live")
        expect(page.locator("li.task")).to_have_count(3)
        assert 0 == gate.refused


def test_back_in_step(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """Who comes back to the stream of a task and has missed nothing is at once as fresh as before."""
    sender.send(task("one", "active"))
    with shop(browser, sidecar, PROGRESS) as (page, gate):
        expect(page.locator(".state-word")).to_have_text("Active")
        gate.cut()
        old = page.locator(".task-progress[data-old]")
        expect(old).to_have_count(1)
        eventually(lambda: len(gate.streams) == 2)
        expect(old).to_have_count(0, timeout=5000)
        assert "Active" == page.locator(".state-word").inner_text()


def expect_closed(page: Page, reason: str) -> None:
    """Wait until the only stream of the page is closed for a reason."""
    page.wait_for_function(
        "reason => document.querySelector('task-progress').queue.reason === reason", arg=reason
    )


# -- one task


def test_a_task_before_it_is_sent(
    browser: Browser, sender: Sender, sidecar: Sidecar, celery_app: Celery
) -> None:
    """It is unknown, then in the broker behind so many others, then with a worker, and then at its end."""
    with shop(browser, sidecar, PROGRESS) as (page, _):
        state, message = page.locator(".state-word"), page.locator(".message")
        expect(state).to_have_text("Unknown")
        expect(message).to_have_text("not seen so far")
        for task_id in ("first", "second", "one"):
            celery_app.send_task("tests.add", (1, 2), task_id=task_id)
        expect(state).to_have_text("Pending")
        expect(message).to_have_text("2 ahead of it")
        sender.client.rpop("celery")
        expect(message).to_have_text("1 ahead of it")
        sender.send(task("one", "active"))
        expect(state).to_have_text("Active")
        sender.send(task("one", "completed"))
        expect(state).to_have_text("Completed")


def test_page_of_a_task_that_waits(
    browser: Browser, sender: Sender, sidecar: Sidecar, celery_app: Celery
) -> None:
    """A task's own page follows it from the broker to its end, with its parameters and its result."""
    celery_app.send_task("tests.add", ("needle", 2), task_id="one")
    page = open_page(browser, f"{sidecar.url}/#/tasks/one")
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
    page.context.close()


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


def test_a_broker_that_cannot_be_looked_into(
    browser: Browser, sender: Sender, start_sidecar: StartSidecar
) -> None:
    """The list says that it cannot show what waits there, and not that nothing does."""
    sidecar = start_sidecar(env={"SIDECAR_BROKER_URL": "amqp://127.0.0.1:1//"})
    page = open_page(browser, f"{sidecar.url}/")
    expect(connection(page)).to_have_text("Live")
    page.get_by_role("tab", name="Waiting").click()
    expect(page.locator(".note")).to_contain_text("What waits in this broker cannot be listed.")
    expect(page.locator(".note")).to_contain_text("How many tasks wait in the broker is not known.")
    expect(page.locator(".empty-title")).to_have_text("Nothing to list.")
    page.context.close()


def test_list_all(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """Where workers hold more than a snapshot has, the list says how many, and has them all when asked to."""
    for start in range(0, 1100, 220):
        sender.send(
            *(task(f"t{number:04}", "reserved", received_at=number) for number in range(start, start + 220))
        )
    page = open_page(browser, f"{sidecar.url}/")
    expect(figure(page, "total")).to_have_text("1,100")
    page.get_by_role("tab", name="Waiting").click()
    expect(page.locator(".note")).to_contain_text("Of 1,100 tasks that workers held the first are listed")
    page.get_by_role("button", name="List all").click()
    expect(page.get_by_role("button", name="List all")).to_be_hidden()
    page.locator("li.task .head").first.focus()
    page.keyboard.press("End")
    expect(card(page, "t1099").locator(".head")).to_be_focused()
    page.context.close()


# -- what is asked for


def test_button_asks_for_figures(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """Until somebody opens the viewer a button has no stream of every task; then both share one."""
    with shop(browser, sidecar, BUTTON) as (page, gate):
        sender.send(task("one", "active"))
        expect(page.locator(".badge")).to_have_text("1")
        assert ["/api/v1/queue/events?types=queue_status"] == gate.streams
        page.get_by_role("button", name="Queue: 1 task").click()
        expect(card(page, "one")).to_be_visible()
        sender.send(task("two", "active"))
        expect(page.locator(".badge")).to_have_text("2")
        assert ["/api/v1/queue/events"] == gate.streams[1:]


def test_filter(browser: Browser, sender: Sender, sidecar: Sidecar) -> None:
    """A viewer with a filter has the tasks that pass it, now and in the history, and figures of now."""
    inline = '<queue-viewer inline filter="queue=mail" src="{gate}" token-url="/token"></queue-viewer>'
    with shop(browser, sidecar, inline) as (page, _):
        expect(connection(page)).to_have_text("Live")
        sender.send(task("mine", "active", queue="mail"), task("other", "active", queue="slow"))
        expect(card(page, "mine")).to_be_visible()
        expect(card(page, "other")).to_have_count(0)
        expect(figure(page, "active")).to_have_text("2")
        sender.send(*life("mine", queue="mail"), *life("other", queue="slow"))
        expect(figure(page, "active")).to_have_text("0")
        page.get_by_role("tab", name="Finished").click()
        expect(card(page, "mine")).to_be_visible()
        expect(card(page, "other")).to_have_count(0)
        page.get_by_role("tab", name="Failed").click()
        expect(page.locator(".empty-title")).to_have_text("Nothing has failed. Good.")
