"""What is told of a run: its JSON, in words and within the size that the contract allows."""

from __future__ import annotations

import json
from typing import Any

from celery_plugin.contract import RECORD_MAX_BYTES, encode
from celery_plugin.runs import Run

# The head that the script writes, without the names of the two workers in it:
# {"type":"task_status","status":"…","worker":…,"offset":…,"previous":{"status":"…","worker":…},
_HEAD_BYTES = 150
_NAME_MAX = 200
_EXCEPTION_MAX = 160


def rest_and_extra(run: Run, worker: str) -> tuple[str, str]:
    """The members of the event behind its head, and the extra object; together with the head within 1 KB.

    >>> '"task_id":"…","task_name":"…",…', '{"args":"…","kwargs":"…"}'
    """
    rest = encode({name: value for name, value in _members(run) if value is not None or name == "position"})[
        1:-1
    ]
    spent = _HEAD_BYTES + 2 * _size(json.dumps(worker)) + _size(rest)
    return rest, _extra(run, RECORD_MAX_BYTES - spent)


def _members(run: Run) -> list[tuple[str, Any]]:
    return [
        ("task_id", run.task_id),
        ("task_name", cut(run.task_name, _NAME_MAX)),
        ("position", None),
        ("message", message(run)),
        ("queue", cut(run.queue, _NAME_MAX)),
        ("attempt", run.attempt),
        ("max_retries", run.max_retries),
        ("priority", run.priority),
        ("root_id", _other(run.root_id, run)),
        ("parent_id", run.parent_id),
        ("group_id", run.group_id),
        ("received_at", _time(run.received_at)),
        ("eta", _time(run.eta)),
        ("started_at", _time(run.started_at)),
        ("finished_at", _time(run.finished_at)),
        ("runtime", _time(run.runtime)),
        ("exception", cut(run.exception, _EXCEPTION_MAX)),
        ("reason", run.reason),
        ("updated_at", _time(run.updated_at)),
        ("timestamp", _time(run.updated_at)),
        ("run", run.id),
    ]


def message(run: Run) -> str:
    """Say in a sentence what the task does."""
    if run.status == "completed":
        return f"Completed in {run.runtime:.3g} s" if run.runtime is not None else "Completed"
    if run.status in ("failed", "retrying") and run.exception:
        return f"{run.status.capitalize()}: {cut(run.exception, _EXCEPTION_MAX)}"
    return _SENTENCES[run.reason or run.status]


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
    "lost": "Lost with its worker",
    "worker_exited": "Its worker ended before it did",
    "end_not_seen": "Its worker no longer has it; how it ended was not seen",
}


def _other(root_id: str | None, run: Run) -> str | None:
    return None if root_id == run.task_id else root_id


def _time(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def cut(text: str | None, length: int) -> str | None:
    """Cut a text to so many characters, the last one an ellipsis where something is missing."""
    if text is None or len(text) <= length:
        return text
    return text[: max(0, length - 1)] + "…"


def _extra(run: Run, budget: int) -> str:
    share = budget - len('{"args":,"kwargs":}')
    kwargs = _fit(run.kwargs, max(share // 2, share - _size(encode_text(run.args))))
    args = _fit(run.args, share - _size(kwargs))
    return f'{{"args":{args},"kwargs":{kwargs}}}'


def _fit(text: str, budget: int) -> str:
    """Encode the text as JSON in at most so many bytes (but never less than an empty string)."""
    encoded = encode_text(text)
    while _size(encoded) > budget and text:
        # Escapes and other alphabets take more bytes than characters: come closer step by step.
        text = text[: min(len(text) - 1, len(text) * max(budget - 8, 0) // _size(encoded))]
        encoded = encode_text(text + "…") if text else '""'
    return encoded


def encode_text(text: str) -> str:
    """Encode one text as JSON; what UTF-8 cannot hold becomes ``?``."""
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
