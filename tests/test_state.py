"""The state is that of Redis at one offset, however records and events came together."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_plugin.contract import JSON, LogEntry, encode
from sidecar.state import State, Unreadable, read_event, read_object

STATUSES = ("reserved", "scheduled", "active", "completed", "failed", "pending")
OPEN = ("reserved", "scheduled", "active")


def event(offset: int, task_id: str, status: str, **more: Any) -> JSON:
    """An event of a task."""
    return {"type": "task_status", "task_id": task_id, "status": status, "offset": offset, **more}


def apply(state: State, event: JSON, extra: JSON | None = None) -> None:
    """Apply an event as the subscriber does."""
    text = encode(event).encode()
    state.apply(LogEntry(event["offset"], text, encode(extra or {}).encode()), read_event(text))


def contents(state: State) -> Any:
    """Everything that viewers are shown."""
    tasks = {
        name: {task_id: json.loads(task.record) for task_id, task in group.items()}
        for name, group in (("active", state.active), ("waiting", state.waiting))
    }
    return tasks, state.workers, {status: state.count(status) for status in OPEN}


def test_a_life() -> None:
    """A task waits, runs and is gone; it is in one place at a time."""
    state = State()
    for offset, status, expected in (
        (1, "scheduled", (0, 0, 1)),
        (2, "reserved", (0, 1, 0)),
        (3, "active", (1, 0, 0)),
        (4, "completed", (0, 0, 0)),
    ):
        apply(state, event(offset, "a", status))
        assert expected == tuple(state.count(each) for each in ("active", "reserved", "scheduled"))
        assert (status in OPEN) == (state.task("a") is not None)


def test_an_older_event_changes_nothing() -> None:
    """What is older than what is known is passed over."""
    state = State()
    apply(state, event(5, "a", "active"))
    apply(state, event(4, "a", "completed"))
    apply(state, event(5, "a", "completed"))
    assert ["a"] == list(state.active)


def test_record_and_event_show_the_same() -> None:
    """A task looks the same whether it was read from its record or came as an event."""
    lean, extra = (
        event(1, "ä", "active", task_name="\u2028", received_at=5.5),
        {"args": "(1,)", "kwargs": "{}"},
    )
    by_event, by_record = State(), State()
    apply(by_event, lean, extra)
    by_record.load_task(read_event(encode(lean | extra).encode()))
    assert contents(by_event) == contents(by_record)
    assert lean | extra == json.loads(by_record.active["ä"].record)


def test_an_event_without_extra_is_its_record() -> None:
    """Nothing is added to an event that has no extra."""
    state = State()
    apply(state, event(1, "a", "active"))
    assert event(1, "a", "active") == json.loads(state.active["a"].record)


histories = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(STATUSES)), max_size=30)


@given(histories, st.data())
def test_records_and_replay(history: list[tuple[str, str]], data: st.DataObject) -> None:
    """Records read while events happened, and the events since, give what all events in order give.

    The waiting ones are read before the active ones, each at a moment of its own, as HSCAN does.
    """
    events = [event(offset, *each, received_at=1.0) for offset, each in enumerate(history, 1)]
    expected = State()
    for each in events:
        apply(expected, each)

    begin = data.draw(st.integers(0, len(events)), label="position before the scan")
    middle = data.draw(st.integers(begin, len(events)), label="position between the two hashes")
    state = State()
    for statuses, low, high in (
        (("reserved", "scheduled"), begin, middle),
        (("active",), middle, len(events)),
    ):
        for task_id in data.draw(st.permutations("abcd"), label="order of the hash"):
            now = data.draw(st.integers(low, high), label=f"position at which {task_id} was read")
            known = [each for each in events[:now] if each["task_id"] == task_id]
            if known and known[-1]["status"] in statuses:
                state.load_task(read_event(encode(known[-1]).encode()))
    for each in events[begin:]:
        apply(state, each)
    assert contents(expected) == contents(state)


@given(histories)
def test_counts(history: list[tuple[str, str]]) -> None:
    """The counts are those of the tasks, after whatever happened."""
    state = State()
    for offset, each in enumerate(history, 1):
        apply(state, event(offset, *each))
    tasks = [*state.active.values(), *state.waiting.values()]
    for status in OPEN:
        assert state.count(status) == sum(task.status == status for task in tasks)


def test_workers() -> None:
    """A worker is its latest record; the number of its last batch is nobody's business."""
    state = State()
    worker = {"type": "worker_status", "worker_id": "one", "worker": "celery@one", "status": "online"}
    state.load_worker(read_event(encode(worker | {"batch": 7, "offset": 1}).encode()))
    assert {"one": worker | {"offset": 1}} == state.workers
    apply(state, worker | {"offset": 2, "status": "offline"})
    assert "offline" == state.workers["one"]["status"]


GARBAGE = [
    b"",
    b"nonsense",
    b"[]",
    b"5",
    b"null",
    b"{}",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"type":5}',
    b'{"type":"task_status"}',
    b'{"type":"task_status","task_id":5,"status":"active"}',
    b'{"type":"task_status","task_id":["a"],"status":"active"}',
    b'{"type":"task_status","task_id":"a","status":null}',
    b'{"type":"task_status","task_id":"a","status":"active","received_at":"soon"}',
    b'{"type":"task_status","task_id":"a","status":"active","received_at":1' + b"0" * 400 + b"}",
    b'{"type":"task_status","task_id":"a","status":"active","received_at":1' + b"0" * 5000 + b"}",
    b'{"type":"task_status","task_id":"a","status":"active","received_at":NaN}',
    b'{"type":"task_status","task_id":"a","status":"active","received_at":Infinity}',
    b'{"type":"worker_status","worker_id":"a"}',
    b'{"type":"worker_status","worker_id":"a","worker":"b","status":1}',
    b'{"type":"worker_status","worker_id":"a","worker":"b","status":"online","queues":5}',
    b'{"type":"worker_status","worker_id":"a","worker":"b","status":"online","queues":[5]}',
    b'{"type":"worker_status","worker_id":"a","worker":"b","status":"online","broker":5}',
    b'{"type":"worker_status","worker_id":"a","worker":"b","status":"online","broker":{"priority_steps":["x"]}}',
]


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage(text: bytes) -> None:
    """What is not what the contract says is refused, before it is applied."""
    with pytest.raises(Unreadable):
        read_event(text)


@pytest.mark.parametrize("offset", [{}, {"offset": None}, {"offset": "1"}, {"offset": 1.5}])
def test_a_record_without_its_offset(offset: JSON) -> None:
    """A task's record says at which offset it was written, or it cannot be ordered."""
    record = {"type": "task_status", "task_id": "a", "status": "active", **offset}
    with pytest.raises(Unreadable):
        State().load_task(record)


def test_records_of_the_wrong_hash() -> None:
    """A worker among the tasks, or a task among the workers, is no record."""
    worker = {"type": "worker_status", "worker_id": "one", "worker": "w", "status": "online", "offset": 1}
    with pytest.raises(Unreadable):
        State().load_task(worker)
    with pytest.raises(Unreadable):
        State().load_worker(event(1, "a", "active"))


def test_unknown_types_and_fields() -> None:
    """What a later version tells is passed on, and changes nothing here."""
    state = State()
    apply(state, {"type": "progress", "offset": 1, "task_id": "a"})
    apply(state, event(2, "a", "active", novelty={"deep": [1]}))
    apply(state, event(3, "b", "sleeping"))
    assert (["a"], []) == (list(state.active), list(state.waiting))


names = st.text(max_size=3) | st.sampled_from(
    ("type", "task_id", "status", "received_at", "worker_id", "worker", "queues", "broker")
)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=6),
        max_leaves=12,
    )
)
def test_any_json(value: Any) -> None:
    """Whatever JSON somebody writes, it is refused, or can be applied."""
    try:
        parsed = read_event(json.dumps(value).encode())
    except Unreadable:
        return
    State().apply(LogEntry(1, b"{}", b"{}"), parsed)


@given(st.binary(max_size=50))
def test_any_bytes(text: bytes) -> None:
    """Bytes are a JSON object or refused."""
    with suppress(Unreadable):
        assert isinstance(read_object(text), dict)
