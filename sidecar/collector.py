"""Python's collector of cycles, which halts everything while it looks at all objects there are.

With 1,000 viewers a full collection takes 60 ms and finds next to nothing: what is made for a request or a
stream goes when its last user has gone (`sidecar.http_protocol` breaks the cycles of a connection).
"""

from __future__ import annotations

import gc

# As Python has them: the young are looked at often, which takes microseconds.
_YOUNG, _MIDDLE = 700, 10
_UNIT = _YOUNG * _MIDDLE
# A full collection when 350,000 more objects have come than gone, not 70,000: 100 MB of connections that do
# not go by themselves after all.
_OLD = 50
# Streams that are open are no leak: with 5,000 of them a collection took 190 ms.
_OBJECTS_A_STREAM = 140


def collect_rarely() -> None:
    """Leave all that there is now, modules above all, out of collections to come; and make full ones rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def allow_for(streams: int) -> None:
    """Let so many streams be no reason for a full collection; nor the going of some, while others stay."""
    units = _OLD + streams * _OBJECTS_A_STREAM // _UNIT
    if units > gc.get_threshold()[2]:
        gc.set_threshold(_YOUNG, _MIDDLE, units)
