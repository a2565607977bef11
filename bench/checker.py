"""Whether clients of every kind are told everything once, for as long as one likes, while things break."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter

from tests.support.breaking import FAULTS, Site


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seconds", type=float, default=120, help="how long things break")
    parser.add_argument(
        "--seed", type=int, default=1, help="decides what breaks, and what tasks and clients do"
    )
    parser.add_argument("--rate", type=float, default=200, help="events a second, about")
    parser.add_argument("--clients", type=int, default=2, help="how many clients of each kind")


def run(arguments: argparse.Namespace) -> None:
    """Let things break by chance, then compare; exits with 1 where anything was missed or told twice."""
    chance, began, suffered = random.Random(arguments.seed), time.monotonic(), Counter[str]()
    with Site(arguments.seed, arguments.clients, arguments.rate) as site:
        while time.monotonic() - began < arguments.seconds:
            fault = chance.choice(FAULTS)
            site.suffer(fault)
            suffered[fault] += 1
        report = site.finish()
    print(", ".join(f"{number} x {fault}" for fault, number in sorted(suffered.items())))
    resets = ", ".join(f"{number} x {reason}" for reason, number in sorted(Counter(report.resets).items()))
    print(
        f"{report.events} events, {report.seen} told to {report.clients} clients over {report.connections} "
        f"connections; resets: {resets or 'none'}; missed, repeated or wrong: {len(report.faults)}"
    )
    for fault in report.faults[:20]:
        print(fault)
    if report.faults:
        sys.exit(1)
