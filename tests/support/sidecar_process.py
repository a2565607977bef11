"""The real sidecar in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import httpx

from deploy.demo.child import environment
from deploy.demo.ports import HOST, free_port
from tests.support.deadline import eventually
from tests.support.processes import Process
from tests.support.sse import EventStream


class Sidecar(Process):
    """A sidecar process and questions to it."""

    port: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask, whatever proxy the environment names."""
        with httpx.Client(base_url=self.url, trust_env=False) as client:
            return client.get(path, **options)

    def events(self, path: str = "/api/v1/queue/events", **options: Any) -> EventStream:
        """Open a stream; use it in a `with`."""
        return EventStream(self.url + path, **options)


def launch_sidecar(
    redis_url: str,
    *,
    port: int | None = None,
    arguments: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    module: str = "sidecar",
) -> Sidecar:
    """Start a sidecar without waiting; give `port` to take the place of one that was killed."""
    port = port or free_port()
    variables = {"SIDECAR_HOST": HOST, "SIDECAR_PORT": str(port), "SIDECAR_REDIS_URL": redis_url}
    sidecar = Sidecar(
        [sys.executable, "-m", module, "serve", *arguments],
        name=f"sidecar on {port}",
        env=environment(**variables | dict(env or {})),
    )
    sidecar.port = port
    return sidecar


def wait_until_alive(sidecar: Sidecar) -> None:
    """Wait until the sidecar answers /livez; whether it has reached Redis is another question."""
    eventually(lambda: not sidecar.running or _is_alive(sidecar), what=f"{sidecar.name} answers /livez")
    assert sidecar.running, f"{sidecar.name} ended with code {sidecar.returncode}\n{sidecar.output}"


def _is_alive(sidecar: Sidecar) -> bool:
    try:
        return sidecar.get("/livez").status_code == 200
    except httpx.TransportError:
        return False
