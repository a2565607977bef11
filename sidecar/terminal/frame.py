"""One frame of the live view: the picture, laid out for a terminal of some size.

celery-sidecar  http://127.0.0.1:8000                       ● live
total 5   active 2   pending 0   …
QUEUE …        a third of the room at most
WORKER …       a third of the room at most
TASK …         the rest
q quits
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Sequence
from typing import Any, Final

from celery_plugin.contract import JSON
from sidecar.terminal.follow import OPEN, WAITING
from sidecar.terminal.lines import SIGNS, Column, Line, Segment, table
from sidecar.terminal.picture import QUIET_SECONDS, Picture
from sidecar.terminal.text import cells, clean, clock, cut, duration, fit, number

_QUEUES: Final = (
    Column("QUEUE", 8, 40),
    Column("PENDING", 7, 12, 0, right=True),
    Column("CONSUMERS", 10, 16, 1),
)
_WORKERS: Final = (
    Column("WORKER", 8, 40),
    Column("STATE", 8, 8),
    Column("BUSY", 5, 9, 1, right=True),
    Column("POOL", 7, 12, 3),
    Column("QUEUES", 6, 60, 2),
)
_TASKS: Final = (
    Column("STATE", 11, 11),
    Column("TASK", 18, 46, 0),
    Column("TIME", 9, 12, 0, right=True),
    Column("PROGRESS", 16, 16, 1),
    Column("ID", 8, 8, 5),
    Column("QUEUE", 6, 16, 4),
    Column("TRY", 3, 5, 6),
    Column("WORKER", 8, 24, 3),
    Column("MESSAGE", 16, 60, 2),
)
_BAR_CELLS: Final = 10
_ORDER: Final = {"active": 0, "lost": 1, "reserved": 2, "scheduled": 3}


def make_frame(picture: Picture, url: str, width: int, height: int) -> list[Line]:
    """Lay out; at most ``height`` lines."""
    lines = [_head(picture, url, width), *_figures(picture, width)]
    room = height - len(lines) - 1
    queues = _queue_rows(picture.figures)
    workers = _worker_rows(picture)
    # A section is its blank line, its head and a row; what is too little for that is left to the others.
    for columns, rows, share in ((_QUEUES, queues, 3), (_WORKERS, workers, 3)):
        section = _section(columns, rows, len(rows), width, min(room // 2, max(room // share, 4)))
        lines += section
        room -= len(section)
    lines += _tasks(picture, width, room)
    return [*lines[: height - 1], _foot(picture, width)] if height > 1 else lines[:height]


def _head(picture: Picture, url: str, width: int) -> Line:
    state, style = _state(picture)
    name = "celery-sidecar  "
    room = width - cells(state) - 1
    left = cut(name + url, room) if room > 0 else ""
    blank = " " * max(0, width - cells(left) - cells(state))
    return [(left, "title"), (blank, ""), (state, style)]


def _state(picture: Picture) -> Segment:
    """Say how fresh everything is."""
    link = picture.link
    if link.state == WAITING:
        seconds = max(0, math.ceil(link.retry_at - time.monotonic()))
        return f"○ reconnecting in {seconds} s: {clean(link.words)}", "bad"
    if link.state != OPEN:
        return ("○ reconnecting …" if picture.begun else "○ connecting …"), "warn"
    if picture.stale_since is not None:
        return f"○ Redis unreachable since {clock(picture.stale_since)}", "bad"
    if picture.silence >= QUIET_SECONDS:
        return f"○ no sign of life for {duration(picture.silence)}", "bad"
    return ("● live", "good") if picture.fresh else ("○ loading …", "warn")


def _figures(picture: Picture, width: int) -> list[Line]:
    told = picture.figures
    if not told:
        return [[("no figures so far", "dim")]]
    parts: list[Segment] = [
        (f"{name} {number(told.get(key))}", style if told.get(key) else "")
        for name, key, style in (
            ("total", "total_tasks", "title"),
            ("active", "active_tasks", "active"),
            ("pending", "pending_tasks", ""),
            ("reserved", "reserved_tasks", ""),
            ("scheduled", "scheduled_tasks", ""),
            ("lost", "lost_tasks", "lost"),
            ("failed 1 h", "failed_last_hour", "failed"),
            ("workers", "workers_online", ""),
        )
        if key in told
    ]
    if isinstance(oldest := told.get("oldest_waiting_s"), int | float):
        parts.append((f"oldest waiting ≥ {duration(oldest)}", ""))
    return _wrapped(parts, width)


def _wrapped(parts: Sequence[Segment], width: int) -> list[Line]:
    lines: list[Line] = [[]]
    for text, style in parts:
        used = sum(cells(each) for each, _ in lines[-1])
        if used and used + 3 + cells(text) > width:
            lines.append([])
        lines[-1] += [("   ", "")] if lines[-1] else []
        lines[-1].append((text, style))
    return lines


def _section(
    columns: Sequence[Column], rows: Sequence[Sequence[Segment]], total: int, width: int, room: int
) -> list[Line]:
    """A blank line, the head, rows, and how many there are besides."""
    if not rows or room < 3:
        return []
    shown = rows[: room - 2] if total <= room - 2 else rows[: room - 3]
    lines: list[Line] = [[], *table(columns, shown, width)]
    if total > len(shown):
        lines.append([(f"… and {total - len(shown):,} more", "dim")])
    return lines


def queue_table(figures: JSON, width: int) -> list[Line]:
    """Every queue, the fullest first, below a blank line."""
    rows = _queue_rows(figures)
    return _section(_QUEUES, rows, len(rows), width, len(rows) + 3)


def _queue_rows(figures: JSON) -> list[list[Segment]]:
    queues = [each for each in figures.get("queues") or [] if isinstance(each, dict)]
    queues.sort(key=lambda queue: (-_count(queue.get("pending")), clean(queue.get("name"))))
    return [[(clean(each.get("name")), ""), _depth(each), _consumers(each)] for each in queues]


def _depth(queue: JSON) -> Segment:
    return number(queue.get("pending")), "title" if queue.get("pending") else "dim"


def _consumers(queue: JSON) -> Segment:
    return ("no workers", "warn") if queue.get("consumers") == 0 else (number(queue.get("consumers")), "")


def _worker_rows(picture: Picture) -> list[list[Segment]]:
    busy: dict[str, int] = {}
    for task in picture.tasks.values():
        if task.get("status") == "active":
            worker = clean(task.get("worker"))
            busy[worker] = busy.get(worker, 0) + 1
    workers = sorted(picture.workers.values(), key=lambda each: clean(each.get("worker")))
    return [_worker_row(each, busy) for each in workers]


def _worker_row(worker: JSON, busy: dict[str, int]) -> list[Segment]:
    name, state = clean(worker.get("worker")), clean(worker.get("status"))
    queues = worker.get("queues")
    return [
        (name, ""),
        (state, "good" if state == "online" else "warn"),
        (f"{busy.get(name, 0)}/{number(worker.get('concurrency'))}", ""),
        (clean(worker.get("pool")), ""),
        (", ".join(map(clean, queues)) if isinstance(queues, list) else "", ""),
    ]


def _tasks(picture: Picture, width: int, room: int) -> list[Line]:
    if room < 3:
        return []
    ended = [task for _, task in picture.ended][: max(1, room // 4)]
    tasks = _first(picture.tasks.values(), room)
    now = picture.now()
    rows = [_task_row(task, now) for task in [*tasks, *ended]]
    known = len(picture.tasks)
    if picture.truncated:
        # More wait than the snapshot had; the figures know all.
        known = max(known, sum(_count(picture.figures.get(f"{name}_tasks")) for name in _ORDER))
    return _section(_TASKS, rows, known + len(ended), width, room)


def _first(tasks: Any, count: int) -> list[JSON]:
    """So many in their order: what runs, the longest first; the end of a frame is cut off anyway."""
    return heapq.nsmallest(count, tasks, key=lambda task: (_ORDER.get(task.get("status"), 9), _began(task)))


def _began(task: JSON) -> float:
    at = task.get("started_at") or task.get("eta") or task.get("received_at")
    return float(at) if isinstance(at, int | float) else math.inf


def _task_row(task: JSON, now: float) -> list[Segment]:
    status = clean(task.get("status"))
    ended = status not in _ORDER
    style = "dim" if ended else ""
    return [
        (f"{SIGNS.get(status, '·')} {status}", status if status in SIGNS else ""),
        (clean(task.get("task_name")) or "?", style),
        (_time(task, status, now), style),
        (progress(task) if status == "active" else "", style),
        (clean(task.get("task_id"))[:8], "dim"),
        (clean(task.get("queue")), style),
        (_attempt(task), style),
        (clean(task.get("worker")), style),
        (clean(task.get("exception") if ended else task.get("message")), style),
    ]


def _time(task: JSON, status: str, now: float) -> str:
    """How long it runs or ran; until when it waits."""
    started, until = task.get("started_at"), now
    if status == "scheduled" and isinstance(task.get("eta"), int | float):
        return f"in {duration(max(0.0, task['eta'] - now))}"
    if status not in _ORDER:
        until = task.get("finished_at") or now
    elif status == "lost":
        # Its clock stopped when its worker was heard of last.
        until = task.get("lost_at") or now
    if status == "reserved":
        started = task.get("received_at")
    if not isinstance(started, int | float) or not isinstance(until, int | float):
        return ""
    return duration(max(0.0, until - started))


def progress(task: JSON) -> str:
    """A bar and the percentage, or the numbers where there is no total; empty where nothing is reported."""
    told = task.get("progress")
    if not isinstance(told, dict):
        return ""
    percent, current = told.get("percent"), told.get("current")
    if isinstance(percent, int | float):
        full = round(min(100.0, max(0.0, percent)) / 100 * _BAR_CELLS)
        return f"{'█' * full}{'░' * (_BAR_CELLS - full)} {percent:3.0f} %"
    return clean(current) if isinstance(current, int | float) else ""


def _attempt(task: JSON) -> str:
    attempt, most = task.get("attempt"), task.get("max_retries")
    if not isinstance(attempt, int):
        return ""
    return f"{attempt}/{most + 1}" if isinstance(most, int) else str(attempt)


def _foot(picture: Picture, width: int) -> Line:
    hint = "q quits"
    if picture.begun and not picture.fresh:
        return [(fit(f"{hint}   what is shown is {duration(picture.silence)} old", width), "warn")]
    return [(hint, "dim")]


def _count(value: object) -> int:
    return value if isinstance(value, int) else -1
