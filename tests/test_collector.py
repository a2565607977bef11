"""Python's collector does not halt the sidecar for what comes and goes."""

from __future__ import annotations

import subprocess
import sys

VIEWERS = """\
import gc
from sidecar.collector import allow_for, collect_rarely

full = []
gc.callbacks.append(lambda phase, info: full.append(phase) if info["generation"] == 2 else None)
{start}
full.clear()
viewers = [[] for _ in range(200_000)]
print(len(full))
viewers += [[] for _ in range(400_000)]
print(len(full))
"""


CROWD = """\
collect_rarely()
full.clear()
crowd = []
for streams in range(5_000):
    allow_for(streams)
    crowd.append([[] for _ in range(130)])
del crowd[::2]
crowd.append([[] for _ in range(20_000)])
print(len(full))
leak = [[] for _ in range(700_000)]
print(len(full))
"""


def full_collections(start: str) -> list[int]:
    """How many there are in a process that gets 200,000 objects, and 400,000 more."""
    return counted(VIEWERS.format(start=start))


def counted(program: str) -> list[int]:
    """What a program prints."""
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return [int(line) for line in said.split()]


def test_they_are_rare() -> None:
    """What 1,000 viewers need makes none, which it does as Python is; a leak is found all the same."""
    usual, rare = full_collections(""), full_collections("collect_rarely()")
    assert usual[0] > 0
    assert 0 == rare[0]
    assert rare[1] > 0


def test_a_crowd_is_no_leak() -> None:
    """While 5,000 streams come, and when some of them go, there is none, which would halt the others."""
    start = VIEWERS.partition("full.clear()")[0].format(start="")
    crowd, leak = counted(start + CROWD)
    assert 0 == crowd
    assert leak > 0
