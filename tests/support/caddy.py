"""A real Caddy with the configuration that is shipped, on free ports; without it tests are skipped."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import httpx

from deploy.demo.child import CHECKOUT, environment
from deploy.demo.ports import HOST, free_port
from tests.support.deadline import eventually
from tests.support.processes import Process

SHIPPED = CHECKOUT / "deploy" / "Caddyfile"


def find_caddy() -> str | None:
    """Find the program."""
    return shutil.which("caddy")


class Caddy(Process):
    """Caddy in front of sidecars on these ports; one of them is there."""

    def __init__(self, program: str, folder: Path, sidecars: list[int]) -> None:
        self.port = free_port()
        file = folder / f"Caddyfile-{self.port}"
        file.write_text(configuration(self.port, sidecars))
        super().__init__(
            [program, "run", "--config", str(file), "--adapter", "caddyfile"],
            name="caddy",
            # Where it would keep certificates.
            env=environment(XDG_DATA_HOME=str(folder), XDG_CONFIG_HOME=str(folder)),
        )
        eventually(lambda: not self.running or _passes_on(self.url), what="Caddy passes requests on")
        assert self.running, self.output

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"


def configuration(port: int, sidecars: list[int]) -> str:
    """The shipped configuration with these ports, without TLS and without Caddy's own interface."""
    servers = " ".join(f"{HOST}:{sidecar}" for sidecar in sidecars)
    text = SHIPPED.read_text()
    for pattern, ours in {
        r"^\{$": "{\n\tadmin off",
        r"^queue\.example\.com \{$": f"http://{HOST}:{port} {{",
        r"reverse_proxy 127\.0\.0\.1:8000 127\.0\.0\.1:8001 ": f"reverse_proxy {servers} ",
    }.items():
        text, count = re.subn(pattern, ours, text, flags=re.MULTILINE)
        assert count == 1, f"the shipped configuration has no {pattern} any more"
    return text


def _passes_on(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
