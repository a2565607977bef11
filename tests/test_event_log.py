"""The log in memory has no hole, and knows what it holds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_plugin.contract import LogEntry, Position
from sidecar.event_log import EventLog, Frame, make_frame, sse
from tests.support.sse import Parser

EPOCH, OTHER = "0123456789abcdef", "fedcba9876543210"


def entry(offset: int) -> LogEntry:
    """An event with this offset."""
    return LogEntry(offset, b'{"type":"task_status","offset":%d}' % offset, b'{"args":"secret"}')


def frame(offset: int) -> Frame:
    """The same, ready to be sent."""
    return make_frame(EPOCH, entry(offset), {"type": "task_status"})


def log_at(offset: int, appended: int = 0, length: int = 10) -> EventLog:
    """A log that began at an offset, with so many events since."""
    log = EventLog(length)
    log.restart(Position(EPOCH, offset))
    for number in range(offset + 1, offset + 1 + appended):
        log.append(entry(number), {"type": "task_status"})
    return log


def offsets(log: EventLog, offset: int) -> list[int]:
    """What is behind an offset."""
    return [each.offset for each in log.after(offset)]


def test_a_frame() -> None:
    """A frame is one event with its id, and without the extra."""
    [event] = Parser().feed(frame(7).lean)
    assert ("task_status", f"{EPOCH}-7", 7) == (event.event, event.id, event.data["offset"])
    assert b"secret" not in frame(7).lean


def test_an_event_that_cannot_be_read() -> None:
    """Viewers get its id and dispatch nothing."""
    log, parser = log_at(6), Parser()
    log.append(LogEntry(7, b"non\n\nsense", b""), None)
    [skipped] = log.after(6)
    assert [] == parser.feed(skipped.lean + b"\n")
    assert f"{EPOCH}-7" == parser.last_event_id


@given(st.text(), st.text(min_size=1))
def test_no_text_breaks_out(text: str, name: str) -> None:
    """Whatever text JSON holds, it arrives as it is in one event of the type that was meant."""
    data = json.dumps({"text": text, name: 1}, ensure_ascii=False).encode("utf-8", "replace")
    [event] = Parser().feed(sse("task_status", data, Position(EPOCH, 1)))
    assert ("task_status", f"{EPOCH}-1", data.decode()) == (event.event, event.id, event.text)


@given(st.text(min_size=1), st.binary())
def test_no_type_breaks_out(kind: str, data: bytes) -> None:
    """Not even a type, or data that is no JSON, begins another event."""
    parser = Parser()
    text = kind.encode("utf-8", "replace").decode()
    assert len(parser.feed(sse(text, data, Position(EPOCH, 1)))) == 1
    assert f"{EPOCH}-1" == parser.last_event_id


@pytest.mark.parametrize("offset", [5, 6, 8, 0])
def test_a_hole_is_a_fault(offset: int) -> None:
    """An event that does not follow the last one is never taken."""
    with pytest.raises(AssertionError, match="does not follow"):
        log_at(6).append(entry(offset), {"type": "task_status"})


def test_put_back() -> None:
    """What is put back comes before the rest, without a seam."""
    log = log_at(6, appended=2)
    log.put_back([frame(5), frame(6)])
    assert [5, 6, 7, 8] == offsets(log, 4)
    log.put_back([])
    with pytest.raises(AssertionError, match="does not come before"):
        log.put_back([frame(3)])


def test_restart() -> None:
    """Nothing of before is held after a restart."""
    log = log_at(0, appended=5)
    log.restart(Position(OTHER, 3))
    assert [] == offsets(log, 3)
    assert (True, False, False) == (
        log.holds(Position(OTHER, 3)),
        log.holds(Position(OTHER, 2)),
        log.holds(Position(EPOCH, 3)),
    )


def test_no_place_of_before_is_held() -> None:
    """However much is put back into a log that began anew: who stood in the old one has missed the change."""
    log = log_at(6, appended=3)
    before = [log.place_after(offset) for offset in range(6, 10)]
    log.restart(Position(OTHER, 5))
    log.put_back([make_frame(OTHER, entry(offset), {"type": "task_status"}) for offset in range(1, 6)])
    assert [False] * 4 == [log.holds_place(place) for place in before]
    assert log.holds_place(log.place_after(0))


def test_adopt() -> None:
    """The first epoch is taken over by a log that has nothing."""
    log = EventLog()
    log.restart(Position("0" * 16, 0))
    log.adopt(EPOCH)
    log.append(entry(1), {"type": "task_status"})
    assert [1] == offsets(log, 0)


def test_a_view() -> None:
    """What the log does not say has its place between its frames, and no id; it is never replayed."""
    log = log_at(6, appended=1)
    place = log.end
    log.append_view("task_status", b'{"type":"task_status"}')
    log.append(entry(8), {"type": "task_status"})
    [view, event] = log.since(place)
    assert ((7, True), (8, False)) == ((view.offset, view.view), (event.offset, event.view))
    [seen] = Parser().feed(view.lean)
    assert ("task_status", False) == (seen.event, seen.own_id)
    assert [7, 8] == offsets(log, 6)


def test_a_view_before_all_else() -> None:
    """What is put back stands before it, although it has the offset of the last event."""
    log = log_at(6)
    log.append_view("task_status", b"{}")
    assert 7 == log.first
    log.put_back([frame(6)])
    assert ([6], 6) == (offsets(log, 5), log.first)


def test_places() -> None:
    """A place is held until a frame behind it has gone, and never after a restart."""
    log = log_at(0, appended=3, length=4)
    place = log.end
    log.append_view("task_status", b"{}")
    assert (True, True) == (log.holds_place(place), log.holds_place(log.end))
    for offset in range(4, 7):
        log.append(entry(offset), {"type": "task_status"})
    assert (True, [3, 4, 5, 6]) == (log.holds_place(place), [each.offset for each in log.since(place)])
    log.append(entry(7), {"type": "task_status"})
    assert not log.holds_place(place)
    end = log.end
    log.restart(Position(EPOCH, 7))
    assert (False, True, []) == (log.holds_place(end), log.holds_place(log.end), list(log.since(log.end)))


@given(
    began=st.integers(0, 20),
    appended=st.integers(0, 50),
    length=st.integers(1, 20),
    back=st.integers(0, 20),
    later=st.integers(0, 60),
    asked=st.integers(0, 150),
)
def test_what_it_holds(began: int, appended: int, length: int, back: int, later: int, asked: int) -> None:
    """It holds a position if, and only if, it has each later event; what was put back goes again."""
    log = log_at(began, appended, length)
    first = log.first
    log.put_back([frame(offset) for offset in range(max(1, first - back), first)])
    for offset in range(began + appended + 1, began + appended + later + 1):
        log.append(entry(offset), {"type": "task_status"})
    last = began + appended + later
    whole = offsets(log, log.first - 1)
    assert list(range(log.first, last + 1)) == whole
    assert Position(EPOCH, last) == log.position
    assert log.holds(Position(EPOCH, asked)) == (log.first - 1 <= asked <= last)
    if log.holds(Position(EPOCH, asked)):
        assert list(range(asked + 1, last + 1)) == offsets(log, asked)
    assert len(whole) >= min(length, appended + later)
    if later >= back:
        assert len(whole) <= length
    assert not log.holds(Position(OTHER, asked))
