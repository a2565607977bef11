"""How far the viewers in step have been told."""

from __future__ import annotations

import anyio

from celery_plugin.contract import Position
from sidecar.audience import Audience
from sidecar.feed import Link
from sidecar.wanted import Piece


class Front:
    """Moved on by each round of the pump; who catches up goes as far as this and not further."""

    def __init__(self) -> None:
        self.place = 0
        # The id of the last event before that place.
        self.position = Position("", 0)
        self.link = Link.STARTING
        # (audience, from, to) → what more than one viewer may ask for on its way to the front.
        self.pieces: dict[tuple[Audience, int, int], Piece] = {}
        self._moved = anyio.Event()

    def move(self, place: int, position: Position) -> None:
        """Go on to a place."""
        self.place, self.position = place, position
        self.pieces.clear()
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

    async def wait(self) -> None:
        """Wait until it goes on."""
        await self._moved.wait()
