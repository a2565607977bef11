"""Packages of npm, which some tests need; without npm or its index they are skipped, in CI they fail."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.needed import need


def install(folder: Path, *packages: str) -> Path:
    """Install packages into a folder, and return it."""
    npm = need(shutil.which("npm"), "npm")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        need(None, f"what npm is to bring ({done.stderr.strip()[-200:]})")
    return folder
