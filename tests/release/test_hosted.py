"""What the hosting reads: workflows, forms and templates are what it understands."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.test_hosted import FORMS, GITHUB, WORKFLOWS

# Schema → what must follow it.
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.github-issue-forms": FORMS,
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_they_are_understood(schema: str) -> None:
    """By the schemas that come with the checker."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *SCHEMAS[schema]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_all_of_them_are_looked_at() -> None:
    """No file is left out."""
    files = {file for file in GITHUB.rglob("*") if file.is_file()}
    assert {file for some in SCHEMAS.values() for file in some} | {
        GITHUB / "PULL_REQUEST_TEMPLATE.md"
    } == files
