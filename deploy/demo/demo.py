"""What the demo runs, and how its parts find each other."""

from __future__ import annotations

import http.client
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy.demo.child import environment
from deploy.demo.parts import POLL_SECONDS, Part, end_all
from deploy.demo.ports import HOST
from deploy.demo.redis_server import RedisServer

# Celery alone takes one to two seconds of a fast processor; a shared machine may take ten.
READY_SECONDS: Final = 60.0


class DemoFailed(RuntimeError):
    """Raised when a part of the demo does not start, or ends by itself."""


class Demo:
    """Redis, worker, sidecar and producer."""

    def __init__(self, port: int, stop: Callable[[], bool]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="celery-sidecar-demo-"))
        self.redis = RedisServer(directory=self.directory / "redis")
        self.parts: list[Part] = []
        self._port = port
        self._stop = stop

    @property
    def sidecar_url(self) -> str:
        """Where the sidecar listens."""
        return f"http://{HOST}:{self._port}"

    def start(self) -> None:
        """Start all parts; return when a viewer would see the worker."""
        self.redis.start()
        worker = self._start_worker()
        self._start_sidecar()
        self._wait_until("the worker is ready", lambda: "ready." in worker.output())
        self._wait_until("the sidecar answers", lambda: _is_ready(self._port))
        self._start_producer()

    def run(self, seconds: float | None) -> None:
        """Watch over the parts until somebody or the clock ends the demo."""
        deadline = float("inf") if seconds is None else time.monotonic() + seconds
        while not self._stop() and time.monotonic() < deadline:
            self._check_parts()
            time.sleep(POLL_SECONDS)

    def end(self, impatient: Callable[[], bool]) -> None:
        """End all parts; Redis last, so that the others can still say goodbye."""
        end_all(self.parts, impatient)
        self.redis.close()

    def remove_logs(self) -> None:
        """Remove the directory with all that the parts have written."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start_worker(self) -> Part:
        command = [sys.executable, "-m", "celery", "--app=deploy.demo.app", "worker"]
        options = ["--pool=prefork", "--concurrency=2", "--loglevel=INFO", "--hostname=demo@%h"]
        # The one line that gives a worker the plugin; neither the command nor the code knows it.
        plugin = {"CELERY_WORKER_INCLUDE": "celery_plugin"}
        # SIGTERM lets the worker finish its tasks, SIGQUIT does not.
        return self._start_part("worker", command + options, plugin | self._celery, signal.SIGQUIT)

    def _start_sidecar(self) -> Part:
        settings = {
            "SIDECAR_HOST": HOST,
            "SIDECAR_PORT": str(self._port),
            "SIDECAR_REDIS_URL": self.redis.url,
        }
        return self._start_part("sidecar", [sys.executable, "-m", "sidecar", "serve"], settings)

    def _start_producer(self) -> Part:
        return self._start_part("producer", [sys.executable, "-m", "deploy.demo.producer"], self._celery)

    @property
    def _celery(self) -> dict[str, str]:
        return {"CELERY_BROKER_URL": self.redis.url, "CELERY_RESULT_BACKEND": self.redis.url_db(1)}

    def _start_part(
        self, name: str, command: list[str], variables: dict[str, str], hurry: signal.Signals = signal.SIGTERM
    ) -> Part:
        # A worker that is ended in a hurry leaves what it had in TMPDIR; the logs go, and that with them.
        env = environment(TMPDIR=str(self.directory), **variables)
        part = Part(name, command, env, self.directory, hurry)
        self.parts.append(part)
        return part

    def _wait_until(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not true() and not self._stop():
            self._check_parts()
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {READY_SECONDS:g} s until {what}; the logs are in {self.directory}")
            time.sleep(POLL_SECONDS)

    def _check_parts(self) -> None:
        # Redis first: when it is gone the others complain too, and theirs is not the cause.
        if not self.redis.running:
            raise DemoFailed(f"Redis has ended. The end of {self.redis.log}:\n\n{self.redis.last_lines()}")
        for part in self.parts:
            if not part.running:
                what = f"the {part.name} has ended with code {part.exit_code}"
                raise DemoFailed(f"{what}. The end of {part.log}:\n\n{part.last_lines()}")


def _is_ready(port: int) -> bool:
    # Not urllib: it would ask the proxy that the user's environment may name.
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
