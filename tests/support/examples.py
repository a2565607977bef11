"""The examples of `deploy/examples`, run with the commands that their README shows."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from deploy.demo.child import CHECKOUT, environment
from tests.support.processes import Process

FOLDER = CHECKOUT / "deploy" / "examples"
README = (FOLDER / "README.md").read_text()
# Where the README has the web application.
SITE_PORT = "8001"


def commands(heading: str) -> list[list[str]]:
    """The commands below a heading, as the README has them in blocks."""
    chapter = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"```console\n(.*?)```", chapter, re.DOTALL)
    return [re.findall(r"^\$ (.*)$", block, re.MULTILINE) for block in blocks]


def start(command: str, *, folder: Path = FOLDER, site_port: int = 0, **variables: str) -> Process:
    """Start a command in a shell, with the programs of these tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    line = command.replace(SITE_PORT, str(site_port))
    name = re.sub(r"^([A-Z_]+=\S+ )*", "", line)
    return Process(["bash", "-c", line], name=name, cwd=folder, env=environment(PATH=path, **variables))
