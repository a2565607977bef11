"""What a task says of its progress: the meta of ``update_state`` → the JSON that is shown.

    {"message":"…","state":"UPLOADING","current":3,"total":8,"percent":37.5,"updated_at":1700000000.123}

Only ``updated_at`` is always there, and the message stands first: that is where the script looks for it.

It takes two steps. A task may change its meta as soon as it has given it, so `read` copies what counts at
once; of a thousand updates a second ten are shown, so `tell` makes the JSON of those alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NamedTuple

from celery.states import ALL_STATES, IGNORED, REJECTED

from celery_plugin.texts import cut, fit_text

# It stands in a record of 1 KB, the message twice.
JSON_MAX_BYTES = 200
MESSAGE_MAX = 80
_STATE_MAX_BYTES = 40

# Of a text that may hold secrets more is read than is shown: the end says what the beginning is.
_TEXT_MAX = 240

# Beyond it a number says nothing to a person, and from 2^53 on a browser shows another one.
_NUMBER_MAX = 1e15

CURRENT = ("current", "done")
TOTAL = ("total",)
PERCENT = ("percent", "progress")
TEXT = ("message", "description", "status")

PROGRESS_STATE = "PROGRESS"
# They say where a task is, not how far: Celery and many a task write them by ``update_state`` too.
_NOT_PROGRESS = ALL_STATES | {IGNORED, REJECTED}

_NOTHING = (None, None, None, None, None)

Redact = Callable[[str], str]


class Said(NamedTuple):
    """What a task has said, still as it said it; ``at`` in seconds since the epoch."""

    at: float
    state: str | None
    text: str | None
    current: float | None
    total: float | None
    percent: float | None
    # Where there is no percent: 0 to 1.
    fraction: float | None


def read(state: Any, meta: Any, at: float) -> Said | None:
    """Copy what is understood of an update; None where it is no progress."""
    if state in _NOT_PROGRESS:
        return None
    shown_state = state[:MESSAGE_MAX] if isinstance(state, str) and state != PROGRESS_STATE else None
    if isinstance(meta, dict):
        known = (_text_in(meta), _number_in(meta, CURRENT), _number_in(meta, TOTAL), *_percent_in(meta))
        if known != _NOTHING:
            return Said(at, shown_state, *known)
    return Said(at, shown_state, _whole(meta), *_NOTHING[1:])


def tell(said: Said, redact: Redact) -> str:
    """Make the JSON, of at most 200 bytes of UTF-8."""
    rest = _rest(said)
    if not said.text:
        return f"{{{rest}}}"
    text = cut(redact(said.text), MESSAGE_MAX)
    budget = JSON_MAX_BYTES - len('{"message":,}') - len(rest.encode("utf-8", "replace"))
    return f'{{"message":{fit_text(text, budget)},{rest}}}'


# -- read ------------------------------------------------------------------------------------------------


def _text_in(meta: dict[Any, Any]) -> str | None:
    for name in TEXT:
        value = meta.get(name)
        if isinstance(value, str) and (text := value[:_TEXT_MAX].strip()):
            return text
    return None


def _number_in(meta: dict[Any, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        number = _number(meta.get(name))
        if number is not None:
            return number
    return None


def _percent_in(meta: dict[Any, Any]) -> tuple[float | None, float | None]:
    """The percent as it stands there, or the fraction: a ``progress`` that is no whole number, up to 1."""
    percent, progress = (_number(meta.get(name)) for name in PERCENT)
    if percent is not None or progress is None:
        return percent, None
    # `done / total` is a float also where it is 1.0; 1 is what counts in percent begins with.
    return (progress, None) if isinstance(progress, int) or progress > 1 else (None, progress)


def _number(value: Any) -> float | None:
    """Take a number that is not absurd; it is one that cannot change any more."""
    if isinstance(value, bool):
        return None
    if not isinstance(value, (int, float)):
        value = _converted(value)
    # Not-a-number is not between them either.
    return value if value is not None and 0 <= value <= _NUMBER_MAX else None


def _converted(value: Any) -> float | None:
    """Those of other kinds: numpy's, decimals, fractions."""
    if not isinstance(value, (Real, Decimal)):
        return None
    try:
        return int(value) if isinstance(value, Integral) else float(value)
    except (ValueError, OverflowError):
        return None


def _whole(meta: Any) -> str | None:
    if meta is None or meta == {}:
        return None
    if isinstance(meta, str):
        return cut(meta[: _TEXT_MAX + 1].strip(), _TEXT_MAX)
    text = ""
    for piece in _repr(meta):
        text += piece
        if len(text) > _TEXT_MAX:
            break
    return cut(text, _TEXT_MAX)


def _repr(value: Any) -> Iterator[str]:
    """Write a repr piece by piece: of a large meta no more than is read (Celery's goes through all of it)."""
    if isinstance(value, dict):
        yield "{"
        for number, (key, item) in enumerate(value.items()):
            yield ", " if number else ""
            yield from _repr(key)
            yield ": "
            yield from _repr(item)
        yield "}"
    elif isinstance(value, (list, tuple)):
        yield "[" if isinstance(value, list) else "("
        for number, item in enumerate(value):
            yield ", " if number else ""
            yield from _repr(item)
        yield "]" if isinstance(value, list) else ",)" if len(value) == 1 else ")"
    else:
        yield repr(value[:_TEXT_MAX] if isinstance(value, (str, bytes)) else value)


# -- tell ------------------------------------------------------------------------------------------------


def _rest(said: Said) -> str:
    parts = [f'"state":{fit_text(said.state, _STATE_MAX_BYTES)}'] if said.state else []
    for name, value in (("current", said.current), ("total", said.total), ("percent", _percent(said))):
        if value is not None:
            parts.append(f'"{name}":{_json(value)}')
    parts.append(f'"updated_at":{said.at:.3f}')
    return ",".join(parts)


def _percent(said: Said) -> float | None:
    given = 100 * said.fraction if said.fraction is not None else said.percent
    if given is not None and given < 100.05:
        return round(given, 1)
    if said.current is None or not said.total:
        return None
    computed = round(100 * said.current / said.total, 1)
    # What is not done is never shown as done.
    return min(computed, 100 if said.current >= said.total else 99.9)


def _json(number: float) -> str:
    rounded = round(number, 3)
    return str(int(rounded)) if rounded == math.floor(rounded) else repr(rounded)
