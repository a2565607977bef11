"""Run the core suite of the plugin on every Celery that it promises: ``python -m tests.matrix [5.3 …]``.

Each Celery gets an environment of its own in ``.matrix/``, with the kombu of its time and the redis-py that
this kombu asks for.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
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
)
# Older redis-py and Celery warn of themselves; our own warnings are errors in `make test`.
WARNINGS = (
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def main() -> int:
    """Run the suite on each version and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("versions", nargs="*", default=list(KOMBU), help=f"of {', '.join(KOMBU)}")
    failed = [version for version in parser.parse_args().versions if not _passes(version)]
    print(f"failed on Celery {', '.join(failed)}" if failed else "passed on every Celery", flush=True)
    return len(failed)


def _passes(version: str) -> bool:
    python = _environment(version)
    freeze = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True)
    wanted = ("celery==", "kombu==", "redis==")
    print("==", *[line for line in freeze.stdout.splitlines() if line.startswith(wanted)], flush=True)
    files = [f"tests/test_{name}.py" for name in SUITE]
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
    return subprocess.run([python, "-m", "pytest", *options, *files], cwd=ROOT, check=False).returncode == 0


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
