"""The version stands in `celery_plugin/__init__.py`; whatever else says one says the same."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from celery_plugin import __version__
from sidecar.cli import main
from sidecar.openapi import make_document

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def test_it_is_written_once() -> None:
    """The project takes it from there."""
    project = (ROOT / "pyproject.toml").read_text().splitlines()
    assert 'dynamic = ["version"]' in project
    assert 'path = "celery_plugin/__init__.py"' == project[project.index("[tool.hatch.version]") + 1]


def test_what_is_installed() -> None:
    """What the installer knows, which `make setup` brings up to date, is it."""
    assert __version__ == version("celery-sidecar")


def test_the_command_and_the_document_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` and the OpenAPI document."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert f"celery-sidecar {__version__}\n" == capsys.readouterr().out
    assert __version__ == make_document()["info"]["version"]


def test_the_package_of_the_viewer_says_it() -> None:
    """Who installs the folder with npm gets the same."""
    assert __version__ == json.loads((ROOT / "sidecar/static/package.json").read_text())["version"]


def test_the_image_says_it() -> None:
    """`make image` labels and names the image so."""
    command = ["make", "--no-print-directory", "--dry-run", "image", "CONTAINER=podman"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {f"--tag celery-sidecar:{__version__}", f"--build-arg VERSION={__version__}"} <= set(
        re.findall(r"--tag \S+|--build-arg VERSION=\S+", shown)
    )
    assert 'org.opencontainers.image.version="${VERSION}"' in (ROOT / "Containerfile").read_text()


def test_the_changelog_tells_of_it() -> None:
    """It has an entry with a date and something in it, the newest of them."""
    entries = re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]
    released = [entry for entry in entries if not entry.startswith("[Unreleased]")]
    assert re.match(rf"\[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d\n\n### \w+\n\n- ", released[0])
