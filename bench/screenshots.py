"""The pictures of docs/, of a made-up shop's queue: ``python -m bench.screenshots``.

With a folder, ``python -m bench.screenshots pictures``, it makes those of every state there.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from celery_plugin.operations import Operation
from deploy.demo.ports import free_port
from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.batches import Sender, step, worker_step
from tests.support.browser import PHONE, card, open_browser, open_page
from tests.support.foreign_site import Gate, Shop
from tests.support.sidecar_process import Sidecar, launch_sidecar, wait_until_alive
from tests.support.writing import writing

DOCS = Path("docs")
SHOWN = ("viewer-light", "viewer-dark", "viewer-phone", "viewer-task", "viewer-embedded")
WORKERS = {"web-1": ("default@web-1", ["default", "mail"], 4), "gpu-1": ("render@gpu-1", ["render"], 2)}
LOST = "old-1"
QUEUES = {"default": 214, "mail": 38, "render": 9, "reports": 3}
NAMES = (
    ("shop.mail.send_receipt", "mail", "web-1"),
    ("shop.stock.sync_warehouse", "default", "web-1"),
    ("shop.search.index_product", "default", "web-1"),
    ("shop.images.render_preview", "render", "gpu-1"),
)
EXAMPLE = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


def main() -> None:
    """Make every picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    folder.mkdir(exist_ok=True)
    with RedisServer(*acl.arguments()) as redis, writing(redis.url, "web-1") as sender:
        sidecar = launch_sidecar(acl.as_user(redis.url), port=free_port())
        try:
            wait_until_alive(sidecar)
            with open_browser() as browser:
                _take_all(browser, redis, sidecar, sender, folder)
        finally:
            sidecar.close()


def _take_all(browser: Browser, redis: RedisServer, sidecar: Sidecar, sender: Sender, folder: Path) -> None:
    def take(page: Page, name: str) -> None:
        if folder != DOCS or name in SHOWN:
            page.screenshot(path=folder / f"{name}.png")

    empty = _open(browser, f"{sidecar.url}/")
    take(empty, "viewer-empty")
    _fill(sender)
    pages = {scheme: _open(browser, f"{sidecar.url}/", color_scheme=scheme) for scheme in ("light", "dark")}
    phone = _open(browser, f"{sidecar.url}/", viewport=PHONE, device_scale_factor=2)
    for _ in range(12):
        _live(sender)
        phone.wait_for_timeout(1000)
    take(pages["light"], "viewer-light")
    take(pages["dark"], "viewer-dark")
    take(phone, "viewer-phone")
    phone.get_by_role("tab", name="Queues").click()
    take(phone, "viewer-phone-queues")
    light = pages["light"]
    card(light, "a1").locator(".head").click()
    expect(card(light, "a1").locator(".details[data-loaded]")).to_be_visible()
    take(light, "viewer-open")
    light.get_by_role("tab", name="Waiting").click()
    expect(light.locator('li[data-status="pending"]').first).to_be_visible()
    take(light, "viewer-waiting")
    light.goto(f"{sidecar.url}/#/tasks/{EXAMPLE}")
    expect(light.locator(".timeline")).to_be_visible()
    take(light, "viewer-task")
    dark = pages["dark"]
    dark.get_by_role("tab", name="Failed").click()
    expect(card(dark, EXAMPLE)).to_be_visible()
    take(dark, "viewer-failed")
    _embedded(browser, sidecar, take)
    light.goto(f"{sidecar.url}/#/")
    redis.pause()
    expect(light.locator(".conn-word")).to_have_text("Redis unreachable")
    take(light, "viewer-stale")
    redis.resume()
    expect(light.locator(".conn-word")).to_have_text("Live")
    sidecar.kill()
    expect(light.locator(".conn-word")).to_have_text("Reconnecting…")
    take(light, "viewer-reconnecting")


def _open(browser: Browser, url: str, **options: object) -> Page:
    page = open_page(browser, url, **options)
    expect(page.locator(".conn-word")).to_have_text("Live")
    return page


def _embedded(browser: Browser, sidecar: Sidecar, take: Callable[[Page, str], None]) -> None:
    button = '<queue-button src="{gate}" token-url="/token">Background jobs</queue-button>'
    with Gate(sidecar.port) as gate, Shop(gate, button) as site:
        page = open_page(browser, site.url)
        expect(page.locator(".badge")).not_to_have_text("…")
        take(page, "viewer-button")
        page.locator(".queue-button").click()
        expect(page.locator("li.task").first).to_be_visible()
        page.wait_for_timeout(1500)
        take(page, "viewer-embedded")
        page.context.close()


def _fill(sender: Sender) -> None:
    now = time.time()
    for name, (worker, queues, slots) in WORKERS.items():
        facts = {"worker": worker, "queues": queues, "concurrency": slots, "pool": "prefork"}
        other = sender if name == "web-1" else Sender(sender.client, name)
        other.send(worker_step(name, **facts, started_at=now - 93_000), lease=300)
    lost = Sender(sender.client, LOST)
    lost.send(worker_step(LOST, worker="batch@old-1", queues=["default"], concurrency=2), lease=0.5)
    lost.send(
        _task("l1", "shop.export.nightly_csv", "default", "active", LOST, started_at=now - 640), lease=0.5
    )
    for queue, waiting in QUEUES.items():
        sender.client.sadd(f"_kombu.binding.{queue}", f"{queue}\x06\x16\x06\x16{queue}")
        for number in range(waiting):
            sender.client.lpush(queue, _message(queue, number))
    args = {"args": "(48213, 'monthly')", "kwargs": "{'currency': 'EUR', 'include_drafts': False}"}
    progress = {
        "message": "Rendering page 31 of 48",
        "current": 31,
        "total": 48,
        "percent": 64.6,
        "updated_at": now,
    }
    sender.send(
        _task(
            "a1",
            "shop.reports.build_statement",
            "default",
            "active",
            "web-1",
            extra=args,
            started_at=now - 74,
            progress=progress,
        ),
        _task("a2", "shop.images.render_preview", "render", "active", "gpu-1", started_at=now - 9),
        _task(
            "a3",
            "shop.stock.sync_warehouse",
            "default",
            "active",
            "web-1",
            started_at=now - 21,
            attempt=2,
            max_retries=2,
        ),
        _task("s1", "shop.mail.send_reminder", "mail", "scheduled", "web-1", eta=now + 1800),
        *(
            _task(f"r{number}", *NAMES[number % 4][:2], "reserved", NAMES[number % 4][2])
            for number in range(7)
        ),
    )
    trace = 'Traceback (most recent call last):\n  File "shop/payments.py", line 88, in charge\n'
    trace += "    raise CardDeclined(order)\n"
    failing = {
        "max_retries": 2,
        "parent_id": "a1",
        "root_id": "a1",
        "extra": {"args": "(order=5512)", "traceback": trace},
    }
    name = ("shop.payments.charge_card", "default")
    for attempt, (end, at) in enumerate((("retrying", 40), ("failed", 4)), 1):
        run, begin = f"web-1/{EXAMPLE}-{attempt}", now - at
        exception = "CardDeclined('order 5512: 129.90 EUR declined')"
        for status, moment in (("reserved", begin - 3), ("active", begin - 2.4), (end, begin)):
            end_of = {"exception": exception, "finished_at": begin, "runtime": 2.4} if status == end else {}
            started = {} if status == "reserved" else {"started_at": begin - 2.4}
            sender.send(
                _task(
                    EXAMPLE,
                    *name,
                    status,
                    "web-1",
                    run=run,
                    at=moment,
                    attempt=attempt,
                    **failing,
                    **started,
                    **end_of,
                )
            )


def _message(queue: str, number: int) -> str:
    names = [name for name, of, _ in NAMES if of == queue] or ["shop.reports.build_statement"]
    headers = {"id": str(uuid.uuid4()), "task": names[0], "argsrepr": f"({number},)", "kwargsrepr": "{}"}
    return json.dumps({"headers": headers, "properties": {}})


_number = iter(range(10_000))


def _live(sender: Sender) -> None:
    now = time.time()
    for _ in range(4):
        number = next(_number)
        name, queue, worker = NAMES[number % 4]
        fails = number % 11 == 5
        more = {"exception": "SMTPServerDisconnected('Connection unexpectedly closed')"} if fails else {}
        more |= {"started_at": now - 0.3, "finished_at": now, "runtime": 0.21 + number % 7 / 5}
        sender.send(
            _task(f"live-{number}", name, queue, "active", worker, started_at=now - 0.3),
            _task(f"live-{number}", name, queue, "failed" if fails else "completed", worker, **more),
        )
        sender.client.rpop("default")


def _task(
    task_id: str, name: str, queue: str, status: str, worker: str, run: str = "", **more: object
) -> Operation:
    names = {key: facts[0] for key, facts in WORKERS.items()}
    facts = {
        "task_name": name,
        "queue": queue,
        "position": None,
        "received_at": time.time() - 80,
        "attempt": 1,
    }
    return step(
        task_id,
        status,
        run or f"{worker}/{task_id}",
        worker=names.get(worker, "batch@old-1"),
        message="",
        **(facts | more),
    )


if __name__ == "__main__":
    main()
