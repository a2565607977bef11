"""The sidecar, run as ever but without a collector of cycles, which says on SIGUSR1 what it has."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from types import FrameType

from sidecar.cli import main
from sidecar.turns import TurnLoop

PORT = int(os.environ["SIDECAR_PORT"])


def ask(number: int, frame: FrameType | None) -> None:
    """Let the loop tell in its next turn: here anything may be going on."""
    asyncio.get_running_loop().call_soon_threadsafe(tell)


def tell() -> None:
    """Print a line; connections to Redis that were given up in the midst of an answer are not counted."""
    transports = [each for each in gc.get_objects() if isinstance(each, asyncio.Transport)]
    clients = [each for each in transports if each.get_extra_info("sockname")[1:2] == (PORT,)]
    ended = sum(transport.is_closing() for transport in clients)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TurnLoop)
    tasks, known = len(asyncio.all_tasks()), len(loop.turns.clients)
    print(f"tasks: {tasks}, clients: {known}, ended connections: {ended}", flush=True)


if __name__ == "__main__":
    gc.disable()
    signal.signal(signal.SIGUSR1, ask)
    sys.exit(main())
