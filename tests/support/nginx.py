"""A real nginx with the configuration that is shipped, on free ports; without it tests are skipped."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
from pathlib import Path

from deploy.demo.child import CHECKOUT
from deploy.demo.ports import HOST, free_port
from tests.support.deadline import eventually
from tests.support.processes import Process

SHIPPED = CHECKOUT / "deploy" / "nginx.conf"
# Debian has it where only root looks for programs.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
WORKERS = 2
# What each worker says to which another configuration does not apply any more.
_STEPS_DOWN = "gracefully shutting down"
# What stands around the shipped configuration, as in Debian's nginx.conf.
_AROUND = """\
daemon off;
{user}
worker_processes {workers};
pid nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include {folder}/celery-sidecar.conf;
}}
"""


def find_nginx() -> str | None:
    """Find the program."""
    return shutil.which("nginx", path=_PATH)


class Nginx(Process):
    """nginx in front of sidecars on these ports."""

    def __init__(self, program: str, folder: Path, sidecars: list[int]) -> None:
        self.port = free_port()
        self._sidecars = sidecars
        self.folder = folder = folder / f"nginx-{self.port}"
        folder.mkdir()
        self._configure()
        # Its workers are not to change to a user who cannot write into the folder.
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(_AROUND.format(user=user, folder=folder, workers=WORKERS))
        super().__init__([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], name="nginx")
        eventually(lambda: not self.running or _listens(self.port), what="nginx listens")
        assert self.running, self.output

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def take_out(self, *sidecars: int) -> None:
        """Send nobody to the sidecars on these ports any more, and only to these not; streams go on."""
        told = self._log.count(_STEPS_DOWN)
        self._configure(*sidecars)
        self.send_signal(signal.SIGHUP)
        eventually(lambda: self._log.count(_STEPS_DOWN) == told + WORKERS, what="nginx has loaded it")

    def _configure(self, *without: int) -> None:
        text = configuration(self.port, self._sidecars, self.folder)
        for port in without:
            text = text.replace(f":{port} max_fails=0;", f":{port} max_fails=0 down;")
        (self.folder / "celery-sidecar.conf").write_text(text)

    @property
    def _log(self) -> str:
        return (self.folder / "error.log").read_text()

    @property
    def requests(self) -> list[str]:
        """The lines of its access log: one for each request that has ended."""
        return (self.folder / "celery-sidecar.log").read_text().splitlines()

    @property
    def complaints(self) -> list[str]:
        """The lines of its error log that are no mere information."""
        return [line for line in self._log.splitlines() if "[info]" not in line and "[notice]" not in line]


def configuration(port: int, sidecars: list[int], logs: Path) -> str:
    """The shipped configuration with these ports, and with its logs there."""
    servers = "".join(f"    server {HOST}:{sidecar} max_fails=0;\n" for sidecar in sidecars)
    text = SHIPPED.read_text()
    for pattern, ours in {
        r"listen 8080;": f"listen {HOST}:{port};",
        r"(?:    server 127\.0\.0\.1:\d+ max_fails=0;\n)+": servers,
        r"/var/log/nginx/": f"{logs}/",
    }.items():
        text, count = re.subn(pattern, ours, text)
        assert count == 1, f"the shipped configuration has no {pattern} any more"
    return text


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=0.25):
            return True
    except OSError:
        return False
