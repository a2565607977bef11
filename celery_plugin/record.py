"""What is told of a run: its JSON, in words and within the size that the contract allows.

    message  "…"              in words, or what the task itself reports
    facts    F,               the members of the event that stay the same while the run goes on
    moving   M                the others, behind the head that the script writes and the facts
    extra    {"args":"…","kwargs":"…"}

The facts and the extra are made once: a task is told three times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from celery_plugin.contract import JSON, RECORD_MAX_BYTES, encode
from celery_plugin.runs import Run
from celery_plugin.texts import cut, encode_text, fit_text, size

# The head that the script writes, without the names of the two workers in it:
# {"type":"task_status","status":"…","worker":…,"offset":…,"previous":{"status":"…","worker":…},"message":,
_HEAD_BYTES = 136
# A worker's name as JSON; it stands in the head twice, once for a worker that is not this one.
WORKER_MAX_BYTES = 80
_encode = json.JSONEncoder(ensure_ascii=False).encode
# What is told where it is known.
_SELDOM = ("max_retries", "priority", "root_id", "parent_id", "group_id")
# What the moving part takes while nothing has gone wrong.
_MOVING_BYTES = 220
_NAME_MAX = 200
_EXCEPTION_MAX = 160
# What is cut where all that does not fit, to so many characters, until it does.
_TEXTS = ("task_name", "queue", "message", "exception")
_SHORTER = (_NAME_MAX, 100, 50, 20, 3)
# What an extra takes that has nothing but empty texts in it.
_NO_EXTRA_BYTES = len('{"args":"","kwargs":"","result":"","traceback":""}')


class Told(NamedTuple):
    """What the script puts behind its head: the message, the other members of the event, the extra; JSON."""

    message: str
    facts: str
    moving: str
    extra: str


def tell(run: Run, worker_json: str) -> Told:
    """Make the parts; with the script's head they take at most 1 KB together."""
    limit = _limit(worker_json)
    if not run.facts:
        run.facts = _facts(run)
        run.extra = _extra(run.texts, limit - size(run.facts) - _MOVING_BYTES)
        run.bytes = size(run.facts) + size(run.extra)
    text, moving = _message_json(run), _moving(run)
    if run.bytes + size(text) + size(moving) <= limit and run.result is None and run.traceback is None:
        return Told(text, run.facts, moving, run.extra)
    members = json.loads(f"{{{run.facts}{moving}}}")
    return squeeze({"message": message(run)} | members, run.texts, worker_json)


def squeeze(members: JSON, texts: Mapping[str, str], worker_json: str) -> Told:
    """Make the parts of members that take much room; names and exception are cut if nothing else helps."""
    limit = _limit(worker_json)
    text = rest = ""
    for length in _SHORTER:
        short = {name: cut(value, length) if name in _TEXTS else value for name, value in members.items()}
        text, rest = encode_text(short.pop("message")), encode(short)[1:-1]
        if size(text) + size(rest) + _NO_EXTRA_BYTES <= limit:
            break
    return Told(text, "", rest, _extra(texts, limit - size(text) - size(rest)))


@lru_cache(maxsize=100)
def _limit(worker_json: str) -> int:
    return RECORD_MAX_BYTES - _HEAD_BYTES - size(worker_json) - WORKER_MAX_BYTES


def _facts(run: Run) -> str:
    facts = f'"position":null,"task_id":{encode_text(run.task_id)},'
    facts += f'"task_name":{encode_text(cut(run.task_name, _NAME_MAX))},'
    if run.queue is not None:
        facts += f'"queue":{encode_text(cut(run.queue, _NAME_MAX))},'
    facts += f'"attempt":{run.attempt},'
    for name in _SELDOM:
        value = getattr(run, name)
        if value is not None and (name != "root_id" or value != run.task_id):
            facts += f'"{name}":{value if type(value) is int else _encode(value)},'
    eta = "" if run.eta is None else f'"eta":{run.eta!r},'
    return f'{facts}"received_at":{round(run.received_at, 6)!r},{eta}"run":{encode_text(run.id)},'


def _moving(run: Run) -> str:
    at = f"{run.updated_at:.6f}"
    moving = "" if run.started_at is None else f'"started_at":{run.started_at:.6f},'
    if run.finished_at is not None:
        moving += f'"finished_at":{run.finished_at:.6f},'
    if run.runtime is not None:
        moving += f'"runtime":{run.runtime:.6f},'
    if run.exception is not None:
        moving += f'"exception":{encode_text(cut(run.exception, _EXCEPTION_MAX))},'
    if run.reason is not None:
        moving += f'"reason":"{run.reason}",'
    return f'{moving}"updated_at":{at},"timestamp":{at}'


def _message_json(run: Run) -> str:
    return _SENTENCES_JSON.get(run.status) or encode_text(message(run))


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


# Of these nothing else is ever said.
_SENTENCES_JSON = {status: encode_text(_SENTENCES[status]) for status in ("reserved", "scheduled", "active")}


def _extra(texts: Mapping[str, str], budget: int) -> str:
    """Encode the texts; each gets an equal share, and leaves to the others what it does not need."""
    whole = _object({name: encode_text(text) for name, text in texts.items()})
    if size(whole) <= budget:
        return whole
    left = budget - sum(len(f'"{name}":,') for name in texts) - 1
    encoded: dict[str, str] = {}
    for name in sorted(texts, key=lambda name: len(texts[name])):
        # The end of a traceback says what happened.
        budget = left // (len(texts) - len(encoded))
        encoded[name] = fit_text(texts[name], budget, keep_end=name == "traceback")
        left -= size(encoded[name])
    return _object({name: encoded[name] for name in texts})


def _object(members: Mapping[str, str]) -> str:
    return "{" + ",".join([f'"{name}":{text}' for name, text in members.items()]) + "}"
