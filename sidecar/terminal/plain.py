"""The stream as lines: for a pipe, a log, or a terminal that cannot move its cursor.

12:00:01 active     app.mail.send  4f6c…  celery@one  queue celery  Running
12:00:01 figures    total 5, active 2, pending 3, workers online 1
12:00:09 connection reconnecting: the connection broke
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Final

from celery_plugin.contract import JSON, EventType
from sidecar.terminal.follow import Item, Link, Message
from sidecar.terminal.text import clean, clock, duration, number

# What each of the figures is called, and its member.
FIGURES: Final = (
    ("total", "total_tasks"),
    ("active", "active_tasks"),
    ("pending", "pending_tasks"),
    ("reserved", "reserved_tasks"),
    ("scheduled", "scheduled_tasks"),
    ("lost", "lost_tasks"),
    ("failed in the last hour", "failed_last_hour"),
    ("workers online", "workers_online"),
)


def json_lines(items: Iterable[Item]) -> Iterator[str]:
    """Each event as one JSON object, and ``{"type":"connection",…}`` where that has changed."""
    for item in items:
        if isinstance(item, Message):
            yield dumped({"type": item.event} | item.data)
        elif isinstance(item, Link):
            told = {"type": "connection", "state": item.state, "timestamp": round(time.time(), 3)}
            yield dumped(told | ({"reason": item.words} if item.words else {}))


def dumped(value: object) -> str:
    """JSON in which nothing drives a terminal: what is not ASCII is escaped, and DEL."""
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")


def plain_lines(items: Iterable[Item]) -> Iterator[str]:
    """What happens, a line each."""
    figures = ""
    for item in items:
        if isinstance(item, Link):
            words = f": {clean(item.words)}" if item.words else ""
            yield _line(time.time(), "connection", f"{item.state}{words}")
        elif isinstance(item, Message) and item.event == EventType.SNAPSHOT:
            yield from (_task(task) for task in item.data.get("tasks") or [] if isinstance(task, dict))
        elif isinstance(item, Message) and item.event == EventType.QUEUE_STATUS:
            # They come now and then without a change.
            if (now := _figures(item.data)) != figures:
                figures = now
                yield _line(_at(item.data), "figures", now)
        elif isinstance(item, Message):
            yield _event(item.event, item.data)


def _event(event: str, data: JSON) -> str:
    if event == EventType.TASK_STATUS:
        return _task(data)
    if event == EventType.WORKER_STATUS:
        return _line(_at(data), "worker", f"{clean(data.get('worker'))} {clean(data.get('status'))}")
    more = clean(data.get("reason", data.get("code")))
    if event in (EventType.STALE, EventType.FRESH):
        more = "Redis cannot be read" if event == EventType.STALE else "Redis can be read"
    return _line(_at(data), clean(event), more)


def _task(task: JSON) -> str:
    parts = [clean(task.get("task_name")) or "?", clean(task.get("task_id")), clean(task.get("worker"))]
    if task.get("queue"):
        parts.append(f"queue {clean(task['queue'])}")
    if isinstance(runtime := task.get("runtime"), int | float):
        parts.append(f"took {duration(runtime)}")
    parts.append(clean(task.get("exception") or task.get("message")))
    return _line(_told_at(task), clean(task.get("status")), "  ".join(filter(None, parts)))


def _told_at(task: JSON) -> float:
    # Progress comes in the event of the start.
    progress = task.get("progress")
    at = progress.get("updated_at") if isinstance(progress, dict) and task.get("status") == "active" else None
    return float(at) if isinstance(at, int | float) else _at(task)


def _figures(data: JSON) -> str:
    parts = [f"{name} {number(data.get(key))}" for name, key in FIGURES if key in data]
    queues = [each for each in data.get("queues") or [] if isinstance(each, dict) and each.get("pending")]
    parts += [f"{clean(each.get('name'))}: {number(each['pending'])}" for each in queues]
    return ", ".join(parts)


def _at(data: JSON) -> float:
    for name in ("timestamp", "server_time", "since"):
        if isinstance(at := data.get(name), int | float):
            return float(at)
    return time.time()


def _line(at: float, kind: str, text: str) -> str:
    return f"{clock(at)} {kind:<10} {text}".rstrip()
