"""The viewer with what npm has: examined by axe, in React and in Vue, checked by TypeScript."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery
from playwright.sync_api import Browser, Page, expect

from tests.support import npm
from tests.support.batches import Sender
from tests.support.browser import DESKTOP, PHONE, Look, card, open_page
from tests.support.foreign_site import Gate, Shop
from tests.support.sidecar_process import Sidecar
from tests.support.starters import StartSidecar
from tests.support.tokens import SECRET
from tests.support.writing import task

ROOT = Path(__file__).parents[2]
# Pages ask for them by npm's names; a release that is replaced must not break the tests.
PACKAGES = ("axe-core@4", "react@19", "react-dom@19", "vue@3", "esbuild@0", "typescript@5")
EMBEDDING = (ROOT / "docs/embedding.md").read_text()


@pytest.fixture(scope="module")
def npm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the tests take from npm."""
    return npm.install(tmp_path_factory.mktemp("npm"), *PACKAGES)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    browser: Browser, sender: Sender, sidecar: Sidecar, celery_app: Celery, npm_folder: Path, scheme: str
) -> None:
    """Nothing serious in the list, in an open card, on the page of a task; nor on a phone."""
    ends = ("retrying", "completed", "revoked", "failed", "rejected")
    sender.send(*(task(status, "active") for status in (*ends, "active")), task("reserved", "reserved"))
    celery_app.send_task("tests.add", (1, 2), task_id="pending")
    axe = (npm_folder / "node_modules/axe-core/axe.min.js").read_text()
    pages = []
    for viewport in (DESKTOP, PHONE):
        page = open_page(browser, f"{sidecar.url}/", color_scheme=scheme, viewport=viewport, bypass_csp=True)
        page.add_script_tag(content=axe)
        expect(card(page, "failed")).to_be_visible()
        # Under the pointer what has ended stays for as long as axe takes.
        card(page, "failed").hover()
        pages.append(page)
    sender.send(*(task(status, status, exception="ValueError('x')") for status in ends))
    for page in pages:
        expect(card(page, "failed")).to_have_attribute("data-status", "failed")
        assert [] == serious(page)
        card(page, "failed").locator(".head").click()
        expect(card(page, "failed").locator(".details[data-loaded]")).to_be_visible()
        assert [] == serious(page)
        card(page, "failed").locator(".page-link").click()
        expect(page.locator(".timeline")).to_be_visible()
        assert [] == serious(page)
        page.keyboard.press("Escape")
        page.get_by_role("tab", name="Waiting").click()
        expect(card(page, "pending")).to_be_visible()
        assert [] == serious(page)
        page.context.close()


def serious(page: Page) -> list[str]:
    """What axe has against the page."""
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_and_the_sign_in(look: Look, start_sidecar: StartSidecar, npm_folder: Path, scheme: str) -> None:
    """Nor in the form that takes a token, before and after it has refused one."""
    sidecar = start_sidecar(env={"SIDECAR_AUTH_SECRETS": SECRET})
    page = look(f"{sidecar.url}/", color_scheme=scheme, bypass_csp=True)
    page.add_script_tag(content=(npm_folder / "node_modules/axe-core/axe.min.js").read_text())
    expect(page.get_by_label("Token")).to_be_visible()
    assert [] == serious(page)
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).not_to_have_text("")
    assert [] == serious(page)


def example(language: str) -> str:
    """The first example in a language, with the sidecar's own module."""
    block = re.search(rf"```{language}\n(.*?)```", EMBEDDING, re.DOTALL)
    assert block is not None
    return block[1].replace('"celery-queue-viewer"', f'"{ROOT}/sidecar/static/queue-viewer.js"')


def run(folder: Path, *command: str) -> None:
    """Run a program of npm."""
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120, env=dict(os.environ))


def bundled(folder: Path, entry: str, *options: str) -> bytes:
    """One script of a program and all that it imports."""
    esbuild = "node_modules/.bin/esbuild"
    run(folder, esbuild, entry, "--bundle", "--format=esm", "--outfile=bundle.js", *options)
    return (folder / "bundle.js").read_bytes()


@contextmanager
def application(gate: Gate, script: bytes) -> Iterator[str]:
    """A site whose page is made by a script."""
    body = f'<div id="app" data-sidecar="{gate.url}"></div><script type="module" src="/app.js"></script>'
    with Shop(gate, body, more={"/app.js": ("text/javascript", script)}) as site:
        yield site.url


def test_react_hook(look: Look, sender: Sender, sidecar: Sidecar, npm_folder: Path) -> None:
    """The hook of docs/embedding.md, as it stands there, in a real React page."""
    hook = example("jsx")
    assert len(hook.strip().splitlines()) <= 30
    (npm_folder / "use-task-queue.js").write_text(hook)
    (npm_folder / "app.jsx").write_text(REACT_APP)
    script = bundled(npm_folder, "app.jsx", "--jsx=automatic")
    with Gate(sidecar.port) as gate, application(gate, script) as url:
        page = look(url)
        expect(page.locator("#total")).to_have_text("0")
        sender.send(task("one", "active"))
        expect(page.locator("#total")).to_have_text("1")
        expect(page.locator("#one")).to_have_text("active")
        sender.send(task("one", "completed"))
        expect(page.locator("#one")).to_have_text("completed")
        assert 1 == gate.issued


REACT_APP = """\
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { useTask, useTaskQueue } from "./use-task-queue.js";

const root = document.getElementById("app");
const url = root.dataset.sidecar;
const token = () => fetch("/token").then((response) => response.text());

function App() {
  const queue = useTaskQueue(url, token);
  const task = useTask(url, "one", token);
  return <><p id="total">{queue?.status?.total_tasks}</p><p id="one">{task?.status}</p></>;
}
createRoot(root).render(<StrictMode><App /></StrictMode>);
"""


def test_vue_component(look: Look, sender: Sender, sidecar: Sidecar, npm_folder: Path) -> None:
    """The component of docs/embedding.md, as it stands there but for the address, in a real Vue page."""
    with Gate(sidecar.port) as gate:
        gate.wants_token = False
        component = example("vue").replace("https://sidecar.example", gate.url)
        (npm_folder / "example.vue").write_text(component)
        (npm_folder / "compile.mjs").write_text(VUE_COMPILER)
        (npm_folder / "app.js").write_text(VUE_APP)
        run(npm_folder, "node", "compile.mjs")
        with application(gate, bundled(npm_folder, "app.js", "--minify", *VUE_FLAGS)) as url:
            page = look(url)
            shown = page.locator("#app p")
            expect(shown).to_have_text("0 active, live")
            sender.send(task("one", "active"))
            expect(shown).to_have_text("1 active, live")
            with page.expect_event("requestfailed", lambda request: "/events" in request.url):
                page.evaluate("window.app.unmount()")
            expect(shown).to_have_count(0)


VUE_COMPILER = """\
import { readFileSync, writeFileSync } from "node:fs";
import { compileScript, parse } from "vue/compiler-sfc";

const { descriptor } = parse(readFileSync("example.vue", "utf8"));
writeFileSync("example.js", compileScript(descriptor, { id: "example", inlineTemplate: true }).content);
"""
VUE_APP = """\
import { createApp } from "vue";
import Example from "./example.js";

window.app = createApp(Example);
window.app.mount("#app");
"""
VUE_FLAGS = (
    '--define:process.env.NODE_ENV="production"',
    "--define:__VUE_OPTIONS_API__=false",
    "--define:__VUE_PROD_DEVTOOLS__=false",
    "--define:__VUE_PROD_HYDRATION_MISMATCH_DETAILS__=false",
)


def test_types(npm_folder: Path) -> None:
    """A program that uses the package as it is meant passes the strictest compiler; a wrong one fails."""
    package = npm_folder / "node_modules/celery-queue-viewer"
    package.unlink(missing_ok=True)
    package.symlink_to(ROOT / "sidecar/static")
    (npm_folder / "right.ts").write_text(TYPED)
    (npm_folder / "wrong.ts").write_text(TYPED.replace("?? 0", ""))
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", "esnext"]
    command = ["node_modules/.bin/tsc", *options, "--moduleResolution", "bundler", "right.ts", "wrong.ts"]
    done = subprocess.run(command, cwd=npm_folder, capture_output=True, text=True, check=False, timeout=120)
    assert "right.ts" not in done.stdout
    assert done.stdout.startswith("wrong.ts")
    assert "null | undefined" in done.stdout


TYPED = """\
import { QueueError, TaskQueue, shareQueue } from "celery-queue-viewer";
import type { Connection, Task, TaskRecord } from "celery-queue-viewer";

const queue = new TaskQueue({ url: "", token: async () => "t", filter: { queue: "mail", include: "args" } });
const state: Connection = queue.connection;
const total: number = queue.status?.total_tasks ?? 0;
const one: TaskQueue = queue.ofTask("one");
const task: Task | undefined = one.getTask("one");
const record: Promise<TaskRecord> = queue.fetchTask("one");
record.catch((error) => error instanceof QueueError && error.status);
const { queue: figures, release } = shareQueue({ url: "", figures: true });
figures.subscribe(release)();
queue.listAll();
const viewer = document.createElement("queue-viewer");
viewer.token = () => `${state} ${total} ${task?.position}`;
viewer.show();
document.createElement("task-progress").task?.progress?.percent?.toFixed();
"""
