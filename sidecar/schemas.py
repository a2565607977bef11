"""What is answered and streamed, as JSON Schemas: the members that come, and those that always do.

A reader passes over what it does not know, so no schema forbids more members. A test holds each answer of a
real sidecar against these, and finds members that stand in none.
"""

from __future__ import annotations

from typing import Final

from celery_plugin.contract import (
    END_STATUSES,
    EXTRA_FIELDS,
    JSON,
    RANKS,
    TASK_STATUS_FIELDS,
    WORKER_STATUSES,
    EventType,
)
from sidecar.json_schema import an_object, many, number, or_null, ref, text, whole, word

# `unknown` is only ever said of a task that nobody has seen.
STATUSES: Final = (*RANKS, "unknown")
RESET_REASONS: Final = ("epoch", "trimmed", "future", "behind", "lost")


def _message(event_type: str, properties: JSON, description: str, always: tuple[str, ...] = ()) -> JSON:
    """What has a type, and with it the members that are always there; all of them where none is named."""
    names = {"type", *(always or properties)}
    members = {"type": {"type": "string", "const": event_type}} | properties
    return an_object(members, tuple(name for name in members if name in names), description)


_SEEN = {"status": ref("TaskState"), "worker": or_null(text())}
_TIME = "seconds since the epoch"
_TASK: JSON = {
    "task_id": text(),
    "task_name": or_null(text("null where nobody has seen the task so far, or its message names none")),
    "status": ref("TaskState"),
    "message": text("the task's own words while it reports its progress, else a sentence"),
    "position": or_null(whole("how many tasks of its queue are taken before it, where that is known")),
    "previous": or_null(ref("Previous")),
    "worker": or_null(text()),
    "queue": or_null(text()),
    "attempt": or_null(whole("counts from 1")),
    "max_retries": or_null(whole()),
    "priority": or_null(whole()),
    "root_id": text("left out where it is the task itself"),
    "parent_id": text(),
    "group_id": text(),
    "received_at": number(_TIME),
    "eta": or_null(number(_TIME)),
    "started_at": number(_TIME),
    "finished_at": number(_TIME),
    "lost_at": or_null(number(_TIME)),
    "runtime": number("seconds"),
    "exception": text(),
    "reason": text("why it ended so, in one word"),
    "progress": ref("Progress"),
    "run": text("one execution of the task: its worker's id, and a number"),
    "offset": whole("the event that told of it, as in the id of the stream"),
    "updated_at": number(_TIME),
    "timestamp": number(f"{_TIME}, by the worker's clock"),
    **{name: or_null(text("only where it is asked for, captured and allowed")) for name in EXTRA_FIELDS},
}
_TASK_ALWAYS = tuple(name for name in TASK_STATUS_FIELDS if name != "type")
_WORKER: JSON = {
    "worker_id": text("this process; a worker that is restarted has another one"),
    "worker": text("its name"),
    "status": word(WORKER_STATUSES),
    "pid": whole(),
    "pool": text(),
    "concurrency": or_null(whole("how many tasks it runs at a time")),
    "queues": many(text()),
    "broker": ref("Broker"),
    "celery_version": text(),
    "plugin_version": text(),
    "protocol": whole("of what its plugin writes"),
    "lease_seconds": number(),
    "started_at": number(_TIME),
    "gave_up": whole("events that it had to give up, since Redis was away too long"),
    "clock_ahead_s": or_null(number("its clock less Redis's, when it was announced last")),
    "reason": text(),
    "lost_at": or_null(number(_TIME)),
    "offset": whole(),
    "timestamp": number(f"{_TIME}, by the worker's clock"),
}
_WORKER_ALWAYS = ("worker_id", "worker", "status")
_FIGURES: JSON = {
    "total_tasks": or_null(whole("pending, reserved, scheduled and active ones")),
    "active_tasks": whole(),
    "pending_tasks": or_null(whole("what waits in the queues of which that is known")),
    "reserved_tasks": whole(),
    "scheduled_tasks": whole(),
    "lost_tasks": whole(),
    "failed_last_hour": or_null(whole()),
    "oldest_waiting_s": or_null(number("a lower bound, in seconds; null also where nothing waits")),
    "workers_online": or_null(whole()),
    "queues": many(ref("Queue")),
    "server_time": number(_TIME),
}
_MESSAGE_NAMES: Final = {
    EventType.TASK_STATUS: "Task",
    EventType.WORKER_STATUS: "Worker",
    EventType.QUEUE_STATUS: "QueueStatus",
    EventType.SNAPSHOT: "Snapshot",
    EventType.LIVE: "Live",
    EventType.RESET: "Reset",
    EventType.STALE: "Stale",
    EventType.FRESH: "Fresh",
    EventType.END: "End",
    EventType.OVERLOADED: "Overloaded",
    EventType.DRAIN: "Drain",
    EventType.UNAUTHORIZED: "Unauthorized",
}
_WAITING: JSON = {
    "task_id": or_null(text("null where the message is no task that can be read")),
    "task_name": or_null(text()),
    "position": whole("how many are taken before it"),
    "priority": or_null(whole()),
    "attempt": or_null(whole()),
    "eta": or_null(number(_TIME)),
    "args": or_null(text()),
    "kwargs": or_null(text()),
    "unreadable": text("why the message is not shown as a task"),
}
_NEXT: JSON = or_null(text("give it as cursor for what follows; null at the end"))

SCHEMAS: Final[JSON] = {
    "TaskState": word(STATUSES),
    "Previous": an_object(_SEEN, description="status and worker before"),
    "Progress": an_object(
        {
            "message": text(),
            "state": text(),
            "current": number(),
            "total": number(),
            "percent": number(),
            "updated_at": number(_TIME),
        },
        ("updated_at",),
        "as docs/progress.md says",
    ),
    "Task": _message(
        EventType.TASK_STATUS,
        _TASK,
        "A task has changed: the whole record as far as it is known. What is not known is left out.",
        _TASK_ALWAYS,
    ),
    "TimelineStep": an_object({"status": ref("TaskState"), "at": number(_TIME), "worker": or_null(text())}),
    "TaskRecord": _message(
        EventType.TASK_STATUS,
        _TASK | {"timeline": many(ref("TimelineStep"))},
        "A task, and the steps that it made.",
        (*_TASK_ALWAYS, "timeline"),
    ),
    "TaskPage": an_object({"tasks": many(ref("Task")), "next": _NEXT}),
    "WaitingTask": an_object(
        _WAITING,
        ("task_id", "task_name", "position", "priority", "attempt", "eta"),
        "A message in the broker.",
    ),
    "WaitingPage": an_object({"queue": text(), "tasks": many(ref("WaitingTask")), "next": _NEXT}),
    "Broker": an_object(
        {
            "transport": text(),
            "sep": text(),
            "priority_steps": many(whole()),
            "global_keyprefix": text(),
        },
        ("transport",),
        "what the broker is, and how it names the lists of a queue",
    ),
    "Worker": _message(EventType.WORKER_STATUS, _WORKER, "A worker came, changed or went.", _WORKER_ALWAYS),
    "WorkerRecord": _message(
        EventType.WORKER_STATUS,
        _WORKER | {"alive": {"type": "boolean", "description": "whether its lease runs"}},
        "A worker, and what its lease says.",
        (*_WORKER_ALWAYS, "alive"),
    ),
    "WorkerList": an_object({"workers": many(ref("WorkerRecord"))}),
    "Queue": an_object(
        {
            "name": text(),
            "pending": or_null(whole()),
            "by_priority": or_null({"type": "object", "additionalProperties": whole()}),
            "consumers": whole("how many workers take from it"),
            "measured_at": or_null(number(_TIME)),
        },
        description="what could not be asked is null, never 0",
    ),
    "QueueStatus": _message(
        EventType.QUEUE_STATUS,
        _FIGURES,
        "The figures. What could not be asked, or may not be seen, is null, never 0.",
    ),
    "Snapshot": _message(
        EventType.SNAPSHOT,
        {
            "queue_status": ref("QueueStatus"),
            "workers": many(ref("Worker")),
            "tasks": many(ref("Task")),
            "truncated": {"type": "boolean", "description": "whether more tasks wait than are shown"},
            "running_total": whole(),
            "waiting_total": whole(),
        },
        "How it is; perhaps over several events, of which the first one has what is no task.",
        ("tasks",),
    ),
    "Live": _message(
        EventType.LIVE,
        {"position": text("<epoch>-<offset>"), "server_time": number(_TIME)},
        "The snapshot is complete.",
    ),
    "Reset": _message(
        EventType.RESET,
        {"reason": word(RESET_REASONS)},
        "The log cannot go on from where the client was: forget all, a snapshot follows.",
    ),
    "Stale": _message(EventType.STALE, {"since": number(_TIME)}, "Redis cannot be read since then."),
    "Fresh": _message(
        EventType.FRESH, {"since": number(_TIME)}, "It can be again, and what was missed has been sent."
    ),
    "End": _message(
        EventType.END,
        {"task_id": text(), "status": word(END_STATUSES)},
        "The task of this stream has ended, and so has the stream.",
    ),
    "Overloaded": _message(
        EventType.OVERLOADED,
        {"reason": word(("streams", "streams_per_address"))},
        "There are too many streams; come back after the retry: that comes with it.",
    ),
    "Drain": _message(
        EventType.DRAIN, {}, "This sidecar goes away; come back after the retry: that comes with it."
    ),
    "Unauthorized": _message(
        EventType.UNAUTHORIZED, {"code": text()}, "The token has expired, and the stream ends."
    ),
    "Message": {
        "description": "What comes in a stream; the SSE event: has the name of the type.",
        "oneOf": [ref(name) for name in _MESSAGE_NAMES.values()],
        "discriminator": {
            "propertyName": "type",
            "mapping": {kind: ref(name)["$ref"] for kind, name in _MESSAGE_NAMES.items()},
        },
    },
    "AnyObject": {"type": "object"},
    "Health": an_object({"status": word(("alive", "ready"))}),
    "Session": an_object({"expires_at": number(_TIME)}),
    "Ticket": an_object({"ticket": text(), "expires_in": whole("seconds")}),
    "Problem": an_object(
        {
            "type": text(),
            "title": text(),
            "status": whole(),
            "detail": text(),
            "code": text("for programs, where the status does not say it all"),
            "parameter": text("what is wrong"),
            "request_id": text("under which the sidecar's log says more"),
        },
        ("type", "title", "status", "detail"),
        "RFC 9457",
    ),
}

MESSAGES: Final = {kind: SCHEMAS[name] for kind, name in _MESSAGE_NAMES.items()}
