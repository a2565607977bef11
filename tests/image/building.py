"""Builds the image of `Containerfile` without a container engine, and runs what is in it.

buildah in a chroot needs no daemon and no registry: the base is a Debian of debootstrap's, with Python and
the certificates of this machine, which stay out of any image that is built on another base.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from deploy.demo.child import CHECKOUT
from tests.support.processes import Process

BASE = "localhost/base"
IMAGE = "localhost/celery-sidecar"
SUITE = "bookworm"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
# What a worker has besides: its processes share memory.
_OF_A_WORKER = """\
mount -t tmpfs -o mode=1777 none "$0/tmp"
mount --rbind /dev "$0/dev"
"""
# What a container has of its kernel's: nothing may be written, and nobody becomes another user.
_CONTAINED = """\
mount --bind "$0" "$0"
{more}
mount -o remount,bind,ro "$0"
exec setpriv --no-new-privs chroot --userspec="$1" "$0" "${@:2}"
"""


class Builder:
    """Images in a folder; everything stays below it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}

    def buildah(self, *arguments: str) -> str:
        """Run it; what it says."""
        # Plain folders: an overlay would have to be mounted, and stay so when a test is broken off.
        storage = ("--storage-driver", "vfs", "--root", str(self._folder / "root"))
        runroot = ("--runroot", str(self._folder / "run"))
        return _run(["buildah", *storage, *runroot, *arguments], self._environment)

    def make_base(self) -> None:
        """Make an image that stands in for python:3-slim."""
        system = self._folder / "base"
        packages = "python3,python3-venv,ca-certificates"
        mirror = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).splitlines()[0]
        _run(["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(system), mirror])
        shutil.copy(f"/{CERTIFICATES}", system / CERTIFICATES)
        archive = self._folder / "base.tar"
        _run(["tar", "--directory", str(system), "--create", "--file", str(archive), "."])
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, str(archive), "/")
        self.buildah("config", "--env", f"PATH={os.defpath}:/usr/sbin:/sbin", container)
        self.buildah("commit", "--quiet", container, BASE)
        self.buildah("rm", container)

    def build(self) -> Image:
        """Build the image as a user does, on that base."""
        options = ("--format", "docker", "--build-arg", f"BASE={BASE}", "--build-arg", "VERSION=1.2.3")
        self.buildah(
            "build", *options, "--file", str(CHECKOUT / "Containerfile"), "--tag", IMAGE, str(CHECKOUT)
        )
        container = self.buildah("from", IMAGE)
        described = json.loads(self.buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
        return Image(Path(self.buildah("mount", container)), described)


class Image:
    """What has been built: its files, and its configuration as Docker writes it."""

    def __init__(self, root: Path, config: Mapping[str, Any]) -> None:
        self.root = root
        self.config = config

    @cached_property
    def env(self) -> dict[str, str]:
        """The variables that it sets."""
        return dict(variable.split("=", 1) for variable in self.config["Env"])

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Run its command, or its entry point with other arguments, as an engine does with --read-only."""
        command = [*self.config["Entrypoint"], *(arguments or self.config["Cmd"])]
        return Process(self._contained(command), name="container", env=self.env | dict(env or {}))

    def run(self, command: Sequence[str], env: Mapping[str, str], *, folder: str) -> Process:
        """Run something else in a folder of it, which may also use /tmp and devices."""
        contained = self._contained(["env", "--chdir", folder, *command], _OF_A_WORKER)
        return Process(contained, name=Path(command[0]).name, env=self.env | dict(env))

    def check_health(self, env: Mapping[str, str]) -> int:
        """Run its health check beside one that runs; its exit code."""
        kind, *command = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        done = subprocess.run(self._contained(command), env=self.env | dict(env), check=False, timeout=60)
        return done.returncode

    def _contained(self, command: Sequence[str], more: str = "") -> list[str]:
        enter = ["unshare", "--mount", "bash", "-euc", _CONTAINED.replace("{more}", more)]
        return [*enter, str(self.root), self.config["User"], *command]


def _run(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()
