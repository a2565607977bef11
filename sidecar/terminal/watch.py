"""The command ``watch``: what the queue does, as it happens."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from sidecar.terminal.asking import NoAnswer
from sidecar.terminal.follow import Follower
from sidecar.terminal.live import end_quietly, watch_live
from sidecar.terminal.output import say, tell_mistake
from sidecar.terminal.plain import json_lines, plain_lines
from sidecar.terminal.screen import is_terminal
from sidecar.terminal.target import Target, add_target_flags, read_target

_FILTERS: Final = (
    ("--task", "task_id", "ID", "only this task; may be repeated, as each of these"),
    ("--name", "task_name", "NAME", "only tasks of this name; * stands for any characters"),
    ("--queue", "queue", "QUEUE", "only tasks of this queue"),
    ("--status", "status", "STATUS", "only tasks in this status, or that leave it"),
    ("--worker", "worker", "WORKER", "only tasks of this worker"),
)
# With a filter only tasks would come.
_TYPES: Final = ("types", "task_status,worker_status,queue_status")


class _Left(Exception):
    """Raised by SIGTERM while lines are written."""


def add_watch_flags(parser: argparse.ArgumentParser) -> None:
    """Describe the flags."""
    add_target_flags(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--plain", action="store_true", help="a line an event, as where there is no terminal")
    form.add_argument("--json", action="store_true", help="a JSON object a line")
    for flag, name, metavar, what in _FILTERS:
        parser.add_argument(flag, dest=name, action="append", default=[], metavar=metavar, help=what)


def watch(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Watch until told to stop; raises BadSettings."""
    target = read_target(arguments, environ)
    parameters = [(name, value) for _, name, _, _ in _FILTERS for value in getattr(arguments, name)]
    parameters += [_TYPES] if parameters else []
    try:
        if arguments.json or arguments.plain or not is_terminal(0, 1):
            return _write_lines(arguments.json, target, parameters)
        return watch_live(target, parameters, environ)
    except NoAnswer as error:
        return tell_mistake(f"{target.url}: {error}")


def _write_lines(as_json: bool, target: Target, parameters: list[tuple[str, str]]) -> int:
    form: Any = json_lines if as_json else plain_lines
    try:
        with _ended_by_sigterm():
            for line in form(Follower(target, parameters)):
                say(line)
                sys.stdout.flush()
    except KeyboardInterrupt:
        return 0
    except _Left:
        return 128 + signal.SIGTERM
    except BrokenPipeError:
        end_quietly()
    return 0


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    def leave(number: int, frame: FrameType | None) -> None:
        raise _Left

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
