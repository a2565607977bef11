"""A real systemd with the shipped unit and no other, in namespaces of its own; it needs root.

It sees this machine's files and its network. What it has in `/run` and writes below `/etc` goes with it.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

import pytest

from deploy.demo.child import CHECKOUT
from tests.support.deadline import eventually
from tests.support.needed import need
from tests.support.processes import Process, descendants

SHIPPED = CHECKOUT / "deploy" / "systemd" / "celery-sidecar.service"
NAME = SHIPPED.name
# A service may not begin without them; those of this machine would start everything that it has.
_TARGETS = ("sysinit.target", "basic.target", "network-online.target", "shutdown.target")
_NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "--mount-proc")
_IN_CGROUP = 'echo $$ >"$0/cgroup.procs"; exec unshare "$@"'
# The interpreter and this checkout may be in somebody's home, which the unit hides: they come to /opt.
_BOOT = """\
mount --make-rprivate /
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /run
mkdir /run/changed /run/work
cp -r "$0/etc/." /run/changed
mount -t overlay none -o lowerdir=/etc,upperdir=/run/changed,workdir=/run/work /etc
mount -t tmpfs none /usr/lib/systemd/system
mount -t tmpfs -o mode=755 none /opt
cp -r "$0/opt/." /opt
mount --bind "$1" /opt/python
mount --bind "$2" /opt/packages
mount --bind "$3" /opt/checkout
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
    --unit=celery-sidecar.service --log-target=console --show-status=no
"""
_COMMAND = """\
#!/bin/sh
export PYTHONPATH=/opt/checkout:/opt/packages LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/python{version} -m sidecar "$@"
"""
_LOGS_TO = "[Service]\nStandardOutput=append:{log}\nStandardError=append:{log}\n"


class Systemd(Process):
    """systemd, which starts the sidecar with these variables."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        need(shutil.which("systemctl"), "systemd")
        self.folder = folder
        self._prepare(variables)
        self._cgroup = _new_cgroup()
        boot = ["bash", "-euc", _BOOT, str(folder), sys.base_prefix, site.getsitepackages()[0], str(CHECKOUT)]
        super().__init__(["bash", "-euc", _IN_CGROUP, str(self._cgroup), *_NAMESPACES, *boot], name="systemd")

    def wait_until_booted(self) -> None:
        """Wait until it takes commands."""
        eventually(lambda: not self.running or self._listens(), what="systemd takes commands")
        assert self.running, self.output

    def control(self, *arguments: str) -> str:
        """Run systemctl there; what it says."""
        command = ["nsenter", "--target", str(self._first), "--mount", "--pid", "systemctl", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.strip()

    def says(self, name: str) -> str:
        """What it says of a property of the unit."""
        return self.control("show", "--value", f"--property={name}", NAME)

    def of_process(self, name: str) -> str:
        """A line of what the kernel says of the unit's process."""
        status = self._root / "proc" / self.says("MainPID") / "status"
        lines = (line.partition(":") for line in status.read_text().splitlines())
        return next(value.strip() for found, _, value in lines if found == name)

    @property
    def log(self) -> str:
        """What the unit has said."""
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def close(self) -> None:
        """Leave nothing behind."""
        super().close()
        eventually(lambda: _remove(self._cgroup), what="its processes have gone")

    def _prepare(self, variables: dict[str, str]) -> None:
        units = self.folder / "etc" / "systemd" / "system"
        (units / f"{NAME}.d").mkdir(parents=True)
        shutil.copy(SHIPPED, units)
        (units / f"{NAME}.d" / "log.conf").write_text(_LOGS_TO.format(log=self.folder / "log"))
        for target in _TARGETS:
            (units / target).write_text("[Unit]\nDefaultDependencies=no\n")
        file = self.folder / "etc" / "celery-sidecar.env"
        file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        file.chmod(0o600)
        command = self.folder / "opt" / "celery-sidecar" / "bin" / "celery-sidecar"
        command.parent.mkdir(parents=True)
        command.write_text(_COMMAND.format(version=f"{sys.version_info.major}.{sys.version_info.minor}"))
        command.chmod(0o755)
        for empty in ("python", "packages", "checkout"):
            (self.folder / "opt" / empty).mkdir()

    @property
    def _root(self) -> Path:
        return Path(f"/proc/{self._first}/root")

    @property
    def _first(self) -> int:
        """Its process number 1, as it is called here; 0 as long as there is none."""
        return min((pid for pid in descendants(self.pid) if _name(pid) == "systemd"), default=0)

    def _listens(self) -> bool:
        return bool(self._first) and (self._root / "run/systemd/private").exists()


def need_namespaces() -> None:
    """Skip the test where nobody may make them."""
    if (
        os.geteuid()
        or not _cgroups()
        or subprocess.run(["unshare", *_NAMESPACES, "true"], check=False).returncode
    ):
        pytest.skip("a systemd of one's own needs root, namespaces and cgroups (version 2)")


def _new_cgroup() -> Path:
    """A group below that of this process, so that all groups of systemd are below that."""
    own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    return Path(mkdtemp(prefix="celery-sidecar-test-", dir=_cgroups()[0] / own.removeprefix("0::/")))


def _cgroups() -> list[Path]:
    """Where the groups of version 2 are mounted, if they are."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(point) for _, point, kind, *_ in mounts if kind == "cgroup2"]


def _remove(group: Path) -> bool:
    """Remove a group and those below it; not as long as there are processes in one."""
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
    except OSError:
        return False
    return True


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
