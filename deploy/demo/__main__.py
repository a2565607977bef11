"""``python -m deploy.demo``: start everything, say what to try, end everything."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from celery_plugin.contract import Keys
from deploy.demo.demo import Demo, DemoFailed
from deploy.demo.ports import HOST, is_free
from deploy.demo.redis_server import RedisDidNotStart, RedisNotFound, find_client

_TEXT: Final = """\
A Celery worker, a producer and the sidecar are running. In another terminal:

  curl -N {sidecar}/api/v1/queue/events
  curl {sidecar}/api/v1/queue/status
  {redis_cli} HGETALL {active_tasks}

The logs are in {logs}. Ctrl-C ends all of it.
"""


class Interrupts:
    """Count what Ctrl-C, SIGTERM and a closed terminal have asked for."""

    def __init__(self) -> None:
        self._count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def end(self) -> bool:
        """Whether to end in good order."""
        return self._count > 0

    def kill(self) -> bool:
        """Whether somebody asked twice."""
        return self._count > 1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._count += 1


def main() -> int:
    """Run the demo and return its exit code."""
    options = _parse_arguments()
    interrupts = Interrupts()
    if not is_free(options.port):
        return _fail(f"port {options.port} of {HOST} is in use; choose another with --port or SIDECAR_PORT")
    try:
        with _running_demo(options.port, interrupts) as demo:
            if not options.quiet and not interrupts.end():
                print(_what_to_try(demo), flush=True)
            demo.run(options.seconds)
    except (DemoFailed, RedisNotFound, RedisDidNotStart) as error:
        return _fail(str(error))
    return 0


@contextmanager
def _running_demo(port: int, interrupts: Interrupts) -> Iterator[Demo]:
    demo = Demo(port, stop=interrupts.end)
    try:
        demo.start()
        yield demo
    except BaseException:
        demo.end(interrupts.kill)
        if not demo.parts:  # Else there are logs, and somebody will read them.
            demo.remove_logs()
        raise
    demo.end(interrupts.kill)
    demo.remove_logs()


def _what_to_try(demo: Demo) -> str:
    return _TEXT.format(
        sidecar=demo.sidecar_url,
        redis_cli=f"{shlex.quote(find_client())} -p {demo.redis.port}",
        active_tasks=Keys().active_tasks,
        logs=demo.directory,
    )


def _fail(message: str) -> int:
    print(f"demo: {message}", file=sys.stderr, flush=True)
    return 1


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    default = os.environ.get("SIDECAR_PORT") or "8000"
    parser.add_argument(
        "--port", type=_port, default=default, help="port of the sidecar (default: $SIDECAR_PORT, else 8000)"
    )
    parser.add_argument("--seconds", type=float, help="end by itself after this many seconds")
    parser.add_argument("--quiet", action="store_true", help="do not say what to try")
    return parser.parse_args()


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
