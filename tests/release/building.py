"""Builds what a release has, and puts it into environments that have nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from celery_plugin import __version__
from deploy.demo.child import CHECKOUT
from tests.support.processes import Process

NAME = f"celery_sidecar-{__version__}"
WHEEL = f"{NAME}-py3-none-any.whl"
# What would lead into the checkout, or to somebody's queue.
_FOREIGN = ("PYTHON", "CELERY_", "SIDECAR_")


class Release:
    """What a release has, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sdist = folder / "dist" / f"{NAME}.tar.gz"
        self.wheel = folder / "dist" / WHEEL
        self.wheel_of_the_tree = folder / "tree" / WHEEL
        self.sbom = folder / "tree" / f"celery-sidecar-{__version__}.cdx.json"

    def build(self) -> None:
        """Build it as who releases does."""
        _make("dist", WHEEL_DIR=str(self.folder / "dist"))
        _make("sbom", WHEEL_DIR=str(self.folder / "tree"), SERVER=str(self.folder / "server"))

    def base(self) -> Environment:
        """Install the wheel alone."""
        venv.create(self.folder / "base")
        made = Environment(self.folder / "base")
        made.pip("install", "--quiet", "--no-compile", str(self.wheel))
        return made

    def server(self) -> Environment:
        """Return what the SBOM was made of: the packages of the lock, and the wheel with its extras."""
        return Environment(self.folder / "server")


class Environment:
    """An environment of Python's, and programs of it that know nothing of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pip(self, *arguments: str) -> str:
        """Run pip, which is not in here, and return what it says."""
        return _run([sys.executable, "-m", "pip", "--python", str(self.folder), *arguments], self.folder)

    def run(self, *command: str, code: int = 0, **variables: str) -> str:
        """Run a program and return what it says."""
        return _run(self._command(command), self.folder, code, variables)

    def start(self, *command: str, **variables: str) -> Process:
        """Start a program."""
        return Process(self._command(command), name=command[0], env=_clean(variables), cwd=self.folder)

    def _command(self, command: Sequence[str]) -> list[str]:
        program, *arguments = command
        return [str(self.folder / "bin" / program), *arguments]


def _clean(variables: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return inherited | {"PYTHONUNBUFFERED": "1"} | dict(variables)


def _run(
    command: Sequence[str], folder: Path, code: int = 0, variables: Mapping[str, str] | None = None
) -> str:
    done = subprocess.run(
        command,
        env=_clean(variables or {}),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert code == done.returncode, f"{command}\n{done.stdout}"
    return done.stdout


def _make(target: str, **variables: str) -> None:
    settings = [f"{name}={value}" for name, value in {"PYTHON": sys.executable, **variables}.items()]
    _run(["make", target, *settings], CHECKOUT)
