"""What all files of `deploy/` have in common."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from celery_plugin.settings import Settings as PluginSettings
from deploy.demo.child import CHECKOUT
from sidecar.settings import CLIENT_VARIABLES, SETTINGS
from tests.support.deployed import DEPLOY, configurations

README = (CHECKOUT / "README.md").read_text()
KNOWN = (
    {setting.variable for setting in SETTINGS}
    | {f"SIDECAR_{field.name.upper()}" for field in fields(PluginSettings)}
    | CLIENT_VARIABLES
)
FILES = [*configurations(), CHECKOUT / "Containerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    """No file gives or names a variable that nobody reads."""
    assert set() == set(re.findall(r"\bSIDECAR_[A-Z_]+\b", path.read_text())) - KNOWN


# The examples have a README of their own.
DEPLOYED = [path for path in configurations() if not path.is_relative_to(DEPLOY / "examples")]


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: path.name)
def test_the_readme_leads_to_it(path: Path) -> None:
    """Whoever reads the README finds the file."""
    assert f"](deploy/{path.relative_to(DEPLOY)})" in README
