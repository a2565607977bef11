"""Python's collector of cycles, which halts everything while it looks at all objects there are.

With 1,000 viewers a full collection takes 60 ms and finds next to nothing: what is made for a request or a
stream goes when its last user has gone (`sidecar.http_protocol` breaks the cycles of a connection).
"""

from __future__ import annotations

import gc

# As Python has them: the young are looked at often, which takes microseconds.
_YOUNG, _MIDDLE = 700, 10
# A full collection when 350,000 more objects have come than gone, not 70,000: those of 5,000 streams, or 100
# MB of connections that do not go by themselves after all.
_OLD = 50


def collect_rarely() -> None:
    """Leave all that there is now, modules above all, out of collections to come; and make full ones rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
