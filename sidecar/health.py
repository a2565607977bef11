"""The command ``celery-sidecar health``: asks the sidecar of this machine whether it is there.

For a container's health check, in an image without curl.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sidecar.settings import BadSettings, load_only
from sidecar.terminal.asking import NoAnswer, ask
from sidecar.terminal.target import Target

TIMEOUT_SECONDS: Final = 4.0
# Where whoever listens on all addresses can be asked.
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not listened on


def add_health_command(commands: argparse._SubParsersAction[Any]) -> None:
    """Describe the command."""
    health = commands.add_parser(
        "health",
        help="ask the sidecar of this machine whether it is well; for a container's health check",
        description="Ask SIDECAR_HOST and SIDECAR_PORT for /livez; the exit code is 0 where all is well.",
        allow_abbrev=False,
    )
    health.add_argument("--ready", action="store_true", help="ask for /readyz instead")


def health(arguments: argparse.Namespace, unknown: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Say what is wrong, None where nothing is; raises BadSettings."""
    if unknown:
        raise BadSettings(["it has no such flag; see --help"])
    settings = load_only(("host", "port"), environ)
    # A host that is an address is always answered.
    host = _LOOPBACK.get(settings["host"], settings["host"])
    target = Target("http", host, settings["port"])
    path = "/readyz" if arguments.ready else "/livez"
    try:
        ask(target, path, seconds=TIMEOUT_SECONDS)
    except NoAnswer as error:
        return f"{target.url}{path}: {error}"
    return None
