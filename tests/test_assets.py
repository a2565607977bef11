"""The files of the viewer: one small module, kept by browsers while it is the same, under any prefix."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from sidecar import assets
from sidecar.bundle import FOLDER, CircularImport, make_bundle
from sidecar.shorten import shorten, shorten_names
from tests.support.needed import need
from tests.support.starters import StartSidecar

LARGEST_BYTES = 30_000
ROUTES = [Route("/", assets.page), Route("/static/{path:path}", assets.static)]


def client_of(app: Starlette) -> httpx.AsyncClient:
    """Make a client of an application."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sidecar")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client of these routes alone."""
    async with client_of(Starlette(routes=ROUTES)) as client:
        yield client


def test_bundle_is_small() -> None:
    """The module is at most 30 KB when it is compressed."""
    assert len(gzip.compress(make_bundle().encode())) <= LARGEST_BYTES


def test_bundle_needs_no_other_file() -> None:
    """Nothing is imported, and nothing is exported but what the entry exports."""
    bundle = make_bundle()
    assert [] == re.findall(r"\bimport\b(?!\.meta)", bundle)
    exports = re.findall(r"\bexport\b *(.*?);", bundle)
    assert {"{QueueError}", "{shareQueue}", "{TaskQueue}"} < set(exports)
    assert all(names.startswith("{") for names in exports)


def test_texts_stay_as_they_are() -> None:
    """What a module shows, matches or fills in is not touched; comments and spaces around signs go."""
    module = r"""
      const a = b / c; // "half", of it
      const texts = ["a , b", "it's \" = \"", `${a} : ${b}`, /[/ ,] = x/.test(a)];
    """
    short = r"""const a=b / c;const texts=["a , b","it's \" = \"",`${a} : ${b}`,/[/ ,] = x/.test(a)];"""
    assert short == shorten(module)


def test_names_become_short() -> None:
    """What a module has for itself loses its name, in code; what is exported, and every text, keeps it."""
    module = 'const ALL=[1];class Row{}class Shown{#a=[Row,...ALL,b.ALL,"ALL"]}export{Shown};'
    short = 'const $a=[1];class $b{}class Shown{#a=[$b,...$a,b.ALL,"ALL"]}export{Shown};'
    assert short == shorten_names(module)


def test_modules_can_be_shortened() -> None:
    """They keep to what `shorten` asks of them, for it would not tell these from code."""
    modules = {module.name: module.read_text() for module in FOLDER.glob("*.js")}
    declared = r"^(?:export )?(?:const|class) ([A-Z]\w+)"
    capitals = set(re.findall(declared, "\n".join(modules.values()), re.MULTILINE))
    capitals -= set(re.findall(r"\w+", modules["queue-viewer.js"]))
    for name, source in modules.items():
        assert [] == re.findall(r"`[^`]*\$\{[^`}]*`.*", source), f"a template within a template: {name}"
        templates = re.sub(r"\$\{[^}]*\}", "", " ".join(re.findall(r"`[^`]*`", source)))
        assert set() == capitals & set(re.findall(r"\w+", templates)), name
        private = set(re.findall(r"^ +(?:\w+ )*#(\w+)", source, re.MULTILINE))
        texts = " ".join([templates, *re.findall(r'"(?:\\.|[^"\\\n])*"', source)])
        assert set() == private & set(re.findall(r"#(\w+)", texts)), name
        assert name == "style.js" or ";}" not in texts


def test_bundle_refuses_a_circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that import each other cannot stand one behind the other."""
    (tmp_path / "a.js").write_text('import { b } from "./b.js";\n')
    (tmp_path / "b.js").write_text('import { a } from "./a.js";\n')
    monkeypatch.setattr("sidecar.bundle.FOLDER", tmp_path)
    with pytest.raises(CircularImport, match=r"a\.js → b\.js → a\.js"):
        make_bundle("a.js")


async def test_a_module_that_is_the_same_is_not_sent_again(client: httpx.AsyncClient) -> None:
    """With its ETag it is answered 304, also where a proxy has made that a weak one."""
    first = await client.get("/static/queue-viewer.js")
    assert (200, "no-cache") == (first.status_code, first.headers["cache-control"])
    for tag in (first.headers["etag"], f"W/{first.headers['etag']}"):
        again = await client.get("/static/queue-viewer.js", headers={"If-None-Match": tag})
        assert (304, b"") == (again.status_code, again.content)


async def test_a_module_with_its_version_is_kept(client: httpx.AsyncClient) -> None:
    """The page names the module with its version, which browsers keep; no other version is answered."""
    [address] = re.findall(r'src="\./(static/[^"]+\.js)"', (await client.get("/")).text)
    assert "immutable" in (await client.get(f"/{address}")).headers["cache-control"]
    assert 404 == (await client.get("/static/0.0.0-none/queue-viewer.js")).status_code


async def test_only_what_is_meant_is_served(client: httpx.AsyncClient) -> None:
    """No source, nothing outside of the folder."""
    for path in ("store.js", "../viewer.py", "%2e%2e/viewer.py", "package.json", ""):
        assert 404 == (await client.get(f"/static/{path}")).status_code


async def test_any_page_may_load_it(client: httpx.AsyncClient) -> None:
    """A page of another origin may, also where it demands CORP."""
    headers = (await client.get("/static/queue-viewer.js")).headers
    assert "*" == headers["access-control-allow-origin"]
    assert "cross-origin" == headers["cross-origin-resource-policy"]


async def test_page_holds_under_a_prefix() -> None:
    """Where a proxy adds a prefix that the sidecar knows, every address of the page begins with it."""
    async with client_of(Starlette(routes=[Mount("/ops/queue", routes=ROUTES)])) as client:
        addresses = re.findall(r'(?:src|href)="([^"]+)"', (await client.get("/ops/queue/")).text)
        [script] = [address for address in addresses if address.endswith(".js")]
        assert all(address.startswith("/ops/queue/") for address in addresses)
        assert 200 == (await client.get(script)).status_code


def test_sidecar_behind_a_prefix(start_sidecar: StartSidecar) -> None:
    """With SIDECAR_ROOT_PATH the page has the proxy's addresses, and what the proxy passes on is answered."""
    sidecar = start_sidecar(env={"SIDECAR_ROOT_PATH": "/ops/queue/"})
    addresses = re.findall(r'(?:src|href)="([^"]+)"', sidecar.get("/").text)
    assert all(address.startswith("/ops/queue/") for address in addresses)
    for address in addresses:
        if not address.endswith("status"):
            assert 200 == sidecar.get(address.removeprefix("/ops/queue")).status_code


async def test_page_allows_no_code_but_its_own(client: httpx.AsyncClient) -> None:
    """The policy allows no inline code or style, and no other origin."""
    policy = (await client.get("/")).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<style" not in (await client.get("/")).text


async def test_it_compresses(client: httpx.AsyncClient) -> None:
    """Who understands gzip gets it."""
    answer: httpx.Response = await client.get("/static/queue-viewer.js", headers={"Accept-Encoding": "gzip"})
    assert "gzip" == answer.headers["content-encoding"]
    assert make_bundle() == answer.text


def test_npm_packs_the_folder(tmp_path: Path) -> None:
    """The folder is a package as npm wants it, with every module and the types."""
    npm = need(shutil.which("npm"), "npm")
    command = [npm, "pack", "--dry-run", "--json", str(FOLDER)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    packed = json.loads(done.stdout)
    [package] = packed.values() if isinstance(packed, dict) else packed
    names = {file["path"] for file in package["files"]}
    assert {file.name for file in FOLDER.iterdir() if file.suffix in (".js", ".ts")} <= names
