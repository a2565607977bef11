"""How often an address may ask: a bucket for each that fills at a steady rate.

Streams are not counted here: a browser never comes back to one that was answered by anything but 200.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from sidecar.addresses import Network, client_address
from sidecar.paths import is_open, is_stream
from sidecar.problems import problem

# A page that opens asks several things at once; this many seconds' worth may come together.
BURST_SECONDS: Final = 2.0
# About 2 MB. Who was not heard of for longest goes first: most likely its bucket is full again.
ADDRESSES_MAX: Final = 10_000
# Of times that count from the start of the machine the last digits are lost: without this the first
# question of an address could be one too many.
ROUNDING_SECONDS: Final = 1e-3


class Rates:
    """Address → when its bucket is full again; empty ones and full ones need nothing else."""

    def __init__(self, per_second: float, addresses_max: int = ADDRESSES_MAX) -> None:
        self._interval = 1.0 / per_second
        self._burst = max(1.0, per_second * BURST_SECONDS) * self._interval
        self._addresses_max = addresses_max
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, address: str, now: float) -> float:
        """Take one from the bucket and return 0, or return in how many seconds there is one."""
        full_at = max(self._full_at.get(address, now), now) + self._interval
        wait = full_at - now - self._burst
        if wait > ROUNDING_SECONDS:
            return wait
        self._full_at[address] = full_at
        self._full_at.move_to_end(address)
        if len(self._full_at) > self._addresses_max:
            self._full_at.popitem(last=False)
        return 0.0


class RateLimit:
    """Answers 429 to an address that asks too often."""

    def __init__(self, app: ASGIApp, rates: Rates, trusted: Sequence[Network]) -> None:
        self._app = app
        self._rates = rates
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        wait = self._wait(scope) if scope["type"] == "http" else 0.0
        if not wait:
            await self._app(scope, receive, send)
            return
        headers = {"Retry-After": str(math.ceil(wait))}
        await problem(429, "this address asks too often", headers, code="too_many_requests")(
            scope, receive, send
        )

    def _wait(self, scope: Scope) -> float:
        if is_open(scope) or is_stream(scope):
            return 0.0
        address = client_address(scope, self._trusted)
        # A peer without an address is a proxy on a unix socket: all its clients would share one.
        return self._rates.take(address, time.monotonic()) if address else 0.0
