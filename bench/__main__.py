"""Run the measurements: ``python -m bench`` for all of them, ``python -m bench latency`` for one."""

from __future__ import annotations

import argparse

from bench import (
    checker,
    fanout,
    fuzz,
    hostile,
    ingest,
    latency,
    overhead,
    peers,
    pending,
    queries,
    size,
    soak,
    viewer,
)

BENCHES = {
    "latency": latency,
    "pending": pending,
    "ingest": ingest,
    "fanout": fanout,
    "queries": queries,
    "peers": peers,
    "size": size,
    "overhead": overhead,
    "soak": soak,
    "checker": checker,
    "fuzz": fuzz,
    "hostile": hostile,
    "viewer": viewer,
}


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="bench")
    for name, module in BENCHES.items():
        command = commands.add_parser(name, help=module.__doc__)
        module.add_arguments(command)
    arguments = parser.parse_args()
    for name in [arguments.bench] if arguments.bench else BENCHES:
        print(f"== {name}", flush=True)
        BENCHES[name].run(commands.choices[name].parse_args([]) if arguments.bench is None else arguments)


if __name__ == "__main__":
    main()
