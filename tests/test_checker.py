"""Clients of every kind, while what can break breaks: none misses an event, or sees one twice, untold."""

from __future__ import annotations

import pytest

from sidecar.control import STARTING_OVER
from tests.support.breaking import FAULTS, Site
from tests.support.checking import Looks, Reader, Stretch
from tests.support.sse import Parser

EPOCH = "0123456789abcdef"


@pytest.mark.parametrize("faults", [FAULTS[:4], FAULTS[4:]], ids="-".join)
def test_nobody_is_told_a_story_with_a_gap(faults: tuple[str, ...]) -> None:
    """In the end everyone's state is Redis's, and each id was seen once, or its absence announced."""
    with Site(seed=1) as site:
        for fault in faults:
            site.suffer(fault)
        report = site.finish()
    assert [] == report.faults, report
    assert report.events > 1000


# -- the checker itself


def told(offset: int, task_id: str = "a", epoch: str = EPOCH) -> str:
    """An event of the log as a stream has it."""
    data = f'{{"type":"task_status","task_id":"{task_id}","status":"active","previous":null}}'
    return f"event: task_status\nid: {epoch}-{offset}\ndata: {data}\n\n"


BEGIN = (
    'event: snapshot\ndata: {"type":"snapshot","tasks":[],"workers":[]}\n\n'
    f'event: live\nid: {EPOCH}-7\ndata: {{"position":"{EPOCH}-7"}}\n\n'
)
RESET = 'event: reset\ndata: {"reason":"behind"}\n\n'


@pytest.mark.parametrize(
    ("stream", "wrong"),
    [
        (BEGIN + told(8) + told(9), False),
        (BEGIN + told(8) + RESET + BEGIN.replace("-7", "-12") + told(13), False),
        (BEGIN + told(9), True),  # a hole
        (BEGIN + told(8) + told(8), True),  # twice
        (BEGIN + told(8, epoch="f" * 16), True),
        (told(8), True),  # an event and an id before it is live
        (BEGIN + BEGIN, True),  # a snapshot out of the blue
        (BEGIN + f"id: {EPOCH}-9\n\n", True),  # it says that it is where it is not
    ],
)
def test_it_sees_what_is_wrong(stream: str, wrong: bool) -> None:
    """A stream that lost, repeated or hid something is found out."""
    reader, parser = Reader(Looks("all")), Parser()
    reader.opened()
    for piece in stream.split("\n\n")[:-1]:
        for event in parser.feed(f"{piece}\n\n".encode()):
            reader.take(event)
        reader.mark(parser.last_event_id)
    assert wrong == bool(reader.faults), reader.faults


def test_it_does_not_mind_how_a_stream_is_cut() -> None:
    """What a network makes of it is no fault of the stream's."""
    stream = (
        f"id: {STARTING_OVER}\n\n" + BEGIN + told(8) + f"id: {STARTING_OVER}\n\n" + RESET + BEGIN
    ).encode()
    for cut in range(len(stream)):
        reader, parser = Reader(Looks("all")), Parser()
        reader.opened()
        for piece in (stream[:cut], stream[cut:]):
            for event in parser.feed(piece):
                reader.take(event)
            reader.mark(parser.last_event_id)
        assert [] == reader.faults, stream[:cut]
        assert [[8], []] == [stretch.seen for stretch in reader.stretches]


def test_it_sees_what_a_filter_swallowed() -> None:
    """Of a filtered stream it is the log that says what should have come."""
    reader = Reader(Looks("a", matches=lambda task: task["task_id"] == "a"))
    reader.stretches = [Stretch(EPOCH, 7, 9, [9])]
    event = {"type": "task_status", "task_id": "a", "status": "active", "previous": None}
    assert [] != list(reader.missed({EPOCH: {8: event, 9: event}}))
    assert [] == list(reader.missed({EPOCH: {8: event | {"task_id": "b"}, 9: event}}))
