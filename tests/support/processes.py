"""Child processes of a test, whose output can be waited for."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

from deploy.demo import child
from tests.support.deadline import PATIENCE_SECONDS


class Process:
    """A running command; it dies with the test run, and `close` ends it with all its children.

    Start it in the main thread: Linux ends a child when the thread that made it ends.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path = child.CHECKOUT,
    ) -> None:
        self.name = name or Path(command[0]).name
        self._process = child.spawn(command, env=env or child.environment(), cwd=cwd, stdout=subprocess.PIPE)
        self._lines: list[str] = []
        self._ended = False  # Whether all who could write have closed the pipe.
        self._changed = threading.Condition()  # Protects the two above.
        self._reader = threading.Thread(target=self._read, name=f"output of {self.name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's id, which is also its group's."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        """Whether the process is there; a frozen one is."""
        return self.returncode is None

    @property
    def output(self) -> str:
        """All that the process and its children have said, both streams in order."""
        with self._changed:
            return "".join(self._lines)

    def wait_for_line(
        self, pattern: str, seconds: float = PATIENCE_SECONDS, *, after: int = 0
    ) -> re.Match[str]:
        """Wait for a line in which the pattern occurs, from line number `after` on."""
        deadline = monotonic() + seconds
        position = after
        with self._changed:
            while True:
                for line in self._lines[position:]:
                    if match := re.search(pattern, line):
                        return match
                position = len(self._lines)
                if self._ended or not self._changed.wait(deadline - monotonic()):
                    why = "its output ended" if self._ended else f"not within {seconds:g} s"
                    raise AssertionError(
                        f"no line {pattern!r} from {self.name}: {why}\n{''.join(self._lines)}"
                    )

    @property
    def line_count(self) -> int:
        """How many lines there are so far; give it to `wait_for_line` to see only later ones."""
        with self._changed:
            return len(self._lines)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for the end and return the exit code."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            standing = "\n".join(_stacks(pid) for pid in (self.pid, *sorted(descendants(self.pid))))
            raise AssertionError(
                f"{self.name} did not end within {seconds:g} s\n{self.output}\n{standing}"
            ) from None

    def send_signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        self._process.send_signal(number)

    def stop(self, seconds: float = PATIENCE_SECONDS, number: int = signal.SIGTERM) -> int:
        """Ask the process to end, wait for it, and return the exit code."""
        self.send_signal(number)
        return self.wait(seconds)

    def kill(self) -> None:
        """Kill the process and all its children, as a machine that loses its power would."""
        child.kill_group(self._process)

    def pause(self) -> None:
        """Freeze the process and its children."""
        child.signal_group(self._process, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        child.signal_group(self._process, signal.SIGCONT)

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        # A child that made a session of its own may still hold the pipe; it is not waited for.
        self._reader.join(5)
        if self._process.stdout and not self._reader.is_alive():
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None, "the output is piped"
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.decode(errors="replace"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def runs(pid: int) -> bool:
    """Tell whether a process of this machine runs; one that has ended and waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _stacks(pid: int) -> str:
    """Say where each thread of a Python process stands."""
    command = [str(Path(sys.executable).with_name("py-spy")), "dump", "--pid", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    return done.stdout or f"Process {pid}: {done.stderr}"


def descendants(pid: int) -> set[int]:
    """Find the processes that a process has started, and those that they have started."""
    parents = {int(path.parent.name): _parent(path) for path in Path("/proc").glob("[0-9]*/stat")}
    found: set[int] = set()
    generation = {pid}
    while generation:
        generation = {child for child, parent in parents.items() if parent in generation} - found
        found |= generation
    return found


def _parent(stat: Path) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(stat.read_text().rpartition(")")[2].split()[1])
    return 0  # It has ended since the directory was listed.
