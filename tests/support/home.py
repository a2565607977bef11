"""A Redis and the sidecar beside it, for all tests of a module."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from redis import Redis

from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.batches import Stored
from tests.support.sidecar_process import Sidecar, launch_sidecar, wait_until_alive

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

    def knows(self, stored: Stored) -> bool:
        """Whether the sidecar follows the log that stands there, and has measured that nothing else does."""
        sidecar = self.sidecar()
        if sidecar.get("/readyz").status_code != 200:
            return False
        with sidecar.events(headers=self._headers) as stream:
            stream.until_type("live")
            follows = stream.last_event_id.startswith(stored.log["epoch"])
        status = sidecar.get("/api/v1/queue/status", headers=self._headers).json()
        queues = [queue["name"] for queue in status["queues"]]
        return follows and queues == ["celery"] and MEASURED == {name: status[name] for name in MEASURED}

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
