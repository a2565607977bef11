"""Holds what a client was told, id by id, against the log: nothing missed, nothing twice, no silent gap."""

from __future__ import annotations

import json

from celery_plugin.contract import JSON, Position
from sidecar.store import NOTHING_YET
from tests.support.told import BOOKMARK, FRESH_START, NOWHERE, RESUMED, Line, Told
from tests.support.truth import Entry, Truth


def faults_of(told: Told, truth: Truth, *, left: bool = False) -> list[str]:
    """What was wrong with a stream; one that was left need not have come to the end of the log."""
    examination = Examination(told, truth)
    for line in told.journal:
        examination.take(line)
    if not left:
        examination.end()
    return examination.faults


class Examination:
    """Goes through a journal."""

    def __init__(self, told: Told, truth: Truth) -> None:
        self.faults: list[str] = []
        self._asked, self._truth = told.asked, truth
        # Where the client is by all that it was told; None where a snapshot must come first.
        self._known: Position | None = None
        self._in_snapshot = False

    def end(self) -> None:
        """Hold the last id against the end of the log."""
        if self._known is None or self._known == NOWHERE:
            self._complain("was never told where it is")
        else:
            self._go_to(self._truth.last, "in the end")

    def take(self, line: Line) -> None:
        """Take the next line."""
        if line.kind in (FRESH_START, RESUMED):
            self._connect(line)
        elif line.kind == "reset":
            self._known = None
        elif line.kind == "snapshot":
            self._snapshot()
        elif line.kind == "live":
            self._live(line.position)
        elif line.position == NOWHERE:
            return
        elif line.position is not None:
            self._go_on(line, line.position)

    def _complain(self, what: str, position: Position | None = None) -> None:
        at = f" at {position}" if position else ""
        self.faults.append(f"{self._asked.name}{at}, behind {self._known}: {what}")

    def _connect(self, line: Line) -> None:
        if line.kind == FRESH_START:
            self._known = None
        elif self._in_snapshot and line.position == NOWHERE:
            # It has a part of a snapshot, which only a reset may replace.
            self._known = NOWHERE
        self._in_snapshot = False

    def _snapshot(self) -> None:
        if self._known is not None:
            self._complain("a snapshot without a reset")
        self._in_snapshot = True

    def _live(self, position: Position | None) -> None:
        if position is None:
            self._complain("live without an id")
            return
        if not self._in_snapshot or self._known is not None:
            self._complain("live without a snapshot", position)
        log = self._truth.logs.get(position.epoch, {})
        if position != NOTHING_YET and position.offset > max(log, default=position.offset):
            self._complain("live ahead of the log", position)
        self._known, self._in_snapshot = position, False

    def _go_on(self, line: Line, position: Position) -> None:
        entry = self._truth.at(position)
        if self._known is None:
            self._complain("an id before it is live", position)
        elif line.kind == BOOKMARK:
            self._go_to(position, "by an id alone")
        elif entry is None:
            self._complain("an id that was never given out", position)
        else:
            self._go_to(position._replace(offset=position.offset - 1), "")
            self._compare(line, position, entry)
        self._known = position

    def _go_to(self, position: Position, how: str) -> None:
        """Go on without an event that is wanted."""
        known = self._known
        if known is None:
            return
        if known == NOTHING_YET:
            known = Position(position.epoch, 0)
        if position.epoch != known.epoch:
            self._complain("another epoch, and nobody said so", position)
        elif position.offset < known.offset:
            self._complain("told twice", position)
        elif missed := list(self._truth.wanted_after(known, self._asked, position.offset)):
            self._complain(f"{len(missed)} missed {how}, the first is {missed[0]}", position)

    def _compare(self, line: Line, position: Position, entry: Entry) -> None:
        if not self._asked.may_pass(entry.event):
            self._complain("told what it did not ask for", position)
        elif line.text != entry.text and (
            not self._asked.values("include") or self._lean(line.text) != entry.event
        ):
            self._complain("told otherwise than the log", position)

    def _lean(self, text: str) -> JSON:
        return self._asked.without_extra(json.loads(text))
