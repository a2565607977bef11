"""The types of the fixtures that start something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from deploy.demo.redis_server import RedisServer
from tests.support.caddy import Caddy
from tests.support.celery_worker import Worker
from tests.support.nginx import Nginx
from tests.support.processes import Process
from tests.support.sidecar_process import Sidecar


class StartRedis(Protocol):
    """Start one more Redis."""

    def __call__(self, *arguments: str, port: int | None = None) -> RedisServer: ...


class StartProcess(Protocol):
    """Start a command."""

    def __call__(
        self, command: Sequence[str], *, name: str = "", env: dict[str, str] | None = None
    ) -> Process: ...


class StartWorker(Protocol):
    """Start a worker; the options are those of `launch_worker`."""

    def __call__(self, broker: str | None = None, *, ready: bool = True, **options: Any) -> Worker: ...


class StartSidecar(Protocol):
    """Start a sidecar; the options are those of `launch_sidecar`."""

    def __call__(self, redis_url: str | None = None, *, ready: bool = True, **options: Any) -> Sidecar: ...


class StartNginx(Protocol):
    """Start nginx in front of sidecars."""

    def __call__(self, *sidecars: Sidecar) -> Nginx: ...


class StartCaddy(Protocol):
    """Start Caddy in front of sidecars."""

    def __call__(self, *sidecars: Sidecar) -> Caddy: ...
