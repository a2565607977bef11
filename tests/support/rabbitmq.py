"""A real RabbitMQ on free ports of this machine, with files, cookie and port mapper of its own."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from deploy.demo import child
from deploy.demo.ports import HOST, free_port
from tests.support.deadline import eventually

# Erlang takes seconds to start, more on a machine that is busy with other tests.
START_SECONDS: Final = 90.0

# The one on PATH is Debian's wrapper, which changes to the service's user and directory.
_SERVERS: Final = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")
# Nothing for other machines.
_ERLANG_ARGUMENTS: Final = "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"


def missing() -> str | None:
    """Say what this machine lacks, None if it has everything."""
    if _server() is None:
        return "no rabbitmq-server here; install one (`apt-get install rabbitmq-server`)"
    return None if _port_mapper() else "no epmd here, which comes with Erlang"


def _server() -> str | None:
    return next(filter(None, map(shutil.which, _SERVERS)), None)


def _port_mapper() -> str | None:
    return shutil.which("epmd")


class RabbitServer:
    """A node that answers when `start` returns; `start` after `stop` or `kill` has what was durable."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
        self.log = self.directory / "rabbitmq.log"
        self.port, self._mapper_port, self._distribution_port = free_port(), free_port(), free_port()
        self._node = f"test-{secrets.token_hex(4)}@localhost"
        self._mapper: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The broker's URL."""
        return f"amqp://guest:guest@{HOST}:{self.port}//"

    def start(self) -> RabbitServer:
        """Start and wait until it takes connections."""
        # The node would start a mapper that outlives it and serves the whole machine.
        self._mapper = self._mapper or self._spawn([str(_port_mapper())])
        eventually(lambda: _listens(self._mapper_port), what="epmd listens")
        log_start = self.log.stat().st_size
        self._process = self._spawn([str(_server())])
        eventually(lambda: self._is_up_or_gone(log_start), START_SECONDS, what="RabbitMQ answers")
        assert self._process.poll() is None, f"RabbitMQ ended\n{self.last_lines()}"
        return self

    def stop(self, seconds: float = 30.0) -> None:
        """End the node as its administrator would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(seconds)
            self._process = None

    def ensure_running(self) -> None:
        """Start again where a test has left it stopped."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def control(self, *arguments: str) -> None:
        """Do what an administrator does with `rabbitmqctl`."""
        program = Path(str(_server())).with_name("rabbitmqctl")
        command = [str(program), "--node", self._node, *arguments]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def pause(self) -> None:
        """Freeze the node: its connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Leave nothing behind."""
        for process in filter(None, (self._process, self._mapper)):
            child.kill_group(process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def last_lines(self, count: int = 30) -> str:
        """The end of the node's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def _signal(self, number: int) -> None:
        assert self._process is not None, "the node does not run"
        child.signal_group(self._process, number)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return child.spawn(command, env=self._environment(), cwd=self.directory, stdout=log)

    def _environment(self) -> dict[str, str]:
        inside = self.directory
        return child.environment(
            # Where the cookie lies that Erlang makes for itself.
            HOME=str(inside),
            # One process from the shell on, so that signals reach it.
            RUNNING_UNDER_SYSTEMD="true",
            RABBITMQ_NODENAME=self._node,
            RABBITMQ_NODE_IP_ADDRESS=HOST,
            RABBITMQ_NODE_PORT=str(self.port),
            RABBITMQ_DIST_PORT=str(self._distribution_port),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=_ERLANG_ARGUMENTS,
            RABBITMQ_MNESIA_BASE=str(inside / "data"),
            RABBITMQ_LOG_BASE=str(inside),
            RABBITMQ_LOGS="-",
            RABBITMQ_ENABLED_PLUGINS_FILE=str(inside / "enabled_plugins"),
            RABBITMQ_CONF_ENV_FILE=str(inside / "none.conf"),
            RABBITMQ_CONFIG_FILE=str(inside / "none"),
            RABBITMQ_PID_FILE=str(inside / "pid"),
            ERL_EPMD_PORT=str(self._mapper_port),
            ERL_EPMD_ADDRESS=HOST,
            ERL_CRASH_DUMP=str(inside / "crash"),
        )

    def _is_up_or_gone(self, log_start: int) -> bool:
        assert self._process is not None, "it was started"
        said = self.log.read_bytes()[log_start:]
        return self._process.poll() is not None or (
            b"Server startup complete" in said and _listens(self.port)
        )


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=0.25):
            return True
    except OSError:
        return False
