"""The command ``celery-sidecar``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

from sidecar import log_setup
from sidecar.health import add_health_command, health
from sidecar.mint import add_token_command, mint
from sidecar.settings import SETTINGS, BadSettings, Settings, load, nearest_flag, settings_help, shown, typos
from sidecar.terminal.commands import COMMANDS, add_command, run
from sidecar.urls import masked_text

DISTRIBUTION = "celery-sidecar"
EXIT_MISTAKE = 2
EXIT_NOT_INSTALLED = 1
EXIT_UNWELL = 1

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = make_parser()
    arguments, unknown = parser.parse_known_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return EXIT_MISTAKE
    if arguments.command == "token":
        return _token(arguments, unknown, os.environ)
    if arguments.command == "health":
        return _health(arguments, unknown, os.environ)
    if arguments.command in COMMANDS:
        return _in_terminal(arguments, unknown, os.environ)
    flags = {
        setting.name: getattr(arguments, setting.name) for setting in SETTINGS if setting.name in arguments
    }
    return _serve(flags, unknown, os.environ)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line; the flags of ``serve`` are the table of settings."""
    parser = _Parser(
        prog=DISTRIBUTION, description="Watch a Celery queue live, as Server-Sent Events.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="command", title="commands")
    serve = commands.add_parser(
        "serve",
        help="run the sidecar; serve --help lists its settings",
        description="Run the sidecar until SIGTERM or Ctrl-C.",
        usage=f"{DISTRIBUTION} serve [flags]",
        epilog=settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for setting in SETTINGS:
        # A flag without its value reads as empty, which the setting's own check reports with all else.
        serve.add_argument(
            setting.flag, nargs="?", const="", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    add_token_command(commands)
    add_health_command(commands)
    for name in COMMANDS:
        add_command(commands, name)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(masked_text(message))


def _serve(flags: Mapping[str, str], unknown: Sequence[str], environ: Mapping[str, str]) -> int:
    try:
        settings = _settings(flags, unknown, environ)
    except BadSettings as error:
        return report(error.mistakes, typos(environ))
    log_setup.set_up(settings.log_level, settings.log_format)
    for typo in typos(environ):
        _log.warning(typo)
    try:
        from sidecar.server import serve
    except ModuleNotFoundError as error:
        return report_missing(error)
    return serve(settings)


def _token(arguments: argparse.Namespace, unknown: Sequence[str], environ: Mapping[str, str]) -> int:
    try:
        print(mint(arguments, unknown, environ))
    except BadSettings as error:
        return report(error.mistakes, typos(environ))
    except ModuleNotFoundError as error:
        return report_missing(error)
    return 0


def _health(arguments: argparse.Namespace, unknown: Sequence[str], environ: Mapping[str, str]) -> int:
    try:
        what = health(arguments, unknown, environ)
    except BadSettings as error:
        return report(error.mistakes, typos(environ))
    if what is None:
        return 0
    print(f"{DISTRIBUTION}: {what}", file=sys.stderr)
    return EXIT_UNWELL


def _in_terminal(arguments: argparse.Namespace, unknown: Sequence[str], environ: Mapping[str, str]) -> int:
    try:
        return run(arguments.command, arguments, unknown, environ)
    except BadSettings as error:
        return report(error.mistakes, typos(environ))
    except ModuleNotFoundError as error:
        return report_missing(error)


def _settings(flags: Mapping[str, str], unknown: Sequence[str], environ: Mapping[str, str]) -> Settings:
    mistakes = _unknown_arguments(unknown)
    try:
        settings = load(flags, environ)
    except BadSettings as error:
        mistakes += error.mistakes
    if mistakes:
        raise BadSettings(mistakes)
    return settings


def _unknown_arguments(arguments: Sequence[str]) -> list[str]:
    mistakes = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag = argument.partition("=")[0]
        if flag.startswith("-"):
            nearest = nearest_flag(flag)
            hint = f"is {nearest} meant?" if nearest else f"see {DISTRIBUTION} serve --help"
            mistakes.append(f"{shown(flag)} is not a flag; {hint}")
        elif not before.startswith("-") or "=" in before:
            mistakes.append(f"{shown(argument)} belongs to no flag; see {DISTRIBUTION} serve --help")
    return mistakes


def report(mistakes: Sequence[str], warnings: Sequence[str]) -> int:
    """Say what is wrong with the settings, all at once, and return the exit code for it."""
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    lines = [f"{DISTRIBUTION}: {count} in the settings", *mistakes, *warnings]
    print("\n  ".join(lines), file=sys.stderr)
    return EXIT_MISTAKE


def report_missing(error: ModuleNotFoundError) -> int:
    """Say what to install; a missing module of the sidecar itself is a bug and stays an error."""
    if error.name is None or error.name.partition(".")[0] in ("sidecar", "celery_plugin"):
        raise error
    needed = f"pip install '{DISTRIBUTION}[server]'"
    print(f"{DISTRIBUTION}: {error.name} is not installed; this needs: {needed}", file=sys.stderr)
    return EXIT_NOT_INSTALLED


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "(not installed)"
