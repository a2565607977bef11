"""The promises of the contract, and its golden records: what released versions write stays readable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from celery_plugin.capture import Capture
from celery_plugin.contract import (
    EXTRA_FIELDS,
    RANKS,
    TASK_STATUS_FIELDS,
    Keys,
    LogEntry,
    MalformedBatch,
    Position,
    check_prefix,
    decode_batch,
    encode,
    encode_batch,
    split_record,
)
from celery_plugin.events import RECEIVED, REJECTS, Tracker
from celery_plugin.operations import Operation, Other
from celery_plugin.record import tell
from celery_plugin.runs import Run, RunTable, read_run
from celery_plugin.settings import Settings
from celery_plugin.texts import encode_text
from celery_plugin.worker import WorkerRecord
from sidecar.state import State
from tests.support.batches import Sender, Stored
from tests.support.deadline import eventually
from tests.support.unstarted import unstarted_worker

GOLDEN = Path(__file__).parent / "contract" / "v1"
EPOCH = "9f86d081884c7d65"

# -- positions -----------------------------------------------------------------------------------------

_epochs = st.text("0123456789abcdef", min_size=16, max_size=16)
_offsets = st.integers(0, 10**18 - 1)


@settings(deadline=None)
@given(epoch=_epochs, offset=_offsets)
def test_a_position_is_read_as_it_was_written(epoch: str, offset: int) -> None:
    """Both ways, for every position that there can be."""
    position = Position(epoch, offset)
    assert position == Position.parse(str(position))


@settings(deadline=None)
@given(text=st.text())
def test_only_a_position_is_read(text: str) -> None:
    """What is read is written the same; anything else is refused."""
    with suppress(ValueError):
        assert text == str(Position.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        EPOCH,
        f"{EPOCH}-",
        f"{EPOCH}--1",
        f"{EPOCH}-+1",
        f"{EPOCH}-01",
        f"{EPOCH}-1 ",
        f"{EPOCH}-1\n",
        f" {EPOCH}-1",
        f"{EPOCH}-1.0",
        f"{EPOCH}-1_0",
        f"{EPOCH}-{10**18}",
        f"{EPOCH}-١",
        f"{EPOCH.upper()}-1",
        f"{EPOCH[1:]}-1",
        f"0{EPOCH}-1",
        f"{EPOCH}:1",
    ],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    """With what was expected and the beginning of what came."""
    with pytest.raises(ValueError, match="a position is <epoch>-<offset>"):
        Position.parse(text)


def test_a_refusal_repeats_no_endless_text() -> None:
    """A header of 1 MB does not become a log line of 1 MB."""
    with pytest.raises(ValueError, match="not") as refusal:
        Position.parse("x" * 1_000_000)
    assert len(str(refusal.value)) < 200


# -- batches -------------------------------------------------------------------------------------------

_objects = st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.floats(allow_nan=False)).map(
    lambda members: encode(members).encode()
)


@settings(deadline=None)
@given(epoch=_epochs, first=st.integers(1, 10**15), pairs=st.lists(st.tuples(_objects, _objects), min_size=1))
def test_a_batch_is_read_as_it_was_written(epoch: str, first: int, pairs: list[tuple[bytes, bytes]]) -> None:
    """Each event has the next offset."""
    position, entries = decode_batch(encode_batch(Position(epoch, first), pairs))
    assert Position(epoch, first) == position
    assert entries == [LogEntry(first + n, event, extra) for n, (event, extra) in enumerate(pairs)]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\n",
        f"{EPOCH}-1".encode(),
        f"{EPOCH}-1\n{{}}".encode(),
        f"{EPOCH}-1\n{{}}\n{{}}\n{{}}".encode(),
        f"{EPOCH}-1\n{{}}\n{{}}\n".encode(),
        b"nonsense\n{}\n{}",
        b"\xff\xfe-1\n{}\n{}",
    ],
)
def test_a_malformed_batch_is_refused(message: bytes) -> None:
    """What another program published on the channel is not taken for events."""
    with pytest.raises(MalformedBatch):
        decode_batch(message)


@settings(deadline=None)
@given(
    members=st.dictionaries(
        st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=()))
    )
)
def test_encode_makes_one_line_of_utf8(members: dict[str, str]) -> None:
    """Whatever the texts are; what UTF-8 cannot hold becomes `?`."""
    line = encode(members).encode()
    assert b"\n" not in line
    assert isinstance(json.loads(line), dict)


def test_a_record_is_split_into_event_and_extra() -> None:
    """What may be secret goes into the extra, all else into the event, in order."""
    record = {"type": "task_status", "args": "()", "offset": 1, "traceback": "…", "kwargs": "{}", "new": 1}
    event, extra = split_record(record)
    assert (["type", "offset", "new"], ["args", "kwargs", "traceback"]) == (list(event), list(extra))
    assert set(extra) < set(EXTRA_FIELDS)


# -- names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["queue", "a", "A-b_c.d:e", "{tag}", "q{tag}:x", "x" * 64, "0"])
def test_prefixes_that_are_allowed(prefix: str) -> None:
    """They stand in every key as they are."""
    assert prefix == check_prefix(prefix)
    assert f"{prefix}:log" == Keys(prefix).log


@pytest.mark.parametrize("prefix", ["", " ", "a b", "a\n", "ü", "a*", "a?", "[a]", "a/b", "x" * 65, "a\x00"])
def test_prefixes_that_are_refused(prefix: str) -> None:
    """No pattern of an ACL, no white space, nothing that two programs would spell differently."""
    with pytest.raises(ValueError, match="a prefix is"):
        check_prefix(prefix)
    with pytest.raises(ValueError, match="a prefix is"):
        Keys(prefix)


def test_the_names_of_keys_and_channels() -> None:
    """They are what README and redis-cli users rely on."""
    keys = Keys()
    assert "queue:active_tasks" == keys.active_tasks
    assert "queue:waiting_tasks" == keys.waiting_tasks
    assert "queue:runs" == keys.runs
    assert "queue:progress" == keys.progress
    assert "queue:finished" == keys.finished
    assert "queue:finished_tasks" == keys.finished_tasks
    assert "queue:workers" == keys.workers
    assert "queue:leases" == keys.leases
    assert "queue:counters" == keys.counters
    assert "queue:log" == keys.log
    assert "queue:events" == keys.events == keys.events_channel
    assert "queue:control" == keys.control_channel


def test_channels_carry_the_database_and_keys_do_not() -> None:
    """Pub/sub ignores the database: two applications on /0 and /3 must not hear each other."""
    keys = Keys("shop", 3)
    assert ("shop:events", "3.shop:events", "3.shop:control") == (
        keys.events,
        keys.events_channel,
        keys.control_channel,
    )


# -- golden records ------------------------------------------------------------------------------------

WORKER_ID = "celery@one:0123456789ab"
HOSTNAME = "celery@one"
TASK_IDS = {
    "reserved": "11111111-1111-4111-8111-111111111111",
    "scheduled": "22222222-2222-4222-8222-222222222222",
    "active": "33333333-3333-4333-8333-333333333333",
    "completed": "44444444-4444-4444-8444-444444444444",
    "failed": "55555555-5555-4555-8555-555555555555",
    "retrying": "66666666-6666-4666-8666-666666666666",
    "revoked": "77777777-7777-4777-8777-777777777777",
    "rejected": "88888888-8888-4888-8888-888888888888",
}
AT = 1_700_000_000.25
_ENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "completed": ("task-succeeded", {"result": "42", "runtime": 1.25}),
    "failed": ("task-failed", {"exception": "ValueError('it broke')", "traceback": "Traceback …"}),
    "retrying": ("task-retried", {"exception": "ValueError('once more')"}),
    "revoked": ("task-revoked", {"terminated": True, "expired": False, "signum": 15}),
    "rejected": (REJECTS, {"requeue": False, "exception": "Reject('no', requeue=False)"}),
}


class Story:
    """One worker's life with fixed times, told by the plugin's own code to a real Redis."""

    def __init__(self, client: Redis) -> None:
        self._tracker = Tracker(RunTable(), Capture(("args", "kwargs"), 1024, ()))
        self.sender = Sender(client, WORKER_ID, settings=Settings(history_ttl=1e12))
        self.stored = Stored(client)

    def tell(self) -> None:
        """Begin, then bring a task into each status, a batch each."""
        self.sender.send(_worker_operation(), epoch=EPOCH)
        for status, task_id in TASK_IDS.items():
            self.sender.send(*self._until(status, task_id))

    def _until(self, status: str, task_id: str) -> Iterator[Operation]:
        eta = AT + 3600 if status == "scheduled" else None
        run = _received(task_id, eta)
        yield self._apply(AT, RECEIVED, run, {})
        if status in ("reserved", "scheduled"):
            return
        yield self._apply(AT + 0.5, "task-started", run, {})
        if status in _ENDS:
            event, fields = _ENDS[status]
            yield self._apply(AT + 1.75, event, run, fields)

    def _apply(self, at: float, event: str, run: Run, fields: dict[str, Any]) -> Operation:
        assert self._tracker.apply(at, event, run, fields)
        (told,) = tell(run, [(run.status, run.updated_at)], encode_text(HOSTNAME))
        return told


def _number(task_id: str) -> int:
    return list(TASK_IDS.values()).index(task_id) + 1


def _received(task_id: str, eta: float | None) -> Run:
    headers = {
        "id": task_id,
        "task": "app.tasks.generate",
        "argsrepr": "('Zoë', 3)",
        "kwargsrepr": "{'note': 'line\\nend'}",
        "delivery_info": {"priority": 0},
        "root_id": TASK_IDS["active"],
        "group": "99999999-9999-4999-8999-999999999999",
    }
    run = read_run(f"{WORKER_ID}/{_number(task_id)}", headers, "celery", 3)
    return replace(run, eta=eta, received_at=AT, updated_at=AT, status="scheduled" if eta else "reserved")


def _worker_operation() -> Other:
    with unstarted_worker(HOSTNAME) as worker:
        members = WorkerRecord(worker, WORKER_ID).members()
    # What differs from machine to machine.
    members |= {"pid": 4242, "celery_version": "5.7.0", "plugin_version": "0.1.0"}
    members |= {"started_at": AT, "clock_ahead_s": 0.0, "timestamp": AT}
    return Other("worker", ("worker", encode(members)[1:-1]))


@pytest.fixture
def written(client: Redis) -> dict[str, bytes]:
    """Name of a golden file → what the plugin writes today."""
    story = Story(client)
    with client.pubsub() as pubsub:
        pubsub.subscribe(story.stored.keys.events_channel)
        eventually(lambda: pubsub.get_message(timeout=1), what="the subscription is acknowledged")
        story.tell()
        messages = [pubsub.get_message(timeout=10) for _ in range(1 + len(TASK_IDS))]
    keys: Any = story.stored.keys
    asked: Any = client
    found = {
        "active_task.json": asked.hget(keys.active_tasks, TASK_IDS["active"]),
        "finished_task.json": asked.hget(keys.finished_tasks, TASK_IDS["failed"]),
        "worker.json": asked.hget(keys.workers, WORKER_ID),
        "extra.json": story.stored.entries[-1][2],
    }
    for _, event, _ in story.stored.entries:
        told = json.loads(event)
        kind = told["status"] if told["type"] == "task_status" else "worker"
        if kind == "worker" or TASK_IDS[kind] == told["task_id"]:
            found[f"event_{kind}.json"] = event
    key, fields = asked.xrange(keys.events)[1]
    found["stream_entry.json"] = _pretty(
        {"id": key.decode(), "fields": {name.decode(): value.decode() for name, value in fields.items()}}
    )
    found["channel_message.json"] = _pretty(
        {name: messages[3][name].decode() for name in ("channel", "data")}
    )
    return found


def _pretty(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def test_the_plugin_writes_the_golden_records(written: dict[str, bytes]) -> None:
    """Byte for byte: what released readers know is what today's plugin writes. A new field needs a new
    version of the records beside these; these are never edited once released."""
    files = {path.name: path.read_bytes().removesuffix(b"\n") for path in GOLDEN.glob("*.json")}
    assert files == written


def _golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes().removesuffix(b"\n")


@pytest.mark.parametrize("status", sorted(TASK_IDS))
def test_golden_events_are_lean_and_whole(status: str) -> None:
    """Each has every field that is promised, and nothing that is shown only on request."""
    event = json.loads(_golden(f"event_{status}.json"))
    assert (status, TASK_IDS[status]) == (event["status"], event["task_id"])
    assert set(TASK_STATUS_FIELDS) <= set(event)
    assert not set(EXTRA_FIELDS) & set(event)
    assert {"worker", "offset", "previous", "run", "attempt", "updated_at", "timestamp"} <= set(event)


def test_the_sidecar_reads_the_golden_task() -> None:
    """From its record and from its event: the same task."""
    record = _golden("active_task.json")
    loaded, applied = State(), State()
    loaded.load_task(json.loads(record))
    event = _golden("event_active.json")
    applied.apply(LogEntry(json.loads(event)["offset"], event, _golden("extra.json")), json.loads(event))
    task_id = TASK_IDS["active"]
    assert record == applied.active[task_id].record
    # Loading parses the record, and a time may be written in two ways.
    assert json.loads(record) == json.loads(loaded.active[task_id].record)


@pytest.mark.parametrize(
    "status", [status for status, rank in RANKS.items() if rank == 3 and status in TASK_IDS]
)
def test_the_sidecar_lets_a_task_go_that_has_ended(status: str) -> None:
    """By its golden event."""
    state = State()
    event = json.loads(_golden(f"event_{status}.json"))
    state.load_task({**json.loads(_golden("active_task.json")), "task_id": event["task_id"], "offset": 1})
    state.apply(LogEntry(event["offset"], _golden(f"event_{status}.json"), b"{}"), event)
    assert {} == state.active


@pytest.mark.parametrize("status", ["reserved", "scheduled"])
def test_the_sidecar_counts_a_task_that_waits(status: str) -> None:
    """By its golden event."""
    state = State()
    event = _golden(f"event_{status}.json")
    state.apply(LogEntry(json.loads(event)["offset"], event, b"{}"), json.loads(event))
    assert (1, 0) == (state.count(status), state.count("active"))


def test_the_sidecar_reads_the_golden_worker() -> None:
    """From its record and from its event: the same worker."""
    loaded, applied = State(), State()
    loaded.load_worker(json.loads(_golden("worker.json")))
    event = _golden("event_worker.json")
    applied.apply(LogEntry(1, event, b"{}"), json.loads(event))
    assert {WORKER_ID} == set(loaded.workers)
    assert loaded.workers == applied.workers


def test_the_golden_message_and_the_golden_entry_are_read() -> None:
    """The channel carries what the stream keeps."""
    message = json.loads(_golden("channel_message.json"))
    position, entries = decode_batch(message["data"].encode())
    assert (EPOCH, "queue:events") == (position.epoch, message["channel"])
    assert [position.offset, position.offset + 1] == [entry.offset for entry in entries]
    assert _golden("event_active.json") == entries[-1].event
    entry = json.loads(_golden("stream_entry.json"))
    assert _golden("event_reserved.json") == entry["fields"]["event"].encode()
    assert f"{json.loads(entry['fields']['event'])['offset']}-0" == entry["id"]
