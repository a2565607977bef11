"""Reads the messages of a Redis broker as Celery's producers write them, whoever wrote one.

    {"body","content-encoding","content-type","headers","properties"}   kombu's, a JSON object

With Celery's protocol 2 everything that is shown stands in the headers, so the body is left closed: it may be
pickled. With protocol 1 it stands in the body, which is read where it is JSON. A message that is no task, or
that cannot be read, still has its place in the queue; it is shown without an id, and why.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import datetime
from typing import Any

from celery_plugin.capture import Capture
from celery_plugin.contract import JSON

# Parsing holds up the loop: of a larger message, which Celery warns against, only the place is shown.
MESSAGE_MAX_BYTES = 1024 * 1024
# Celery's ids have 36 characters; whoever makes longer ones must not make answers long.
TEXT_MAX_CHARS = 1000


class NotATask(Exception):
    """Raised when a message is not shown as a task; says why."""


def read_message(message: bytes, capture: Capture) -> JSON:
    """What is shown of a message; its ``task_id`` is null where it is no task that can be read."""
    try:
        envelope = _envelope(message)
        return _shown(_fields(envelope), envelope, capture)
    except NotATask as error:
        return {**dict.fromkeys(_SHOWN), "unreadable": str(error)}


def read_id(message: bytes) -> str | None:
    """The id of the task that a message is of; None where it is none that can be read."""
    try:
        return _text(_fields(_envelope(message)).get("id"))
    except NotATask:
        return None


_SHOWN = ("task_id", "task_name", "priority", "attempt", "eta", "args", "kwargs")


def _shown(fields: JSON, envelope: JSON, capture: Capture) -> JSON:
    task_id, retries = _text(fields.get("id")), fields.get("retries")
    if task_id is None:
        raise NotATask("it has no id")
    return {
        "task_id": task_id,
        "task_name": _text(fields.get("shadow")) or _text(fields.get("task")),
        "priority": _small(envelope["properties"].get("priority")),
        "attempt": 1 + (_small(retries) or 0),
        "eta": _time(fields.get("eta")),
        "args": _captured("args", fields.get("argsrepr"), capture),
        "kwargs": _captured("kwargs", fields.get("kwargsrepr"), capture),
    }


def _captured(name: str, value: object, capture: Capture) -> str | None:
    return capture.text(name, value) if isinstance(value, str) else None


def _envelope(message: bytes) -> JSON:
    if len(message) > MESSAGE_MAX_BYTES:
        raise NotATask("it is too long to be read")
    envelope = _parse(message)
    properties, headers = envelope.get("properties"), envelope.get("headers")
    if not isinstance(properties, dict) or not isinstance(headers or {}, dict):
        raise NotATask("it is no message of Celery")
    return {**envelope, "properties": properties, "headers": headers or {}}


def _fields(envelope: JSON) -> JSON:
    headers: JSON = envelope["headers"]
    if "task" in headers:
        return headers
    body = _body(envelope)
    args, kwargs = body.get("args") or [], body.get("kwargs") or {}
    if "task" not in body or not isinstance(args, list) or not isinstance(kwargs, dict):
        raise NotATask("it is no message of Celery")
    try:
        return {**body, "argsrepr": repr(tuple(args)), "kwargsrepr": repr(kwargs)}
    except (RecursionError, ValueError) as error:
        raise NotATask("its arguments are too deep") from error


def _body(envelope: JSON) -> JSON:
    """The body of protocol 1. Never unpickled: whoever may write to the broker could run code here."""
    if envelope.get("content-type") != "application/json" or "compression" in envelope["headers"]:
        raise NotATask("its body is not JSON")
    body = envelope.get("body")
    if not isinstance(body, str):
        raise NotATask("it has no body")
    if envelope["properties"].get("body_encoding") != "base64":
        return _parse(body.encode("utf-8", "replace"))
    try:
        return _parse(base64.b64decode(body))
    except ValueError as error:
        raise NotATask("its body is not base64") from error


def _parse(text: bytes) -> JSON:
    try:
        parsed: Any = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise NotATask("it is not JSON") from error
    if not isinstance(parsed, dict):
        raise NotATask("it is no message of Celery")
    return parsed


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= TEXT_MAX_CHARS else None


def _small(value: object) -> int | None:
    # Integers of any length are JSON.
    return value if type(value) is int and 0 <= value < 2**31 else None


def _time(value: object) -> float | None:
    """Read an ETA as the worker's Celery does, to seconds since the epoch."""
    if _text(value) is None:
        return None
    try:
        seconds = datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return seconds if math.isfinite(seconds) else None
