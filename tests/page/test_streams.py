"""The viewer and the stream: what a sidecar says of itself, and what the viewer asks for."""

from __future__ import annotations

import signal

from playwright.sync_api import Browser, Page, Request, expect

from tests.support.batches import Sender
from tests.support.browser import LONGEST_PAUSE, Look, card, connection, figure
from tests.support.deadline import eventually
from tests.support.foreign_site import ADD_PROGRESS, shop
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar
from tests.support.writing import life, task

BUTTON = '<queue-button src="{gate}" token-url="/token"></queue-button>'
INLINE = '<queue-viewer inline src="{gate}" token-url="/token"></queue-viewer>'
PROGRESS = '<task-progress src="{gate}" token-url="/token" task-id="one"></task-progress>'


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


def test_before_anything_is_known(look: Look, sidecar: Sidecar) -> None:
    """While it connects the viewer has no figures, and does not say that there is no queue and no worker."""
    page = look("about:blank")
    page.route("**/events*", lambda _: None)
    page.goto(f"{sidecar.url}/")
    expect(connection(page)).to_have_text("Connecting…")
    for name in ("queues", "workers"):
        content = page.locator(f".{name}").evaluate("list => getComputedStyle(list, '::after').content")
        assert '"–"' == content
    expect(figure(page, "total")).to_have_text("–")


def test_overloaded(look: Look, sender: Sender, start_sidecar: StartSidecar) -> None:
    """Where there is no room the viewer says so, comes back as late as it is asked to, and then shows all."""
    sidecar = start_sidecar(env={"SIDECAR_MAX_STREAMS": "1"})
    page = look("about:blank")
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
        for number in range(1, 3):
            sender.send(task(f"t{number}", "active"))
            expect(card(page, f"t{number}")).to_have_count(1)
            issued = gate.issued
            eventually(lambda issued=issued: gate.issued > issued)
        expect(connection(page)).to_have_text("Live")
        expect(page.locator("li.task")).to_have_count(2)
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
