"""The TypeScript types are those of the document."""

from __future__ import annotations

from deploy.api_types import FILE, make_types
from sidecar.schemas import SCHEMAS


def test_they_are_those_of_the_document() -> None:
    """Whoever changes an answer makes them anew, with `make types`."""
    assert make_types() == FILE.read_text()


def test_each_schema_has_a_type() -> None:
    """What the document names can be named in a program."""
    exported = {line.split()[2] for line in make_types().splitlines() if line.startswith("export ")}
    assert {*SCHEMAS, "Answers"} == exported
