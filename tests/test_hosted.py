"""What the hosting reads: workflows, forms and templates are what it understands, and call what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [GITHUB / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "feature.yml")]
# Schema → what must follow it.
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "custom.github-workflows-require-timeout": WORKFLOWS,
    "vendor.github-issue-forms": FORMS,
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
}


def read(file: Path) -> Any:
    """Read YAML."""
    return YAML(typ="safe", pure=True).load(file)


def jobs() -> list[tuple[str, dict[str, Any]]]:
    """Each job of each workflow."""
    return [(f"{file.stem} {name}", job) for file in WORKFLOWS for name, job in read(file)["jobs"].items()]


def steps() -> list[dict[str, Any]]:
    """Each step of each job."""
    return [step for _, job in jobs() for step in job.get("steps", [])]


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


def test_they_call_what_everyone_calls() -> None:
    """Each target of make that they name is there, and one of them runs all checks."""
    commands = [step["run"] for step in steps() if "run" in step]
    makefile = (ROOT / "Makefile").read_text()
    targets = {target for command in commands for target in re.findall(r"\bmake ([\w-]+)", command)}
    assert {"lint", "test", "dist", "sbom", "image"} <= targets
    assert [] == [target for target in sorted(targets) if f"\n{target}:" not in makefile]
    assert "bash .ci/run" in commands


def test_they_may_do_no_more_than_they_must() -> None:
    """By default they read; only who publishes may write, and each to one place."""
    assert [{"contents": "read"}] * len(WORKFLOWS) == [read(file)["permissions"] for file in WORKFLOWS]
    assert {
        "release pypi": {"id-token": "write"},
        "release image": {"contents": "read", "packages": "write"},
        "release page": {"contents": "write"},
    } == {name: job["permissions"] for name, job in jobs() if "permissions" in job}


def test_what_they_use_is_pinned() -> None:
    """By a major version, or by a commit."""
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert [] == [name for name in used if not re.search(r"@((release/)?v\d+|[0-9a-f]{40})$", name)]


def test_nothing_foreign_stands_in_a_command() -> None:
    """What somebody may choose (a title, a branch) comes as a variable, never as a piece of a script."""
    assert [] == [step["run"] for step in steps() if "${{" in step.get("run", "")]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_forms_ask_for_the_doctor(form: Path) -> None:
    """What it says answers most of what one would have to ask."""
    asked = [field["attributes"].get("description", "") for field in read(form)["body"]]
    assert any("celery-sidecar doctor" in text for text in asked)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CODE_OF_CONDUCT.md"])
def test_links(name: str) -> None:
    """No link is dead, and nothing is left to be filled in."""
    text = (ROOT / name).read_text()
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert [] == [target for target in targets if not (ROOT / target).exists()]
    assert "INSERT" not in text
