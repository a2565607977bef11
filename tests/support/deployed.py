"""What stands in the files of `deploy/`, and what the image says that they deploy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from deploy.demo.child import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
_CONTAINERFILE = (CHECKOUT / "Containerfile").read_text()


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a file of YAML below `deploy/`."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def of_image(pattern: str) -> str:
    """What stands in the Containerfile where this pattern has its group; it occurs once."""
    [found] = re.findall(pattern, _CONTAINERFILE, re.MULTILINE)
    return str(found)


def image_user() -> int:
    """The user of the image, who has the same number as its group."""
    user, group = of_image(r"^USER (\S+)$").split(":")
    assert user == group
    return int(user)


def image_port() -> int:
    """The port that the image exposes, and on which the sidecar in it listens."""
    exposed = of_image(r"^EXPOSE (\d+)$")
    assert exposed == of_image(r"SIDECAR_PORT=(\d+)")
    return int(exposed)


def image_env() -> dict[str, str]:
    """The settings that the image gives."""
    return dict(re.findall(r"(SIDECAR_\w+)=(\S+)", _CONTAINERFILE.partition("\nENV ")[2]))


def configurations() -> list[Path]:
    """Every file that somebody would copy: no programs and no lists of packages."""
    others = (".py", ".pyc", ".lock")
    return sorted(path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix not in others)
