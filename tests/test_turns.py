"""Clients take turns: what comes from elsewhere never waits for all of them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from deploy.demo.ports import HOST
from sidecar.listening import listen
from sidecar.turns import CLIENTS_A_TURN, GOING_A_TURN, PASSED_OVER, Turns

# With which asyncio asks where it has nothing else to do, in s; else it is 0.
NOTHING_GOES_ON = 0.001
CLIENTS = 3 * CLIENTS_A_TURN
Pair = tuple[socket.socket, socket.socket]


class Sockets:
    """Pairs of connected sockets, the first of which are registered with the loop's selector."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.turns = Turns()
        stack.callback(self.turns.close)

    def pair(self, name: str, *, is_client: bool = True) -> Pair:
        """Register one under a name."""
        ours, theirs = socket.socketpair()
        self._stack.callback(ours.close)
        self._stack.callback(theirs.close)
        if is_client:
            self.turns.add_client(ours.fileno())
        self.turns.register(ours.fileno(), EVENT_READ, name)
        return ours, theirs

    def ready(self) -> list[str]:
        """The names of those that have something, in the order in which they are served."""
        return [key.data for key, _ in self.turns.select(NOTHING_GOES_ON)]


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """A selector, and sockets that are closed afterwards."""
    with ExitStack() as stack:
        yield Sockets(stack)


def test_others_first(sockets: Sockets) -> None:
    """However many clients have come before, Redis is heard in the next turn, and before them."""
    for number in range(CLIENTS):
        sockets.pair(f"client {number}")[1].send(b"x")
    sockets.pair("redis", is_client=False)[1].send(b"x")
    ready = sockets.ready()
    assert "redis" == ready[0]
    assert CLIENTS_A_TURN >= len(ready[1:]) > 0


def test_what_goes_on_comes_first(sockets: Sockets) -> None:
    """Clients wait until what was begun has ended, yet not for ever; Redis is heard in each turn."""
    sockets.pair("client")[1].send(b"x")
    sockets.pair("redis", is_client=False)[1].send(b"x")
    for _ in range(2):
        for _ in range(PASSED_OVER):
            assert ["redis"] == [key.data for key, _ in sockets.turns.select(0)]
        assert ["redis", "client"] == [key.data for key, _ in sockets.turns.select(0)]
    assert ["redis", "client"] == sockets.ready()


def test_everybody_has_a_turn(sockets: Sockets) -> None:
    """Who is not served in a turn is in one of the next, also where those before have more to say."""
    for number in range(CLIENTS):
        sockets.pair(f"client {number}")[1].send(b"x")
    served = {name for _ in range(CLIENTS) for name in sockets.ready()}
    assert CLIENTS == len(served)


def test_who_asks_goes_before_who_leaves(sockets: Sockets) -> None:
    """Who asks something does not wait until a crowd has been seen off; one of them goes in each turn."""
    for number in range(CLIENTS):
        sockets.pair(f"leaves {number}")[1].close()
    sockets.pair("asks")[1].send(b"x")
    ready = sockets.ready()
    assert "asks" == ready[0]
    assert 1 + GOING_A_TURN == len(ready)


def test_a_few_at_most(sockets: Sockets) -> None:
    """Also where some ask and some leave, in whatever order they came."""
    for number in range(CLIENTS):
        sockets.pair(f"leaves {number}")[1].close()
        for asks in range(number % CLIENTS_A_TURN):
            sockets.pair(f"asks {number}, {asks}")[1].send(b"x")
    for _ in range(CLIENTS):
        assert CLIENTS_A_TURN >= len(sockets.ready()) > 0


def test_as_any_selector(sockets: Sockets) -> None:
    """Keys, changes and ends are what asyncio expects of a selector."""
    ours, _ = sockets.pair("one")
    fd = ours.fileno()
    assert "one" == sockets.turns.get_key(fd).data
    assert fd in sockets.turns.get_map()
    assert [] == sockets.ready()
    sockets.turns.modify(fd, EVENT_READ | EVENT_WRITE, "writes")
    assert [("writes", EVENT_WRITE)] == [
        (key.data, events) for key, events in sockets.turns.select(NOTHING_GOES_ON)
    ]
    with pytest.raises(KeyError):
        sockets.turns.register(fd, EVENT_READ, "twice")
    sockets.turns.unregister(fd)
    with pytest.raises(KeyError):
        sockets.turns.get_key(fd)
    sockets.turns.forget_client(fd)
    sockets.turns.register(fd, EVENT_WRITE, "another's")
    assert ["another's"] == sockets.ready()


def test_many_may_wait_to_be_let_in() -> None:
    """asyncio lets in as many at once as may wait, and says how many may wait: it is not asked."""
    with ExitStack() as stack:
        listener = stack.enter_context(listen(HOST, 0))
        listener.listen(CLIENTS_A_TURN)
        for _ in range(50):
            stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5))


WITHOUT_EPOLL = """\
import select
for name in [name for name in dir(select) if name.lower().startswith("epoll")]:
    delattr(select, name)
import sidecar.server
from sidecar.turns import TurnLoop, loop_factory
assert not isinstance(loop_factory(), TurnLoop)
"""


def test_a_system_without_epoll() -> None:
    """The sidecar is also tried on a Mac, which has none: asyncio's own loop does there."""
    subprocess.run([sys.executable, "-c", WITHOUT_EPOLL], check=True, timeout=60)
