"""What the viewer shows of a task, a queue and a worker, and how it can be looked at."""

from __future__ import annotations

import re
import time

from celery import Celery
from playwright.sync_api import Page, expect

from celery_plugin.operations import Other
from celery_plugin.writer import PROGRESS
from tests.support.batches import Sender, step
from tests.support.browser import PHONE, Look, card, figure
from tests.support.foreign_site import Gate
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar
from tests.support.writing import life, task, worker


def progress(task_id: str, percent: float, message: str) -> Other:
    """What a task reports of itself."""
    told = f'{{"message":"{message}","percent":{percent},"updated_at":1.0}}'
    return Other(task_id, (PROGRESS, told, task_id))


def width(page: Page, task_id: str) -> float:
    """How much of the bar of a card is filled."""
    share = "fill => fill.getBoundingClientRect().width / fill.parentElement.getBoundingClientRect().width"
    return float(card(page, task_id).locator(".fill").evaluate(share))


def test_progress_moves(sender: Sender, page: Page) -> None:
    """Each report moves the bar and says how far it is and what is done."""
    sender.send(step("one", "active", task_name="shop.mail"))
    for percent, message in ((25.0, "Page 1 of 4"), (75.0, "Page 3 of 4")):
        sender.send(progress("one", percent, message), number=0)
        expect(card(page, "one").locator(".says")).to_contain_text(message)
        expect(card(page, "one").locator(".percent")).to_have_text(f"{percent:.0f} %")
        expect(card(page, "one").locator(".fill")).to_have_css("transform", re.compile(f"{percent / 100}"))
    assert abs(width(page, "one") - 0.75) < 0.05


def test_selected_text_stays_selected(sender: Sender, page: Page) -> None:
    """What somebody is about to copy stays selected while tasks come and go, and the same task goes on."""
    sender.send(step("one", "active", task_name="shop.mail", received_at=1.0, extra={"args": "('needle',)"}))
    row = card(page, "one")
    row.locator(".head").click()
    row.locator(".parameters .value").first.select_text()
    sender.send(*(task(f"new{number}", "active") for number in range(3)))
    sender.send(progress("one", 75.0, "Page 3 of 4"), number=0)
    expect(figure(page, "active")).to_have_text("4")
    expect(row.locator(".says")).to_contain_text("Page 3 of 4")
    selected = "viewer => viewer.shadowRoot.getSelection().toString()"
    assert "needle" in page.locator("queue-viewer").evaluate(selected)


def test_what_a_card_shows(sender: Sender, page: Page) -> None:
    """Its name, state, queue, worker and attempt; opened, its id, to be copied, and values, cut if long."""
    facts = {"task_name": "shop.mail.send", "queue": "mail", "attempt": 2, "max_retries": 2}
    sender.send(task("one", "active", **facts, extra={"args": "('" + "x" * 600 + "end',)"}))
    row = card(page, "one")
    expect(row.locator(".title")).to_have_text("shop.mail.send")
    expect(row.locator(".state-word")).to_have_text("Active")
    expect(row.locator(".queue")).to_have_text("mail")
    expect(row.locator(".worker")).to_have_text("celery@one")
    expect(row.locator(".attempt")).to_have_text("2 ⁄ 3")
    box = row.bounding_box()
    assert box is not None
    assert 56 <= box["height"] <= 64
    row.locator(".head").click()
    value = row.locator(".parameters .value")
    expect(value).not_to_contain_text("end")
    row.get_by_role("button", name=re.compile("Show all 6.. characters")).click()
    expect(value).to_contain_text("end")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    row.get_by_role("button", name="Copy the task's id").click()
    expect(row.get_by_role("button", name="Copied")).to_be_visible()
    assert "one" == page.evaluate("navigator.clipboard.readText()")


def test_clocks_go_by_the_server(look: Look, sender: Sender, sidecar: Sidecar) -> None:
    """Where the browser's clock is two hours wrong, how long a task runs is right, and ticks."""
    page = look("about:blank")
    page.clock.install(time=time.time() - 7200)
    page.goto(f"{sidecar.url}/")
    sender.send(task("one", "active", started_at=time.time() - 61))
    shown = card(page, "one").locator(".clock")
    expect(shown).to_have_text(re.compile(r"^1:\d\d$"))
    page.clock.run_for(60_000)
    expect(shown).to_have_text(re.compile(r"^2:\d\d$"))


def test_oldest_waiting(sender: Sender, page: Page, celery_app: Celery) -> None:
    """How long what is in the broker has waited at least; nothing where nothing waits."""
    expect(figure(page, "oldest")).to_have_text("–")
    celery_app.send_task("tests.add", (1, 2))
    expect(figure(page, "pending")).to_have_text("1")
    expect(figure(page, "oldest")).to_have_text(re.compile(r"^≥ 0:\d\d$"))


def test_choices(sender: Sender, page: Page) -> None:
    """The list can be narrowed to a name, a queue and a worker, of those that there are."""
    sender.send(
        task("one", "active", task_name="shop.mail", queue="mail"),
        task("two", "active", task_name="shop.stock"),
        step("three", "active", "one/three", task_name="shop.mail", worker="celery@two"),
    )
    sender.send(worker("two", worker="celery@two", queues=["mail"]))
    expect(card(page, "three")).to_be_visible()
    for choice, value, shown in (
        ("Only this task", "shop.mail", {"one", "three"}),
        ("Only this worker", "celery@two", {"three"}),
        ("Only this queue", "mail", {"one"}),
    ):
        page.get_by_label(choice).select_option(value)
        for task_id in ("one", "two", "three"):
            expect(card(page, task_id)).to_have_count(int(task_id in shown))
        if choice != "Only this task":
            page.get_by_label(choice).select_option("")


def test_queues_and_workers(sender: Sender, page: Page) -> None:
    """A worker has its slots and how many are in use; a queue its depth and who consumes it."""
    sender.send(task("one", "active", queue="celery"), task("two", "reserved", queue="celery"))
    row = page.locator("li.worker")
    expect(row.locator(".number")).to_have_text("1 ⁄ 2")
    expect(row.locator(".slot")).to_have_count(2)
    sender.client.lpush("celery", "{}")
    queue = page.locator(".queue", has_text="celery")
    expect(queue.locator(".number")).to_have_text("1")
    expect(queue.get_by_role("img")).to_have_attribute("aria-label", "1 active, 1 reserved, 1 pending")


def test_depth_and_throughput(sender: Sender, page: Page) -> None:
    """How many waited, and how many ended well or not, in the last minutes, is drawn and can be read."""
    sender.send(task("waits", "reserved"), *life("one"), *life("two"))
    sender.send(task("bad", "active"), task("bad", "failed"))
    ends = page.get_by_role("img", name="In the last five minutes 2 completed and 1 ended otherwise")
    expect(ends).to_be_visible()
    expect(ends.locator("rect.failed")).to_have_count(1)
    expect(page.get_by_role("img", name="Waiting over the last five minutes: peak 1")).to_be_visible()


def test_scroll_survives(sender: Sender, page: Page) -> None:
    """What comes and goes moves no list that somebody has scrolled, and one click shows what is new."""
    sender.send(*(task(f"t{number:02}", "active", received_at=number) for number in range(60)))
    scroller = page.locator(".scroller")
    expect(card(page, "t59")).to_be_visible()
    scroller.evaluate("scroller => { scroller.scrollTop = 1500; }")
    expect(card(page, "t30")).to_be_visible()
    before = card(page, "t30").bounding_box()
    sender.send(*(task(f"new{number}", "active") for number in range(3)), task("t50", "completed"))
    fresh = page.get_by_role("button", name="+3 new")
    expect(fresh).to_be_visible()
    assert (1500, before) == (
        scroller.evaluate("scroller => scroller.scrollTop"),
        card(page, "t30").bounding_box(),
    )
    fresh.click()
    expect(card(page, "new0")).to_be_visible()


def test_tells_a_screen_reader_little(sender: Sender, sidecar: Sidecar, page: Page) -> None:
    """What is spoken are changes of the connection and of the pause, and no task."""
    spoken = page.get_by_role("status")
    sender.send(*life("one"), task("two", "active"))
    expect(card(page, "two")).to_be_visible()
    expect(spoken).to_have_text("")
    page.keyboard.press("p")
    expect(spoken).to_have_text("Paused")
    page.keyboard.press("p")
    sidecar.kill()
    expect(spoken).to_have_text("Reconnecting…")


def test_themes_and_motion(look: Look, sidecar: Sidecar) -> None:
    """Dark and light follow the system unless the page says otherwise; who wants no motion gets none."""
    paper = "viewer => getComputedStyle(viewer).getPropertyValue('--paper')"
    light, dark = (
        look(f"{sidecar.url}/", color_scheme=scheme, reduced_motion="reduce") for scheme in ("light", "dark")
    )
    colours = [page.locator("queue-viewer").evaluate(paper) for page in (light, dark)]
    assert colours[0] != colours[1]
    light.locator("queue-viewer").evaluate("viewer => viewer.setAttribute('theme', 'dark')")
    assert colours[1] == light.locator("queue-viewer").evaluate(paper)
    moving = "tab => getComputedStyle(tab).transitionDuration + getComputedStyle(tab).animationName"
    assert "0snone" == light.locator(".head, .tab").first.evaluate(moving)


# Which tabs, fields and choices are not there to be clicked.
COVERED = """viewer => {
  const root = viewer.shadowRoot;
  const all = [...root.querySelectorAll('.tab:not(.side-tab), .search input, .filters select')];
  return all.filter((each) => {
    const { x, y, width, height } = each.getBoundingClientRect();
    const at = (dx) => root.elementFromPoint(x + dx, y + height / 2)?.closest('button, input, select');
    return [4, width / 2, width - 4].some((dx) => at(dx) !== each);
  }).map((each) => each.textContent || each.type);
}"""


def test_at_any_width(page: Page) -> None:
    """Nothing lies over what chooses the list, nor runs out of the window."""
    for width in range(650, 1300, 30):
        page.set_viewport_size({"width": width, "height": 700})
        assert (width, []) == (width, page.locator("queue-viewer").evaluate(COVERED))


def test_on_a_phone(look: Look, sender: Sender, sidecar: Sidecar) -> None:
    """Nothing is wider than the screen; queues and workers have a tab of their own."""
    page = look(f"{sidecar.url}/", viewport=PHONE, has_touch=True)
    sender.send(task("one", "active", task_name="shop." + "very_" * 20 + "long"))
    expect(card(page, "one")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    expect(page.locator("li.worker")).to_be_hidden()
    page.get_by_role("tab", name="Queues").click()
    expect(page.locator("li.worker")).to_be_visible()


def test_behind_a_prefix(look: Look, sender: Sender, start_sidecar: StartSidecar) -> None:
    """Shown by a proxy under a path of its site, the page works as it does alone."""
    sidecar = start_sidecar(env={"SIDECAR_ROOT_PATH": "/ops/queue"})
    with Gate(sidecar.port) as proxy:
        proxy.wants_token, proxy.prefix = False, "/ops/queue"
        page = look(f"{proxy.url}/ops/queue/")
        sender.send(task("one", "active", extra={"args": "('needle',)"}))
        card(page, "one").locator(".head").click()
        expect(card(page, "one").locator(".parameters")).to_contain_text("needle")
        assert ["/ops/queue/api/v1/queue/events"] == proxy.streams
