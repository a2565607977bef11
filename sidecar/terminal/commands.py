"""The commands for a terminal, as `celery-sidecar` and `celery -A proj sidecar` have them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.doctor.command import add_doctor_flags, doctor
from sidecar.settings import BadSettings
from sidecar.terminal.output import prepare
from sidecar.terminal.status import add_status_flags, status
from sidecar.terminal.watch import add_watch_flags, watch


@dataclass(frozen=True)
class Command:
    """What a command is for, its flags, what runs it, and what its exit codes mean."""

    text: str
    description: str
    codes: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Mapping[str, str]], int]


COMMANDS: Final = {
    "status": Command(
        "print the figures of now",
        "Ask a sidecar once how many tasks there are, in which queues, and how many workers.",
        "0 there is an answer, 1 there is none (it says why), 2 a mistake in flags or variables",
        add_status_flags,
        status,
    ),
    "watch": Command(
        "watch the queue live",
        "Show figures, queues, workers and tasks as they change, until q or Ctrl-C. Where the output is no "
        "terminal it writes lines. When the connection breaks it says so and comes back by itself.",
        "0 it was left, 1 the sidecar refuses (it says why), 2 a mistake in flags or variables, 128 and more "
        "ended by a signal",
        add_watch_flags,
        watch,
    ),
    "doctor": Command(
        "look for what is wrong, and say what to do",
        "Look at Redis, rights, workers, plugin, clocks, broker and queues, with the settings of serve, and "
        "at a sidecar where --url names one. It writes nothing.",
        "0 all is well, 1 warnings, 2 something is broken, or a mistake in flags or variables",
        add_doctor_flags,
        doctor,
    ),
}


def add_command(commands: argparse._SubParsersAction[Any], name: str) -> None:
    """Describe a command beside others."""
    command = COMMANDS[name]
    parser = commands.add_parser(name, help=command.text, allow_abbrev=False)
    _describe(parser, command)


def run_alone(program: str, name: str, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command whose name was read already; raises BadSettings."""
    parser = argparse.ArgumentParser(prog=f"{program} {name}", allow_abbrev=False)
    _describe(parser, COMMANDS[name])
    arguments, unknown = parser.parse_known_args(argv)
    return run(name, arguments, unknown, environ)


def run(name: str, arguments: argparse.Namespace, unknown: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command; raises BadSettings."""
    if unknown:
        # None is repeated: it may be a token.
        raise BadSettings([f"argument {number + 1} belongs to no flag" for number, _ in enumerate(unknown)])
    prepare()
    return COMMANDS[name].run(arguments, environ)


def _describe(parser: argparse.ArgumentParser, command: Command) -> None:
    parser.description = command.description
    parser.epilog = f"exit codes: {command.codes}"
    command.add_flags(parser)
