"""Any input at all: so many cases for each property that the tests check with a hundred."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

# Whoever reads what comes from outside: requests, tokens, records, events, messages of the broker.
TESTS = (
    "any_bytes",
    "contract",
    "credentials",
    "event_log",
    "filters",
    "handover_properties",
    "history",
    "log_setup",
    "messages",
    "openapi_cases",
    "queries",
    "scope",
    "state",
    "tickets",
    "tokens",
    "urls",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--cases", type=int, default=10_000, help="cases for each property")


def run(arguments: argparse.Namespace) -> None:
    """Run the properties; fails where one does not hold."""
    files = [f"tests/test_{name}.py" for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "hypothesis", "--hypothesis-profile=fuzz", *files]
    subprocess.run(command, env=os.environ | {"FUZZ_CASES": str(arguments.cases)}, check=True)
