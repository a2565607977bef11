"""The daemon: make the parts, listen, serve until a signal, end cleanly."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from types import FrameType

import anyio
import uvicorn
from redis.asyncio import Redis

from celery_plugin.capture import Capture
from celery_plugin.contract import Keys
from sidecar import processes
from sidecar.access import Access
from sidecar.amqp import AmqpWatcher
from sidecar.app import Parts, make_app
from sidecar.audience import Audiences
from sidecar.backlog import Backlog
from sidecar.beginning import Beginnings
from sidecar.broker import BrokerWatcher
from sidecar.catching_up import CatchingUp
from sidecar.collector import collect_rarely
from sidecar.connections import make_client
from sidecar.drain import Drain
from sidecar.feed import Feed
from sidecar.freed import give_back
from sidecar.front import Front
from sidecar.guard import make_access
from sidecar.http_protocol import HttpProtocol
from sidecar.limits import Limits, allowed_by_system
from sidecar.listening import listen, reserve
from sidecar.lost import View
from sidecar.metrics import Metrics
from sidecar.pending import Pending
from sidecar.pulse import Measured, Pulse
from sidecar.pump import Pump
from sidecar.queries import Queries
from sidecar.settings import Settings
from sidecar.snapshot import Snapshots
from sidecar.status import StatusBoard
from sidecar.store import Store
from sidecar.stream import Streams
from sidecar.subscriber import Subscriber
from sidecar.tally import Tally, count_in
from sidecar.task_beginning import TaskBeginnings, find_nothing
from sidecar.turns import CLIENTS_A_TURN, loop_factory
from sidecar.urls import is_amqp, masked_url

logger = logging.getLogger(__name__)

# Streams are told to end; this is for a viewer that does not take the end.
GRACE_SECONDS = 5
# Several times what a process takes to end, besides the time for its streams.
END_SECONDS = 20


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    try:
        access = make_access(settings)
    except ValueError as error:
        logger.error("the keys of tokens cannot be read: %s", error)
        return 1
    tally = Tally(settings.workers)
    if settings.workers == 1:
        return _serve_here(settings, access, tally)
    try:
        reserved = reserve(settings.host, settings.port)
    except OSError as error:
        return _cannot_listen(settings, error)
    with reserved:
        settings = replace(settings, port=reserved.getsockname()[1])
        serve_one = partial(_serve_here, settings, access, tally)
        return processes.run(settings.workers, serve_one, settings.drain_seconds + END_SECONDS)


def _serve_here(settings: Settings, access: Access, tally: Tally, line: processes.Line | None = None) -> int:
    count_in(tally, line.number if line is not None else 0)
    try:
        listener = listen(settings.host, settings.port, shares=line is not None)
    except OSError as error:
        return _cannot_listen(settings, error)
    with listener:
        anyio.run(_serve, settings, access, listener, line, backend_options={"loop_factory": loop_factory})
    return 0


def _cannot_listen(settings: Settings, error: OSError) -> int:
    logger.error("cannot listen on %s port %d: %s", settings.host, settings.port, error.strerror)
    return 1


async def _serve(
    settings: Settings, access: Access, listener: socket.socket, line: processes.Line | None
) -> None:
    async with _parts(settings) as parts, anyio.create_task_group() as tasks:
        tasks.start_soon(parts.run)
        tasks.start_soon(give_back, lambda: parts.pump.dismissed)
        config = uvicorn.Config(
            make_app(parts, settings, access),
            root_path=settings.root_path,
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # It would believe whatever X-Forwarded-For a client on this machine sends.
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            # So many are let in at once; how many may wait for it is the listener's own affair.
            backlog=CLIENTS_A_TURN,
        )
        host, port = listener.getsockname()[:2]
        logger.info("listening on http://%s:%d, reading %s", host, port, masked_url(settings.redis_url))
        server = _Server(config, parts.drain, is_child=line is not None)
        if line is not None:
            tasks.start_soon(line.obey, server.leave, server.hurry)
            line.say_listening()
        collect_rarely()
        await server.serve([listener])
        tasks.cancel_scope.cancel()
    logger.info("stopped")


@asynccontextmanager
async def _parts(settings: Settings) -> AsyncIterator[Parts]:
    key = Keys(settings.prefix).log
    client = make_client(settings.redis_url, key=key)
    subscriptions = make_client(settings.redis_url, protocol=2, key=key)
    broker = _broker_client(settings)
    try:
        yield _wire(settings, client, subscriptions, broker)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(1):
            for each in filter(None, (client, subscriptions, broker)):
                await each.aclose()


def _wire(settings: Settings, client: Redis, subscriptions: Redis, broker: Redis | None) -> Parts:
    database = client.connection_pool.connection_kwargs.get("db") or 0
    keys = Keys(settings.prefix, int(database))
    store, feed, measured = Store(client, keys), Feed(), Measured()
    view = View(feed)
    status = StatusBoard(feed, measured, settings.queues)
    watcher = BrokerWatcher(broker, settings.queues, status.note_change) if broker is not None else None
    pending = None
    if broker is not None and watcher is not None:
        status.reads(watcher)
        capture = Capture(settings.capture, settings.capture_max_chars, settings.redact)
        pending = Pending(broker, watcher, capture)
    front, audiences = Front(), Audiences(status)
    backlog = Backlog(store, feed)
    find_pending = pending.record if pending is not None else find_nothing
    task_beginnings = TaskBeginnings(feed, store, backlog, find_pending)
    beginnings = Beginnings(Snapshots(feed, status), task_beginnings)
    catching_up = CatchingUp(feed, front, beginnings, backlog, view)
    pump = Pump(feed, front, status, audiences, catching_up)
    drain = Drain(pump, settings.drain_seconds)
    limits = Limits(allowed_by_system(settings.max_streams), settings.max_streams_per_address)
    return Parts(
        status=status,
        task_beginnings=task_beginnings,
        pump=pump,
        drain=drain,
        streams=Streams(pump, audiences, limits, drain, settings.trusted_proxies),
        queries=Queries(feed, status, store, pending),
        metrics=Metrics(store, feed, status),
        subscriber=Subscriber(subscriptions, keys, store, feed, view),
        pulse=Pulse(store, feed, view, measured, settings.queues, _amqp_watcher(settings)),
        broker=watcher,
    )


def _broker_client(settings: Settings) -> Redis | None:
    if settings.broker_redis_url is not None:
        return make_client(settings.broker_redis_url)
    if not is_amqp(settings.broker_url):
        logger.info("the broker is no Redis that is known: only workers can say how many tasks wait in it")
    return None


def _amqp_watcher(settings: Settings) -> AmqpWatcher | None:
    if not is_amqp(settings.broker_url):
        return None
    logger.info("asking %s how many tasks wait", masked_url(settings.broker_url))
    return AmqpWatcher(settings.broker_url)


class _Server(uvicorn.Server):
    """Ends the streams when it is told to stop; uvicorn alone would wait for them for ever.

    Also, on purpose: the exit code is 0 after a signal, where uvicorn raises the signal once more.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, *, is_child: bool) -> None:
        super().__init__(config)
        self._drain = drain
        self._is_child = is_child

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A child's parent knows whether it is the second one: what is sent to all of them comes in twice.
        if self.should_exit and not self._is_child:
            self.hurry()
        self.leave()

    def leave(self) -> None:
        """Begin to stop."""
        self.should_exit = True
        self._drain.begin()

    def hurry(self) -> None:
        """Wait for no stream any more."""
        self.force_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Meanwhile it goes on listening, so that whoever asks /readyz is told not to send anybody here.
        await self._drain.run(lambda: self.force_exit)
        if self.force_exit:
            self._abort_connections()
        await super().shutdown(sockets)

    def _abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
