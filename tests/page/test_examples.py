"""The web applications of `deploy/examples`: a page of theirs watches what it has started."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import Page, expect

from deploy.demo.ports import HOST
from deploy.demo.redis_server import RedisServer
from tests.support import acl, examples
from tests.support.browser import Look
from tests.support.celery_worker import wait_until_ready
from tests.support.deadline import eventually
from tests.support.processes import Process
from tests.support.tokens import SECRET


class Example:
    """Starts what an example needs, by the commands of its README."""

    def __init__(self, redis: RedisServer, processes: list[Process], ports: tuple[int, int]) -> None:
        self._redis = redis
        self._processes = processes
        self._site_port, self._sidecar_port = ports
        self.site = f"http://{HOST}:{self._site_port}"
        self.sidecar = f"http://{HOST}:{self._sidecar_port}"

    def start(self, heading: str, **variables: str) -> None:
        """Start worker, sidecar and site, and wait until each is there."""
        [way, *_] = examples.commands("The plugin in an existing worker")
        [[*_, serve, site]] = examples.commands(heading)
        broker = {"CELERY_BROKER_URL": self._redis.url, "CELERY_RESULT_BACKEND": self._redis.url}
        worker = self._run(way[0], **broker)
        redis = acl.as_user(self._redis.url)
        self._run(serve, SIDECAR_REDIS_URL=redis, SIDECAR_PORT=str(self._sidecar_port), **variables)
        self._run(site, SIDECAR_URL=self.sidecar, **broker, **variables)
        wait_until_ready(worker)
        for url in (f"{self.sidecar}/readyz", self.site):
            eventually(lambda url=url: answers(url), what=f"{url} answers")

    def _run(self, command: str, **variables: str) -> Process:
        started = examples.start(command, site_port=self._site_port, **variables)
        self._processes.append(started)
        return started


def answers(url: str) -> bool:
    """Tell whether somebody answers well."""
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def example(redis_server: RedisServer, processes: list[Process], free_port: Callable[[], int]) -> Example:
    """Nothing yet."""
    return Example(redis_server, processes, (free_port(), free_port()))


def watches_a_report(page: Page) -> None:
    """The page shows what it has started, step by step."""
    page.get_by_role("button", name="Make a report").click()
    shown = page.get_by_role("listitem")
    expect(shown.last).to_have_text("completed")
    texts = shown.all_text_contents()
    # The task may be on its way before the stream is open; its later steps cannot be.
    assert {"active: 3 of 5", "active: 4 of 5"} <= set(texts), texts


def test_fastapi(look: Look, example: Example) -> None:
    """A plain `EventSource`, where anyone may read."""
    example.start("FastAPI")
    watches_a_report(look(example.site))


def test_django(look: Look, example: Example) -> None:
    """With a ticket, for the visitor's own tasks: another one's token shows nothing of them."""
    example.start("Django", SIDECAR_AUTH_SECRETS=SECRET)
    page = look(example.site)
    watches_a_report(page)
    [cookie] = [each for each in page.context.cookies() if each["name"] == "sessionid"]
    own, foreign = (history(example, cookies) for cookies in ({"sessionid": cookie["value"]}, {}))
    assert ["completed"] == [task["status"] for task in own.json()["tasks"]]
    assert 403 == foreign.status_code


def history(example: Example, cookies: dict[str, str]) -> httpx.Response:
    """Ask for the ended tasks that a visitor with these cookies may see."""
    with httpx.Client(trust_env=False, cookies=cookies) as client:
        token = client.get(f"{example.site}/queue-token").json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{example.sidecar}/api/v1/queue/history", headers=headers, trust_env=False)
