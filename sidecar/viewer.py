"""One stream: where it is in the log, and how to send to it.

A viewer is in step when it has got what all others have; then it is but an entry of its audience. Only one
that is opening, or whose connection takes no more, has a task of its own until it is in step again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from celery_plugin.contract import Position
from sidecar.audience import Audience
from sidecar.feed import Link

Sending = Coroutine[Any, Any, None]
Sender = Callable[[Message], Sending]


class Viewer:
    """What is known of a stream."""

    __slots__ = (
        "audience", "came_with", "cycle", "epoch", "farewell", "figures", "left",
        "link", "place", "replayed_to", "scope", "send", "waiting_max",
    )  # fmt: skip

    def __init__(
        self,
        send: Sender,
        audience: Audience,
        came_with: Position | None,
        waiting_max: int | None,
    ) -> None:
        self.send = send
        # What is below the server's `send`; None where that is another server's.
        self.cycle = _cycle_of(send)
        self.audience = audience
        # The last id that it saw. Up to this place it is sent events alone, and then the view as it holds.
        self.came_with = came_with
        self.replayed_to: int | None = None
        self.waiting_max = waiting_max
        # None before it has been sent anything; not kept up to date while it is in step.
        self.place: int | None = None
        self.epoch = ""
        self.link = Link.LIVE
        self.figures = 0
        # The last words, once it is to end.
        self.farewell: bytes | None = None
        self.left = False
        # Of the task that brings it into step.
        self.scope: anyio.CancelScope | None = None

    @property
    def leaves(self) -> bool:
        """Whether it is to be sent nothing more but its last words."""
        return self.left or self.farewell is not None

    def abort(self) -> None:
        """Cut the connection: ASGI has no word for it, and closing waits for what was not taken."""
        if self.cycle is not None:
            self.cycle.transport.abort()


def _cycle_of(send: Sender) -> RequestResponseCycle | None:
    cycle = getattr(send, "__self__", None)
    return cycle if isinstance(cycle, RequestResponseCycle) else None


def chunk_of(piece: bytes) -> bytes:
    """A piece of an answer as HTTP has it on the wire, where the length of the answer is not known."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def body(chunk: bytes, *, last: bool = False) -> Message:
    """A piece of a stream; viewers that get the same piece share it."""
    return {"type": "http.response.body", "body": chunk, "more_body": not last}


class Unfinished:
    """A `send` that has been taken as far as it goes without waiting; awaited, it goes on from there."""

    def __init__(self, sending: Sending, waits_for: Any) -> None:
        self._sending = sending
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            while True:
                try:
                    yield self._waits_for
                except BaseException as error:  # the sender is to see it too, a cancellation for one
                    self._waits_for = self._sending.throw(error)
                else:
                    self._waits_for = self._sending.send(None)
        except StopIteration:
            return


def start(viewer: Viewer, message: Message) -> Unfinished | None:
    """Send without a task, as far as it goes without waiting; None where that was all."""
    sending = viewer.send(message)
    try:
        return Unfinished(sending, sending.send(None))
    except StopIteration:
        return None
