"""What the hosting reads: workflows call what there is, and may do no more than they must."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [GITHUB / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "feature.yml")]


def read(file: Path) -> Any:
    """Read YAML."""
    return YAML(typ="safe", pure=True).load(file)


def jobs() -> list[tuple[str, dict[str, Any]]]:
    """Each job of each workflow."""
    return [(f"{file.stem} {name}", job) for file in WORKFLOWS for name, job in read(file)["jobs"].items()]


def steps() -> list[dict[str, Any]]:
    """Each step of each job."""
    return [step for _, job in jobs() for step in job.get("steps", [])]


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
