"""Brings one viewer to where the others are: from its first byte, or from where it took no more."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from celery_plugin.contract import Position
from sidecar import control
from sidecar.audience import Audience
from sidecar.backlog import Backlog, rebased
from sidecar.beginning import Beginning, Beginnings
from sidecar.event_log import bare_id
from sidecar.feed import Feed, Link
from sidecar.front import Front
from sidecar.lost import View
from sidecar.store import StoreUnavailable
from sidecar.tally import CUT, RESETS, SENT, counts
from sidecar.viewer import Unfinished, Viewer, body, start
from sidecar.wanted import Piece, Wanted

# What is sent in one piece: a viewer that does not read holds this much, about 150 KB.
PIECE_FRAMES = 250
# A connection that takes nothing for so long is cut; ASGI alone would hold it for ever.
STALLED_SECONDS = 20.0
# Proxies cut a connection that is silent for 30 to 60 s.
HEARTBEAT_SECONDS = 15.0
AGAIN_SECONDS = 0.5


class CatchingUp:
    """Runs as a task of the viewer, and ends when it is in step, or has gone."""

    def __init__(
        self,
        feed: Feed,
        front: Front,
        beginnings: Beginnings,
        backlog: Backlog,
        view: View,
    ) -> None:
        self._feed = feed
        self._front = front
        self._beginnings = beginnings
        self._backlog = backlog
        self._view = view

    async def run(self, viewer: Viewer, unfinished: Unfinished | None = None) -> None:
        """Send what a viewer has not got yet."""
        with anyio.CancelScope() as viewer.scope:
            if unfinished is not None:
                await self._patiently(viewer, unfinished)
            while not viewer.leaves:
                if await self._is_in_step(viewer):
                    viewer.audience.in_step[viewer] = None
                    return
            if not viewer.left:
                await self._send(viewer, viewer.farewell or b"", last=True)

    async def _is_in_step(self, viewer: Viewer) -> bool:
        """Send one piece; True where there was none to send, and then no time has passed."""
        front = self._front
        if viewer.place is None:
            await self._open(viewer)
        elif not self._feed.log.holds_place(viewer.place):
            await self._start_over(viewer, "behind" if viewer.epoch == self._feed.position.epoch else "epoch")
        elif viewer.replayed_to is not None:
            await self._replay(viewer, viewer.place, viewer.replayed_to)
        elif viewer.place < front.place:
            await self._follow(viewer, viewer.place)
        elif viewer.place > front.place:
            await front.wait()
        elif viewer.link is not self._feed.link:
            await self._tell_link(viewer)
        elif viewer.audience.wanted.has_figures and viewer.figures < viewer.audience.figures.told:
            await self._send(viewer, self._figures(viewer))
        else:
            return True
        return False

    async def _open(self, viewer: Viewer) -> None:
        await self._send(viewer, control.RETRY)
        if self._feed.link is not Link.LIVE:
            await self._tell_link(viewer)
        while self._feed.link is Link.STARTING and not viewer.leaves:
            await self._rest(viewer)
        if viewer.link is not self._feed.link:
            await self._tell_link(viewer)
        if viewer.came_with is None or viewer.leaves:
            await self._start_over(viewer, None)
        else:
            await self._resume(viewer, viewer.came_with)

    async def _resume(self, viewer: Viewer, came_with: Position) -> None:
        """Go on from the id that a viewer came with, or say why that cannot be."""
        reason = _never_resumes(viewer.audience.wanted, came_with)
        if reason is not None:
            await self._start_over(viewer, reason)
            return
        while not viewer.leaves:
            try:
                reason = await self._backlog.reach(came_with)
            except StoreUnavailable:
                await self._until_asked_again(viewer)
                continue
            if reason is not None:
                await self._start_over(viewer, reason)
                return
            log, known = self._feed.log, rebased(self._feed, came_with)
            viewer.came_with, viewer.epoch = known, known.epoch
            viewer.place, viewer.replayed_to = log.place_after(known.offset), log.end
            return

    async def _until_asked_again(self, viewer: Viewer) -> None:
        if self._feed.link is Link.LIVE:
            # The subscriber has not noticed yet.
            await anyio.sleep(AGAIN_SECONDS)
            return
        if viewer.link is not self._feed.link:
            await self._tell_link(viewer)
        await self._rest(viewer)

    async def _rest(self, viewer: Viewer) -> None:
        with anyio.move_on_after(HEARTBEAT_SECONDS) as quiet:
            await self._feed.wait()
        if quiet.cancelled_caught:
            await self._send(viewer, control.HEARTBEAT)

    async def _start_over(self, viewer: Viewer, reason: str | None) -> None:
        """Send the state, and follow from there."""
        wanted = viewer.audience.wanted
        beginning = await self._make_beginning(viewer)
        if beginning is None:
            return
        if reason:
            counts().add(RESETS, value=reason)
        viewer.came_with, viewer.replayed_to = None, None
        viewer.place, viewer.epoch = beginning.place, beginning.position.epoch
        before = control.starting_over(reason)
        for number in range(len(beginning)):
            if viewer.leaves:
                return
            part, is_last = beginning.part(number), number == len(beginning) - 1
            after = self._figures(viewer) if is_last and not beginning.last and wanted.has_figures else b""
            await self._send(viewer, before + part + after, last=is_last and beginning.last)
            before = b""

    async def _make_beginning(self, viewer: Viewer) -> Beginning | None:
        while not viewer.leaves:
            try:
                return await self._beginnings.make(viewer.audience.wanted, viewer.waiting_max)
            except StoreUnavailable:
                await self._until_asked_again(viewer)
        return None

    async def _replay(self, viewer: Viewer, place: int, until: int) -> None:
        """Send what a viewer has missed: of the log each event, of the view what holds now."""
        wanted, end = viewer.audience.wanted, min(until, place + PIECE_FRAMES)
        told = self._feed.log.between(place, end)
        frames = [frame for frame in told if not frame.view]
        after = b""
        if end == until and viewer.came_with is not None:
            here = Position(viewer.epoch, told[-1].offset) if told else viewer.came_with
            frames += self._view.since(viewer.came_with)
            viewer.came_with, viewer.replayed_to = None, None
            # Without a word it could not tell that it has missed nothing.
            after = self._figures(viewer) if wanted.has_figures else bare_id(here)
        viewer.place = end
        piece = wanted.join(wanted.passing(frames))
        counts().add(SENT, piece.events)
        await self._send(viewer, piece.chunk if piece.last else piece.chunk + after, last=piece.last)

    async def _follow(self, viewer: Viewer, place: int) -> None:
        end = min(self._front.place, place + PIECE_FRAMES)
        viewer.place = end
        piece = self._piece(viewer.audience, place, end)
        counts().add(SENT, piece.events)
        await self._send(viewer, piece.chunk, last=piece.last)

    def _piece(self, audience: Audience, place: int, end: int) -> Piece:
        key, wanted = (audience, place, end), audience.wanted
        piece = self._front.pieces.get(key)
        if piece is None:
            piece = wanted.join(wanted.passing(self._feed.log.between(place, end)))
            self._front.pieces[key] = piece
        return piece

    def _figures(self, viewer: Viewer) -> bytes:
        figures = viewer.audience.figures
        viewer.figures = figures.version
        return figures.frame

    async def _tell_link(self, viewer: Viewer) -> None:
        viewer.link = self._feed.link
        await self._send(viewer, control.link(self._feed))

    async def _send(self, viewer: Viewer, chunk: bytes, *, last: bool = False) -> None:
        if chunk or last:
            unfinished = start(viewer, body(chunk, last=last))
            if unfinished is not None:
                await self._patiently(viewer, unfinished)
        if last:
            viewer.left = True
        # Many catch up at the same time, and none is to hold up the others.
        await anyio.lowlevel.checkpoint()

    async def _patiently(self, viewer: Viewer, unfinished: Unfinished) -> None:
        with anyio.move_on_after(STALLED_SECONDS) as patience:
            await unfinished
        if patience.cancelled_caught:
            viewer.left = True
            counts().add(CUT, value="stalled")
            viewer.abort()


def _never_resumes(wanted: Wanted, came_with: Position) -> str | None:
    """Why nobody can go on from an id, whatever the log holds; None where that depends on the log."""
    if came_with == control.STARTING_OVER:
        return "behind"
    # What is lost by lease stands in no log, so neither does that it is so no longer.
    return "lost" if "lost" in wanted.tasks.statuses else None
