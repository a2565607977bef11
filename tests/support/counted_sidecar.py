"""The sidecar, run as ever, which says on SIGUSR1 how many tasks its event loop has."""

from __future__ import annotations

import asyncio
import signal
import sys
from types import FrameType

from sidecar.cli import main


def tell(number: int, frame: FrameType | None) -> None:
    """Print a line; the handler runs in the loop's thread, while the loop runs."""
    print(f"tasks: {len(asyncio.all_tasks())}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, tell)
    sys.exit(main())
