"""An event loop whose clients take turns: a few at a time, and between them all that is for everybody.

asyncio serves whatever sockets have something, in the order in which it came. When a thousand clients come,
go or ask in the same moment, what Redis has to tell would wait behind all of them, and all viewers with it.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections import ChainMap
from collections.abc import Mapping
from contextlib import suppress
from selectors import SelectorKey
from typing import Any, Final

# Each step of an event's way from Redis to the viewers may wait for as many: for each some 0.1 ms.
CLIENTS_A_TURN: Final = 4
# Of them such that go: nobody waits for that, and it takes 0.3 ms.
GOING_A_TURN: Final = 1
# In so many turns clients may be passed over where the loop has something to go on with: an event takes
# several turns on its way, and so does what was asked before.
PASSED_OVER: Final = 4
# So often it looks for some that ask something where it finds such that go, which can wait.
LOOKS: Final = 16
Ready = list[tuple[SelectorKey, int]]


def loop_factory() -> asyncio.AbstractEventLoop:
    """Make the loop; asyncio's own where there is no epoll: the sidecar is also tried on a Mac."""
    return TurnLoop() if hasattr(select, "epoll") else asyncio.new_event_loop()


if hasattr(select, "epoll"):
    _READS = select.EPOLLIN | select.EPOLLRDHUP
    _GOES = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class TurnLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, with `Turns`."""

    def __init__(self) -> None:
        self.turns = Turns()
        super().__init__(self.turns)


class Turns(selectors.BaseSelector):
    """Tells of every socket that has something, but of a few clients only."""

    def __init__(self) -> None:
        self._others = selectors.EpollSelector()
        self._of_clients = _Clients()
        # Which sockets are clients', open or not registered yet.
        self.clients: set[int] = set()
        self._passed_over = 0
        self._others.register(self._of_clients, selectors.EVENT_READ, _Clients)

    def add_client(self, fd: int) -> None:
        """Take a socket for a client's, from before it is registered until it is closed."""
        self.clients.add(fd)

    def forget_client(self, fd: int) -> None:
        """Take it for another one's from now on, who may get its number."""
        self.clients.discard(fd)

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """As any selector."""
        return self._of(fileobj).register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> SelectorKey:
        """As any selector."""
        return self._of(fileobj).unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """As any selector."""
        return self._of(fileobj).modify(fileobj, events, data)

    def get_key(self, fileobj: Any) -> SelectorKey:
        """As any selector."""
        return self._of(fileobj).get_key(fileobj)

    def get_map(self) -> Mapping[Any, SelectorKey]:
        """As any selector."""
        return ChainMap(dict(self._of_clients.keys), dict(self._others.get_map()))

    def select(self, timeout: float | None = None) -> Ready:
        """Wait; clients come last, and where something goes on (the loop does not wait) seldom."""
        ready = self._others.select(timeout)
        others = [each for each in ready if each[0].data is not _Clients]
        waits = len(others) < len(ready)
        if waits and timeout == 0 and self._passed_over < PASSED_OVER:
            self._passed_over += 1
            return others
        self._passed_over = 0
        return others + self._of_clients.ready() if waits else others

    def close(self) -> None:
        """As any selector."""
        self._of_clients.close()
        self._others.close()

    def _of(self, fileobj: Any) -> _Clients | selectors.EpollSelector:
        return self._of_clients if fileobj in self.clients else self._others


class _Clients:
    """What `selectors.EpollSelector` does, which cannot be told to tell of a few.

    The kernel tells of all others before it tells of one again.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.keys: dict[int, SelectorKey] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def register(self, fd: int, events: int, data: Any) -> SelectorKey:
        if fd in self.keys:
            raise KeyError(f"{fd} is already registered")
        self._epoll.register(fd, _mask(events))
        return self._keep(fd, events, data)

    def unregister(self, fd: int) -> SelectorKey:
        key = self.keys.pop(fd)
        with suppress(OSError):  # It has been closed.
            self._epoll.unregister(fd)
        return key

    def modify(self, fd: int, events: int, data: Any) -> SelectorKey:
        if events != self.keys[fd].events:
            self._epoll.modify(fd, _mask(events))
        return self._keep(fd, events, data)

    def get_key(self, fd: int) -> SelectorKey:
        return self.keys[fd]

    def ready(self) -> Ready:
        told = [(self.keys.get(fd), mask) for fd, mask in self._look().items()]
        return [(key, _events(mask) & key.events) for key, mask in told if key is not None]

    def _look(self) -> dict[int, int]:
        staying: dict[int, int] = {}
        going: dict[int, int] = {}
        room = CLIENTS_A_TURN
        for _ in range(LOOKS):
            seen = len(staying) + len(going)
            for fd, mask in self._epoll.poll(0, room):
                (going if mask & _GOES else staying)[fd] = mask
            found_fewer = len(staying) + len(going) < seen + room
            # There are such that go, and one of them does.
            room = CLIENTS_A_TURN - GOING_A_TURN - len(staying)
            if found_fewer or room <= 0:
                break
        for fd in list(going)[:GOING_A_TURN]:
            staying[fd] = going[fd]
        return staying

    def close(self) -> None:
        self.keys.clear()
        self._epoll.close()

    def _keep(self, fd: int, events: int, data: Any) -> SelectorKey:
        key = self.keys[fd] = SelectorKey(fd, fd, events, data)
        return key


def _mask(events: int) -> int:
    reads = _READS if events & selectors.EVENT_READ else 0
    return reads | (select.EPOLLOUT if events & selectors.EVENT_WRITE else 0)


def _events(mask: int) -> int:
    # An error or an end is for whoever waits for anything.
    reads = selectors.EVENT_READ if mask & ~select.EPOLLOUT else 0
    return reads | (selectors.EVENT_WRITE if mask & ~select.EPOLLIN else 0)
