"""The rounds in which viewers get what has come in: one loop sends to all of them.

Each round gives every viewer whatever has come since the last one, joined once. Where there is much to do
rests come between the rounds: the busier it is the more goes in one piece. A round takes each viewer's ASGI
``send`` as far as it goes without waiting, which costs no task and no switch; a viewer that would have to be
waited for gets a task that finishes it and catches up.

Below ASGI, on purpose: where the server is uvicorn and the connection takes more, the chunk is made once and
written to the transport. uvicorn's ``send`` makes it for each viewer, which was a quarter of what is left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from typing import NamedTuple

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from starlette.types import Message

from celery_plugin.contract import Position
from sidecar import control
from sidecar.audience import Audience, Audiences
from sidecar.catching_up import CatchingUp
from sidecar.event_log import Frame, bare_id
from sidecar.feed import Feed
from sidecar.figures import Figures
from sidecar.front import Front
from sidecar.rests import Rests
from sidecar.status import StatusBoard
from sidecar.tally import CUT, SENT, counts
from sidecar.viewer import Unfinished, Viewer, body, chunk_of
from sidecar.wanted import Piece

logger = logging.getLogger(__name__)

# A viewer whose connection is slow holds what one round gives it: about 300 KB.
ROUND_FRAMES = 500
# About 1 ms; then whoever else waits for the loop has a turn.
TURN_VIEWERS = 100
# Twice: a silence of HEARTBEAT_SECONDS at most.
BEAT_SECONDS = 5.0
SILENCE_SECONDS = 10.0
# A viewer that is told little is told the id of now before the log in Redis loses what it knows.
BOOKMARK_EVENTS = 5000


class Gift(NamedTuple):
    """What viewers get in a round; both are fixed at its beginning, since viewers come meanwhile."""

    audience: Audience
    viewers: list[Viewer]
    piece: Piece


class Pump:
    """Owns the tasks of all viewers."""

    def __init__(
        self,
        feed: Feed,
        front: Front,
        status: StatusBoard,
        audiences: Audiences,
        catching_up: CatchingUp,
        rest: float = 1.0,
    ) -> None:
        self._feed = feed
        self._front = front
        self._status = status
        self._audiences = audiences
        self._catching_up = catching_up
        # In the order in which they came.
        self.viewers: dict[Viewer, None] = {}
        # How many were here and have gone.
        self.dismissed = 0
        # 0 for a test that does not wait.
        self._rests = Rests(time.monotonic(), rest)
        self._beat_at = 0.0
        # How many viewers were sent something since others had a turn.
        self._turn = 0
        self._tasks: TaskGroup

    async def run(self) -> None:
        """Make rounds for ever."""
        async with anyio.create_task_group() as self._tasks:
            self._beat_at = time.monotonic() + BEAT_SECONDS
            while True:
                self._turn = 0
                with anyio.move_on_after(self._beat_at - time.monotonic()):
                    await self._news()
                started = time.monotonic()
                await self._round()
                if self._beat_at <= started:
                    await self._beat()
                ended = time.monotonic()
                await anyio.sleep(self._rests.after(ended - started, ended))

    def admit(self, viewer: Viewer) -> None:
        """Let a viewer begin."""
        self.viewers[viewer] = None
        self._tasks.start_soon(self._catch_up, viewer, None)

    def dismiss(self, viewer: Viewer) -> None:
        """Forget a viewer whose connection has ended."""
        viewer.left = True
        self.dismissed += 1
        del self.viewers[viewer]
        self._audiences.leave(viewer)
        if viewer.scope is not None:
            viewer.scope.cancel()

    def part_with(self, viewer: Viewer, last_words: bytes) -> None:
        """Let a stream end with these words, as soon as its connection takes them."""
        viewer.farewell = last_words
        if viewer in viewer.audience.in_step:
            self._send([viewer], body(last_words, last=True))
        else:
            # It may wait for something to come.
            self._feed.wake()

    async def _news(self) -> None:
        while not self._has_news():
            await self._feed.wait()

    def _has_news(self) -> bool:
        front = self._front
        return (
            front.place != self._feed.log.end or bool(self._status.news) or front.link is not self._feed.link
        )

    async def _round(self) -> None:
        log, front = self._feed.log, self._front
        if not log.holds_place(front.place):
            self._leave_behind()
            return
        frames = log.between(front.place, min(log.end, front.place + ROUND_FRAMES))
        is_all = front.place + len(frames) == log.end
        figures = self._status.take_news() if is_all else ()
        gifts = self._gifts(frames, figures)
        # Before anything is sent: who catches up meanwhile goes as far as this round.
        front.move(front.place + len(frames), log.position if is_all else self._position_at(frames[-1]))
        for gift in gifts:
            await self._give(gift)
        if is_all and front.link is not self._feed.link:
            await self._tell_link()

    def _gifts(self, frames: list[Frame], news: Collection[Figures]) -> list[Gift]:
        concerned = self._audiences.concerned(frames)
        for audience in self._audiences.told_of(news):
            concerned.setdefault(audience, [])
        gifts = []
        for audience, passing in concerned.items():
            piece = audience.wanted.join(passing)
            if audience.figures in news and audience.wanted.has_figures:
                piece = piece._replace(chunk=piece.chunk + audience.figures.frame)
            gifts.append(Gift(audience, list(audience.in_step), piece))
            # What this sidecar says itself has no id.
            with_id = next((frame for frame in reversed(passing) if not frame.view), None)
            audience.note(self._position_at(with_id) if with_id is not None else audience.knows)
        return gifts

    def _position_at(self, frame: Frame) -> Position:
        return Position(self._feed.position.epoch, frame.offset)

    async def _tell_link(self) -> None:
        link, told = self._feed.link, control.link(self._feed)
        self._front.link = link
        for audience in self._audiences:
            viewers = [viewer for viewer in audience.in_step if viewer.link is not link]
            for viewer in viewers:
                viewer.link = link
            await self._give(Gift(audience, viewers, Piece(told)))

    async def _beat(self) -> None:
        now = time.monotonic()
        self._beat_at = now + BEAT_SECONDS
        for audience in self._audiences:
            silent = now - audience.spoken_to_at >= SILENCE_SECONDS
            if chunk := self._sign(audience, silent):
                audience.note(self._front.position)
                await self._give(Gift(audience, list(audience.in_step), Piece(chunk)))

    def _sign(self, audience: Audience, silent: bool) -> bytes:
        """What an audience is told that had nothing to hear: the id of now where that is news."""
        here, knows = self._front.position, audience.knows
        if audience.wanted.everything or here == knows:
            return control.HEARTBEAT if silent else b""
        is_late = here.epoch != knows.epoch or here.offset - knows.offset >= BOOKMARK_EVENTS
        return bare_id(here) if silent or is_late else b""

    async def _give(self, gift: Gift) -> None:
        message = body(gift.piece.chunk, last=gift.piece.last)
        counts().add(SENT, gift.piece.events * len(gift.viewers))
        for first in range(0, len(gift.viewers), TURN_VIEWERS):
            viewers = gift.viewers[first : first + TURN_VIEWERS]
            if self._turn + len(viewers) > TURN_VIEWERS:
                self._turn = 0
                await anyio.lowlevel.checkpoint()
            self._turn += len(viewers)
            self._send(viewers, message)

    def _send(self, viewers: Iterable[Viewer], message: Message) -> None:
        last, on_the_wire = not message["more_body"], chunk_of(message["body"])
        for viewer in viewers:
            # It may have gone since the round began.
            if viewer.left:
                continue
            # Not in a function of its own: this is where the time goes.
            cycle = viewer.cycle
            if cycle is not None and not (last or cycle.flow.write_paused or cycle.disconnected):
                cycle.transport.write(on_the_wire)
                continue
            sending = viewer.send(message)
            try:
                waits_for = sending.send(None)
            except StopIteration:
                if last:
                    self._end(viewer)
            except Exception as error:
                self._give_up(viewer, error)
            else:
                self._let_finish(viewer, Unfinished(sending, waits_for), last=last)

    def _let_finish(self, viewer: Viewer, unfinished: Unfinished, *, last: bool) -> None:
        self._take_out_of_step(viewer)
        viewer.left = viewer.left or last
        self._tasks.start_soon(self._catch_up, viewer, unfinished)

    def _end(self, viewer: Viewer) -> None:
        viewer.left = True
        viewer.audience.in_step.pop(viewer, None)

    def _leave_behind(self) -> None:
        """The log has lost what those in step need next: they catch up, by a new snapshot."""
        for audience in self._audiences:
            for viewer in list(audience.in_step):
                self._take_out_of_step(viewer)
                self._tasks.start_soon(self._catch_up, viewer, None)
        self._front.move(self._feed.log.end, self._feed.log.position)

    def _take_out_of_step(self, viewer: Viewer) -> None:
        front = self._front
        viewer.audience.in_step.pop(viewer, None)
        viewer.place, viewer.epoch = front.place, front.position.epoch
        viewer.figures = viewer.audience.figures.told

    async def _catch_up(self, viewer: Viewer, unfinished: Unfinished | None) -> None:
        try:
            await self._catching_up.run(viewer, unfinished)
        except Exception as error:
            # Raised, it would end every other stream as well.
            self._give_up(viewer, error)
        finally:
            viewer.scope = None

    def _give_up(self, viewer: Viewer, error: Exception) -> None:
        logger.error("a stream is cut, after a fault of the sidecar's own", exc_info=error)
        counts().add(CUT, value="fault")
        self._end(viewer)
        viewer.abort()
