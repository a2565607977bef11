"""Python's collector does not halt the sidecar for what comes and goes."""

from __future__ import annotations

import subprocess
import sys

VIEWERS = """\
import gc
from sidecar.collector import collect_rarely

full = []
gc.callbacks.append(lambda phase, info: full.append(phase) if info["generation"] == 2 else None)
{start}
full.clear()
viewers = [[] for _ in range(200_000)]
print(len(full))
viewers += [[] for _ in range(400_000)]
print(len(full))
"""


def full_collections(start: str) -> list[int]:
    """How many there are in a process that gets 200,000 objects, and 400,000 more."""
    command = [sys.executable, "-c", VIEWERS.format(start=start)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return [int(line) for line in said.split()]


def test_they_are_rare() -> None:
    """What 1,000 viewers need makes none, which it does as Python is; a leak is found all the same."""
    usual, rare = full_collections(""), full_collections("collect_rarely()")
    assert usual[0] > 0
    assert 0 == rare[0]
    assert rare[1] > 0
