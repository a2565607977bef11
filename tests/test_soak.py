"""The promise that what is shown is true in the end, whatever happens to workers and Redis meanwhile.

The long form is ``python -m bench soak``: 10,000 tasks, eleven troubles.
"""

from __future__ import annotations

import random

from bench.soak import soak


def test_what_is_shown_is_what_the_tasks_say() -> None:
    """Tasks of all kinds, a worker killed, one frozen for longer than its lease, Redis restarted empty: then
    nothing is held that is not, and each task has the one end that it wrote down itself."""
    said = soak(200, rate=25, chance=random.Random(1), troubles=("kill", "freeze", "empty"))
    assert said.startswith("200 tasks sent")
    assert "workers killed: 1," in said
