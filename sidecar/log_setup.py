"""Logs: text or JSON, one record a line on stderr, uvicorn's included.

Task names, exceptions and requests come from elsewhere and are logged, so control characters are escaped:
nothing that is logged can start a line of its own or drive a terminal. Addresses and headers may carry what
lets somebody in, so that is cut.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime, timezone
from typing import Any

from sidecar.request_ids import current

# C0, C1 and DEL; Unicode's line ends; marks that reverse the direction of text; lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# A JWT begins with an encoded `{"`, wherever it stands; the rest is for what is none, mistyped or cut.
_CREDENTIALS = re.compile(
    r"""(?P<before>[?&](?:ticket|token|access_token)=|\bbearer\s+|\bcelery-sidecar=)[^&\#\s"',;]+
    |eyJ[\w\-]{6,}(?:(?:\.|%2e)[\w\-]*){1,2}""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_UVICORN_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


def set_up(level: str, log_format: str) -> None:
    """Send every log record to stderr in the format; start uvicorn with ``log_config=None``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _UVICORN_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)


def escaped(text: str) -> str:
    """Write every character that could break a line or drive a terminal as an escape."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def without_credentials(text: str) -> str:
    """Replace every token, ticket and cookie by ``***``."""
    return _CREDENTIALS.sub(lambda match: f"{match['before'] or ''}***", text)


class TextFormatter(logging.Formatter):
    """Formats a record as a line; the lines of a traceback are indented, so none looks like a record."""

    def format(self, record: logging.LogRecord) -> str:
        request = f" [{request_id}]" if (request_id := current.get()) else ""
        head = f"{_time(record)} {record.levelname} {_source(record)}{request}: {escaped(_message(record))}"
        trace = _traceback(self, record)
        return "\n".join([head, *("    " + escaped(line) for line in trace.split("\n") if trace)])


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if process := _process(record):
            fields["process"] = process
        if request_id := current.get():
            fields["request_id"] = request_id
        fields |= _fields(record)
        trace = _traceback(self, record)
        if trace:
            fields["traceback"] = trace
        # JSON escapes every control character but DEL.
        return json.dumps(fields).replace("\x7f", "\\u007f")


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _source(record: logging.LogRecord) -> str:
    return " ".join(filter(None, (_process(record), record.name)))


def _process(record: logging.LogRecord) -> str | None:
    """Which one of several processes it is of."""
    return record.processName if record.processName != "MainProcess" else None


def _message(record: logging.LogRecord) -> str:
    return without_credentials(record.getMessage())


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record has besides its message, for programs."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    return {
        name: without_credentials(value) if type(value) is str else value for name, value in fields.items()
    }


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return without_credentials("\n".join(parts))
