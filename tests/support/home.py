"""A Redis and the sidecar beside it, for all tests of a module."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from redis import Redis

from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.batches import Stored
from tests.support.deadline import eventually
from tests.support.sidecar_process import Sidecar, launch_sidecar, wait_until_alive
from tests.support.sse import Event

# What the sidecar measures anew now and then, and not with each event.
MEASURED = {"pending_tasks": 0, "failed_last_hour": 0}


class Home:
    """Use it in a `with`; where the sidecar wants a token, `token` is one that reads everything."""

    def __init__(self, env: Mapping[str, str] | None = None, token: str = "") -> None:
        self.redis = RedisServer(*acl.arguments()).start()
        self._env = env
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._sidecar: Sidecar | None = None

    def empty(self) -> None:
        """Leave nothing of the last test."""
        with Redis.from_url(self.redis.url) as client:
            client.flushall()

    def sidecar(self) -> Sidecar:
        """Return the sidecar, a new one where the last test has killed it."""
        if self._sidecar is None or not self._sidecar.running:
            self._close_sidecar()
            self._sidecar = launch_sidecar(acl.as_user(self.redis.url), env=self._env)
            wait_until_alive(self._sidecar)
        return self._sidecar

    def settle(self, stored: Stored) -> None:
        """Wait until the sidecar follows the log that stands there, and knows that nothing else does."""
        sidecar, epoch, figures = self.sidecar(), stored.log["epoch"], dict[str, Any]()
        eventually(lambda: sidecar.get("/readyz").status_code == 200)

        def is_settled(event: Event) -> bool:
            if event.event == "snapshot":
                figures.update(event.data["queue_status"])
            elif event.event == "queue_status":
                figures.update(event.data)
            return (event.id or "").startswith(epoch) and _is_empty(figures)

        with sidecar.events(headers=self._headers) as stream:
            stream.until(is_settled)

    def __enter__(self) -> Home:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_sidecar()
        self.redis.close()

    def _close_sidecar(self) -> None:
        if self._sidecar is not None:
            self._sidecar.close()


def _is_empty(figures: dict[str, Any]) -> bool:
    queues = [queue["name"] for queue in figures["queues"]]
    return queues == ["celery"] and MEASURED == {name: figures[name] for name in MEASURED}
