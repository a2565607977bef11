"""The command ``status``: the figures of now."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping

from celery_plugin.contract import JSON
from sidecar.terminal.asking import STATUS, NoAnswer, ask
from sidecar.terminal.frame import queue_table
from sidecar.terminal.lines import Line, render
from sidecar.terminal.output import say, tell_mistake
from sidecar.terminal.plain import FIGURES, dumped
from sidecar.terminal.screen import has_colours
from sidecar.terminal.target import add_target_flags, read_target
from sidecar.terminal.text import duration, number


def add_status_flags(parser: argparse.ArgumentParser) -> None:
    """Describe the flags."""
    add_target_flags(parser)
    parser.add_argument("--json", action="store_true", help="the answer as the sidecar gives it")


def status(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Ask once and print the answer; raises BadSettings."""
    target = read_target(arguments, environ)
    try:
        figures = ask(target, STATUS)
    except NoAnswer as error:
        return tell_mistake(f"{target.url}: {error}")
    if arguments.json:
        say(dumped(figures))
        return 0
    width = shutil.get_terminal_size().columns if os.isatty(1) else 1000
    colours = sys.stdout.isatty() and has_colours(environ)
    for line in _lines(figures, width):
        say(render(line, width, colours=colours).rstrip())
    return 0


def _lines(figures: JSON, width: int) -> list[Line]:
    lines: list[Line] = [
        [(f"{name:<24}", ""), (f"{number(figures.get(key)):>10}", "title")]
        for name, key in FIGURES
        if key in figures
    ]
    if isinstance(oldest := figures.get("oldest_waiting_s"), int | float):
        lines.append([("oldest waiting ", ""), (f"{'≥ ' + duration(oldest):>19}", "title")])
    return lines + queue_table(figures, width)
