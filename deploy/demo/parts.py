"""The parts of the demo: processes with a log, ended together."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from deploy.demo import child

POLL_SECONDS: Final = 0.05
# Together less than the five seconds that one waits for a Ctrl-C before pressing it again.
_POLITE_SECONDS: Final = 2.0
_HURRY_SECONDS: Final = 1.5


class Part:
    """A process of the demo and the file that its output goes to."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: dict[str, str],
        directory: Path,
        hurry: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        # What makes the process end now although it was already asked to end in good order.
        self._hurry = hurry
        with self.log.open("wb") as log:
            self._process = child.spawn(command, env=env, cwd=child.CHECKOUT, stdout=log)

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def output(self) -> str:
        """All that the process has said."""
        return self.log.read_text(errors="replace")

    def last_lines(self, count: int = 15) -> str:
        """The end of what the process has said."""
        return "\n".join(self.output().splitlines()[-count:])

    def ask_to_end(self) -> None:
        """Ask the process to finish what it does and end."""
        self._process.send_signal(signal.SIGTERM)

    def hurry(self) -> None:
        """Tell the process to end without finishing what it does."""
        self._process.send_signal(self._hurry)

    def kill(self) -> None:
        """Kill the process and its children."""
        child.kill_group(self._process)


def end_all(parts: Sequence[Part], impatient: Callable[[], bool]) -> None:
    """End all parts at the same time: politely, then in a hurry, then by force."""
    for part in parts:
        part.ask_to_end()
    if not _all_ended(parts, _POLITE_SECONDS, impatient):
        for part in parts:
            part.hurry()
        _all_ended(parts, _HURRY_SECONDS, impatient)
    for part in parts:
        part.kill()


def _all_ended(parts: Sequence[Part], seconds: float, impatient: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while any(part.running for part in parts):
        if impatient() or time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
