"""What one call of ``record.lua`` is told, and how that goes into its arguments.

Steps of runs are nearly all of it. They go as one argument, their parts one behind the other: four arguments
a run cost the worker's process seven times as much.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from celery_plugin.texts import size

# Between the parts of what goes as one argument. JSON escapes it, and no sane id has it.
_SEPARATOR = "\x1f"
_PARTS: Final = 6


class Operation(NamedTuple):
    """Steps of one run, of which facts and extra are the same.

    ``task`` counts always, ``end`` only if the run is open, ``lost`` only if also its worker's lease has
    ended; then ``counted``, two fields of counters, says where. ``worker``, ``facts`` and ``extra`` are JSON,
    ``steps`` lines as `record` has them.
    """

    run: str
    worker: str
    task_id: str
    facts: str
    extra: str
    steps: str
    kind: str = "task"
    counted: tuple[str, str] = ("", "")

    @property
    def key(self) -> str:
        """Of the steps of one run only the newest matters while Redis is away."""
        return self.run

    @property
    def of(self) -> str:
        """Whose it is, for people."""
        return self.task_id

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return size(_SEPARATOR.join(self[:_PARTS]))

    @property
    def events(self) -> int:
        """How many events it makes at most."""
        return self.steps.count("\n") + 1

    def arguments(self) -> tuple[str, ...]:
        """As the script reads it where it stands alone."""
        head = f"{self.kind}\t{self.run}\t{self.worker}\t{self.task_id}"
        arguments = (head, self.steps, self.facts, self.extra)
        return arguments if self.kind != "lost" else (*arguments, "\t".join(self.counted))


class Other(NamedTuple):
    """An operation that is no step of a run: its kind and what the script reads behind it.

    Of those with the same key only the newest matters while Redis is away.
    """

    key: str
    parts: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What it does."""
        return self.parts[0]

    @property
    def of(self) -> str:
        """Whose it is, for people."""
        return self.parts[-1]

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return size("\t".join(self.parts))

    @property
    def events(self) -> int:
        """How many events it makes at most."""
        return 1

    def arguments(self) -> tuple[str, ...]:
        """As the script reads it."""
        return ("\t".join(self.parts),)


def pack(operations: Iterable[Operation | Other]) -> list[bytes]:
    """Make the script's arguments; what UTF-8 cannot hold becomes ``?``."""
    arguments: list[bytes] = []
    together: list[str] = []
    for one in operations:
        if one.kind == "task":
            together += one[:_PARTS]  # type: ignore[arg-type]  # an Operation, whose first parts are texts
            continue
        if together:
            arguments += _packed(together)
            together = []
        arguments += map(_encode, one.arguments())
    return arguments + _packed(together) if together else arguments


def _packed(parts: list[str]) -> list[bytes]:
    # The application gives names and ids as it likes; the other parts are JSON and numbers.
    if _SEPARATOR not in "".join(parts[::_PARTS] + parts[2::_PARTS]):
        return [_encode(_SEPARATOR.join(["tasks", *parts]))]
    several = zip(*[iter(parts)] * _PARTS, strict=True)
    return [_encode(argument) for each in several for argument in Operation(*each).arguments()]


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")
