"""Child processes that cannot outlive the one who started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

CHECKOUT = Path(__file__).resolve().parents[2]

_PR_SET_PDEATHSIG = 1
# Looked up here, in the parent: between fork and exec the less is done the better. PyDLL keeps
# the GIL, which a child with a single thread need not hand around.
_libc = ctypes.PyDLL(None) if sys.platform == "linux" else None


def environment(**variables: str) -> dict[str, str]:
    """Make the environment of a child that uses the packages of this checkout.

    What the caller's shell says about Celery and the sidecar stays out: a broker URL there would
    lead the worker to somebody else's queue.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    path = os.pathsep.join(filter(None, [str(CHECKOUT), inherited.get("PYTHONPATH")]))
    return inherited | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": _WARNINGS} | variables


_OURS = ("CELERY_", "SIDECAR_")
# In a container everybody is root; Celery's advice against it would stand first in every log.
_WARNINGS = "ignore:You're running the worker with superuser privileges"


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that the terminal's Ctrl-C reaches only us."""
    return subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent(os.getpid()),  # noqa: PLW1509 – one system call, no lock
    )


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """Make the hook that asks Linux to kill the child when its parent is gone.

    No handler of ours runs when we are killed with SIGKILL; without this, a Redis and a worker
    would stay behind and hold their ports. "Parent" means the *thread* that started the child:
    start children from a thread that lives as long as they shall. Other systems lack the call.
    """
    if _libc is None:
        return None
    prctl = _libc.prctl

    def hook() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # It went between fork and prctl, so no signal will come.
            os._exit(1)

    return hook


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the process and all its children that stayed in its group."""
    with contextlib.suppress(ProcessLookupError):  # All of them have ended, mostly what is wanted.
        os.killpg(process.pid, number)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and all its children, and reap it."""
    signal_group(process, signal.SIGKILL)
    process.wait()
