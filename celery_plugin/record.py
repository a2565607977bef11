"""What is told of a run: its JSON, in words and within the size that the contract allows.

    facts    F,               the members of the event that stay the same while the run goes on
    extra    {"args":"…","kwargs":"…"}
    step     rank TAB status TAB time [TAB message TAB moving]
      message  "…"            in words, or what the task itself reports
      moving   M              the other members, behind the head that the script writes and the facts

The facts and the extra are made once: a task is told three times. What is the same for all tasks of a kind is
made once as well, and what each open run says besides its time is left to the script: this is most of what
the plugin costs a worker's process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from celery_plugin.contract import JSON, RANKS, RECORD_MAX_BYTES, encode
from celery_plugin.operations import Operation
from celery_plugin.runs import Run, Step
from celery_plugin.texts import cut, encode_text, fit_text, size, to_microseconds

# The head that the script writes, without the names of the two workers in it:
# {"type":"task_status","status":"…","worker":…,"offset":…,"previous":{"status":"…","worker":…},"message":,
_HEAD_BYTES = 136
# A worker's name as JSON; it stands in the head twice, once for a worker that is not this one.
WORKER_MAX_BYTES = 80
_encode = json.JSONEncoder(ensure_ascii=False).encode
# What message and moving part take while nothing has gone wrong.
_MOVING_BYTES = 220
# How each step begins.
_RANKED = {status: f"{rank}\t{status}\t" for status, rank in RANKS.items()}
_OPEN = frozenset(("reserved", "scheduled", "active"))
_NAME_MAX = 200
_EXCEPTION_MAX = 160
# What is cut where all that does not fit, to so many characters, until it does.
_TEXTS = ("task_name", "queue", "message", "exception")
_SHORTER = (_NAME_MAX, 100, 50, 20, 3)
# What an extra takes that has nothing but empty texts in it.
_NO_EXTRA_BYTES = len('{"args":"","kwargs":"","result":"","traceback":""}')


def tell(run: Run, steps: Sequence[Step], worker_json: str) -> Iterator[Operation]:
    """Tell of steps of a run; each takes at most 1 KB, with the script's head, its facts and its extra.

    Only the last of them may be the run's end: what is told of an end stands in the run.
    """
    if not run.facts:
        _begin(run, _limit(worker_json))
    told: list[str] = []
    for status, at in steps:
        time = run.received if at == run.received_at else to_microseconds(at)
        is_open = status in _OPEN
        if status == "active":
            run.started = time
        if is_open and run.room >= _MOVING_BYTES:
            told.append(_RANKED[status] + time)
            continue
        text = encode_text(sentence(status) if is_open else message(run))
        moving = _open_moving(status, time) if is_open else _ended_moving(run, time)
        if run.result is None and run.traceback is None and size(text) + size(moving) <= run.room:
            told.append(step(status, time, text, moving))
            continue
        if told:
            yield Operation(run.id, worker_json, run.task_id, run.facts, run.extra, "\n".join(told))
            told = []
        members = json.loads(f'{{"message":{text},{run.facts}{moving}}}')
        extra, squeezed = squeeze(status, members, run.arguments if is_open else run.texts, worker_json)
        yield Operation(run.id, worker_json, run.task_id, "", extra, squeezed)
    if told:
        yield Operation(run.id, worker_json, run.task_id, run.facts, run.extra, "\n".join(told))


def squeeze(status: str, members: JSON, texts: Mapping[str, str], worker_json: str) -> tuple[str, str]:
    """Make an extra and a step of what takes much room; names and exception are cut if nothing else helps."""
    limit, time = _limit(worker_json), f"{members['updated_at']:.6f}"
    text = rest = ""
    for length in _SHORTER:
        short = {name: cut(value, length) if name in _TEXTS else value for name, value in members.items()}
        text, rest = encode_text(short.pop("message")), encode(short)[1:-1]
        if size(text) + size(rest) + _NO_EXTRA_BYTES <= limit:
            break
    extra = _extra(texts, limit - size(text) - size(rest))
    return extra, step(status, time, text, rest)


def step(status: str, time: str, text: str, moving: str) -> str:
    """Make a step of its time and its message as JSON."""
    return f"{_RANKED[status]}{time}\t{text}\t{moving}"


@lru_cache(maxsize=100)
def _limit(worker_json: str) -> int:
    return RECORD_MAX_BYTES - _HEAD_BYTES - size(worker_json) - WORKER_MAX_BYTES


def _begin(run: Run, limit: int) -> None:
    run.received = to_microseconds(run.received_at)
    run.facts = _facts(run)
    room = limit - size(run.facts)
    run.extra = _extra(run.arguments, room - _MOVING_BYTES)
    run.room = room - size(run.extra)


def _facts(run: Run) -> str:
    name, queue = run.task_name, run.queue
    if len(name) > _NAME_MAX or (queue is not None and len(queue) > _NAME_MAX):
        name, queue = cut(name, _NAME_MAX), None if queue is None else cut(queue, _NAME_MAX)
    family = ""
    if run.root_id is not None and run.root_id != run.task_id:
        family = f'"root_id":{_encode(run.root_id)},'
    if run.parent_id is not None:
        family += f'"parent_id":{_encode(run.parent_id)},'
    if run.group_id is not None:
        family += f'"group_id":{_encode(run.group_id)},'
    eta = "" if run.eta is None else f'"eta":{run.eta!r},'
    return (
        f'"position":null,"task_id":{encode_text(run.task_id)},'
        f"{_kind(name, queue, run.attempt, run.max_retries, run.priority)}{family}"
        f'"received_at":{_shortest(run.received)},{eta}"run":{encode_text(run.id)},'
    )


@lru_cache(maxsize=1000)
def _kind(
    task_name: str, queue: str | None, attempt: int, max_retries: int | None, priority: int | None
) -> str:
    """The facts that many tasks have in common."""
    kind = f'"task_name":{encode_text(task_name)},'
    if queue is not None:
        kind += f'"queue":{encode_text(queue)},'
    kind += f'"attempt":{attempt},'
    if max_retries is not None:
        kind += f'"max_retries":{max_retries},'
    return kind if priority is None else f'{kind}"priority":{priority},'


def _ended_moving(run: Run, time: str) -> str:
    ending = f'"finished_at":{time},'
    if run.started_at is not None:
        ending = f'"started_at":{run.started or to_microseconds(run.started_at)},{ending}'
    if run.runtime is not None:
        ending += f'"runtime":{run.runtime:.6f},'
    if run.exception is not None:
        ending += f'"exception":{encode_text(cut(run.exception, _EXCEPTION_MAX))},'
    if run.reason is not None:
        ending += f'"reason":"{run.reason}",'
    return f'{ending}"updated_at":{time},"timestamp":{time}'


def _open_moving(status: str, time: str) -> str:
    """What the script makes of a step without one."""
    started = f'"started_at":{time},' if status == "active" else ""
    return f'{started}"updated_at":{time},"timestamp":{time}'


def _shortest(time: str) -> str:
    """Without zeros at the end, as `repr` has it."""
    text = time.rstrip("0")
    return f"{text}0" if text[-1] == "." else text


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


# What the script says in a step without a message, TAB between them.
OPEN_MESSAGES = "\t".join(encode_text(_SENTENCES[status]) for status in ("reserved", "scheduled", "active"))


def _extra(texts: Mapping[str, str], budget: int) -> str:
    """Encode the texts; each gets an equal share, and leaves to the others what it does not need."""
    whole = ",".join([f'"{name}":{encode_text(text)}' for name, text in texts.items()])
    if size(whole) + 2 <= budget:
        return f"{{{whole}}}"
    left = budget - sum(len(f'"{name}":,') for name in texts) - 1
    encoded: dict[str, str] = {}
    for name in sorted(texts, key=lambda name: len(texts[name])):
        # The end of a traceback says what happened.
        budget = left // (len(texts) - len(encoded))
        encoded[name] = fit_text(texts[name], budget, keep_end=name == "traceback")
        left -= size(encoded[name])
    return "{" + ",".join([f'"{name}":{encoded[name]}' for name in texts]) + "}"
