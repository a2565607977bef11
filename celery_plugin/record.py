"""What is told of a run: its JSON, in words and within the size that the contract allows.

    message  "…"              in words, or what the task itself reports
    rest     FACTS,MOVING     the other members of the event behind the head that the script writes
    extra    {"args":"…","kwargs":"…"}

The facts and the extra stay the same while the run goes on and are made once: a task is told three times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from typing import NamedTuple

from celery_plugin.contract import JSON, RECORD_MAX_BYTES, encode
from celery_plugin.runs import Run

# The head that the script writes, without the names of the two workers in it:
# {"type":"task_status","status":"…","worker":…,"offset":…,"previous":{"status":"…","worker":…},"message":,
_HEAD_BYTES = 136
# A worker's name as JSON; it stands in the head twice, once for a worker that is not this one.
WORKER_MAX_BYTES = 80
# What the moving part takes while nothing has gone wrong.
_MOVING_BYTES = 220
_NAME_MAX = 200
_EXCEPTION_MAX = 160
# What is cut where all that does not fit, to so many characters, until it does.
_TEXTS = ("task_name", "queue", "message", "exception")
_SHORTER = (_NAME_MAX, 100, 50, 20, 3)
# What an extra takes that has nothing but empty texts in it.
_NO_EXTRA_BYTES = len('{"args":"","kwargs":"","result":"","traceback":""}')

# A string as JSON; not ASCII alone: other alphabets would take twice their bytes.
encode_text: Callable[[str], str] = encode_basestring


class Told(NamedTuple):
    """What the script puts behind its head: the message, the other members of the event, the extra; JSON."""

    message: str
    rest: str
    extra: str


def tell(run: Run, worker_json: str) -> Told:
    """Make the parts; with the script's head they take at most 1 KB together."""
    limit = _limit(worker_json)
    if not run.facts:
        run.facts = encode(_facts(run))[1:-1]
        run.extra = _extra(run.texts, limit - _size(run.facts) - _MOVING_BYTES)
    text = message(run)
    told = Told(encode_text(text), f"{run.facts},{_moving(run)}", run.extra)
    more = run.result is not None or run.traceback is not None
    if not more and sum(map(_size, told)) <= limit:
        return told
    return squeeze({"message": text} | json.loads(f"{{{told.rest}}}"), run.texts, worker_json)


def squeeze(members: JSON, texts: Mapping[str, str], worker_json: str) -> Told:
    """Make the parts of members that take much room; names and exception are cut if nothing else helps."""
    limit = _limit(worker_json)
    text = rest = ""
    for length in _SHORTER:
        short = {name: cut(value, length) if name in _TEXTS else value for name, value in members.items()}
        text, rest = encode_text(short.pop("message")), encode(short)[1:-1]
        if _size(text) + _size(rest) + _NO_EXTRA_BYTES <= limit:
            break
    return Told(text, rest, _extra(texts, limit - _size(text) - _size(rest)))


def _limit(worker_json: str) -> int:
    return RECORD_MAX_BYTES - _HEAD_BYTES - _size(worker_json) - WORKER_MAX_BYTES


def _facts(run: Run) -> JSON:
    facts = {
        "task_id": run.task_id,
        "task_name": cut(run.task_name, _NAME_MAX),
        "queue": None if run.queue is None else cut(run.queue, _NAME_MAX),
        "attempt": run.attempt,
        "max_retries": run.max_retries,
        "priority": run.priority,
        "root_id": run.root_id if run.root_id != run.task_id else None,
        "parent_id": run.parent_id,
        "group_id": run.group_id,
        "received_at": round(run.received_at, 6),
        "eta": run.eta,
        "run": run.id,
    }
    return {"position": None} | {name: value for name, value in facts.items() if value is not None}


def _moving(run: Run) -> str:
    parts = []
    if run.started_at is not None:
        parts.append(f'"started_at":{run.started_at:.6f}')
    if run.finished_at is not None:
        parts.append(f'"finished_at":{run.finished_at:.6f}')
    if run.runtime is not None:
        parts.append(f'"runtime":{run.runtime:.6f}')
    if run.exception is not None:
        parts.append(f'"exception":{encode_text(cut(run.exception, _EXCEPTION_MAX))}')
    if run.reason is not None:
        parts.append(f'"reason":"{run.reason}"')
    parts.append(f'"updated_at":{run.updated_at:.6f},"timestamp":{run.updated_at:.6f}')
    return ",".join(parts)


def message(run: Run) -> str:
    """Say in a sentence what the task does."""
    if run.status == "completed":
        return f"Completed in {run.runtime:.3g} s" if run.runtime is not None else "Completed"
    if run.status in ("failed", "retrying") and run.exception:
        return f"{run.status.capitalize()}: {cut(run.exception, _EXCEPTION_MAX)}"
    return sentence(run.reason or run.status)


def sentence(reason_or_status: str) -> str:
    """Say it in words."""
    return _SENTENCES[reason_or_status]


_SENTENCES = {
    "reserved": "Waiting for a free slot in the worker",
    "scheduled": "Waiting for its time",
    "active": "Running",
    "pending": "Returned to the queue",
    "retrying": "Retrying",
    "failed": "Failed",
    "revoked": "Revoked",
    "expired": "Expired before it ran",
    "terminated": "Terminated while it ran",
    "rejected": "Rejected",
    "requeued": "Rejected and returned to the queue",
    "replaced": "Replaced by another task under its id",
    "ignored": "Ended without a result",
    "worker_lost": "Its worker is gone",
    "lost": "Lost with its worker",
    "worker_exited": "Its worker ended before it did",
    "end_not_seen": "Its worker no longer has it; how it ended was not seen",
}


def cut(text: str, length: int) -> str:
    """Cut a text to so many characters, the last one an ellipsis where something is missing."""
    if len(text) <= length:
        return text
    return text[: max(0, length - 1)] + "…"


def _extra(texts: Mapping[str, str], budget: int) -> str:
    """Encode the texts; each gets an equal share, and leaves to the others what it does not need."""
    left = budget - sum(len(f'"{name}":,') for name in texts) - 1
    encoded: dict[str, str] = {}
    for name in sorted(texts, key=lambda name: len(texts[name])):
        # The end of a traceback says what happened.
        budget = left // (len(texts) - len(encoded))
        encoded[name] = fit_text(texts[name], budget, keep_end=name == "traceback")
        left -= _size(encoded[name])
    return "{" + ",".join(f'"{name}":{encoded[name]}' for name in texts) + "}"


def fit_text(text: str, budget: int, *, keep_end: bool = False) -> str:
    """Encode the text as JSON in at most so many bytes (but never less than an empty string)."""
    encoded = encode_text(text)
    while _size(encoded) > budget and text:
        # Escapes and other alphabets take more bytes than characters: come closer step by step.
        kept = min(len(text) - 1, len(text) * max(budget - 8, 0) // _size(encoded))
        text = text[len(text) - kept :] if keep_end else text[:kept]
        shortened = f"…{text}" if keep_end else f"{text}…"
        encoded = encode_text(shortened) if text else '""'
    return encoded


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
