"""Programs that only Debian has: without one a test is skipped, in CI it fails."""

from __future__ import annotations

import os

import pytest


def need(program: str | None, what: str) -> str:
    """Skip the test where a program is missing, and fail it in CI."""
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what} is not installed")
    return program
