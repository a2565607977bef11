"""Logs: one record a line, whatever is logged."""

import io
import json
import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.log_setup import JsonFormatter, TextFormatter, escaped, without_credentials

FORGED = "done\r\n2026-01-01T00:00:00.000Z INFO root: forged \x1b[2J\u2028\u202e\x7f\x9b"


def logged(formatter: logging.Formatter, message: str, error: Exception | None = None) -> str:
    """Format a record as a handler would write it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    exc_info = (type(error), error, error.__traceback__) if error else None
    handler.handle(logging.LogRecord("sidecar.test", logging.INFO, __file__, 1, message, None, exc_info))
    return stream.getvalue()


def test_text() -> None:
    """A text record has time in UTC, level, logger and message."""
    time, rest = logged(TextFormatter(), "hello").split(" ", 1)
    assert "INFO sidecar.test: hello\n" == rest
    assert (24, "T", "Z") == (len(time), time[10], time[-1])


def test_json() -> None:
    """A JSON record has the same as members."""
    record = json.loads(logged(JsonFormatter(), "hello"))
    assert {"level": "info", "logger": "sidecar.test", "message": "hello"} == {
        name: value for name, value in record.items() if name != "time"
    }


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_no_line_is_injected(formatter: logging.Formatter) -> None:
    """Line ends, terminal sequences and reversing marks in a message are written as escapes."""
    text = logged(formatter, FORGED)
    assert 1 == len(text.splitlines())
    assert text.isascii()
    assert text[:-1].isprintable()


def test_no_record_is_forged_in_a_traceback() -> None:
    """The lines of an exception are indented, so none of them looks like a record."""
    first, *rest = logged(TextFormatter(), "failed", ValueError(FORGED)).splitlines()
    assert first.endswith("failed")
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_traceback_in_json() -> None:
    """An exception stays one JSON line and comes back as it was."""
    text = logged(JsonFormatter(), "failed", ValueError(FORGED))
    assert 1 == len(text.splitlines())
    assert FORGED in json.loads(text)["traceback"]


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_escaped(text: str) -> None:
    """No text breaks a line, and what is harmless stays as it is."""
    assert len(escaped(text).splitlines()) <= 1
    assert escaped(text) == escaped(escaped(text))


TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjE3OTB9.c2lnbmF0dXJl-_x"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
@pytest.mark.parametrize(
    "message",
    [
        f"GET /api/v1/queue/events?ticket={TOKEN}&queue=high",
        f"GET /api/v1/queue/events?queue=high&%74icket={TOKEN}",
        f"GET /api/v1/queue/events?queue=high&x={TOKEN.replace('.', '%2E')}",
        "GET /x?access_token=c2lnbmF0dXJl&queue=high",
        "GET /x?queue=high&token=c2lnbmF0dXJl",
        f"Authorization: Bearer {TOKEN}, queue=high",
        "authorization: bearer  c2lnbmF0dXJl; queue=high",
        f"Cookie: __Host-celery-sidecar={TOKEN}; queue=high",
        "Cookie: celery-sidecar=c2lnbmF0dXJl; queue=high",
    ],
)
def test_no_credential_is_logged(formatter: logging.Formatter, message: str) -> None:
    """What lets somebody in is cut out of messages and tracebacks; what stands beside it stays."""
    for text in (logged(formatter, message), logged(formatter, "failed", ValueError(message))):
        assert "***" in text
        assert "queue=high" in text
        assert "c2ln" not in text
        assert "eyJ" not in text


@pytest.mark.parametrize(
    "message", ["GET /x?q=token&task_id=1", "the token has expired", "a bearer", "eyJ.a"]
)
def test_what_is_no_credential_stays(message: str) -> None:
    """Nothing else is cut."""
    assert message == without_credentials(message)


@pytest.mark.parametrize(("log_format", "start"), [("text", "20"), ("json", "{")])
def test_set_up(log_format: str, start: str) -> None:
    """Records of every logger, uvicorn's and warnings too, come out once on stderr, from the level on."""
    program = f"""
import logging, warnings
from sidecar import log_setup
logging.getLogger("uvicorn").addHandler(logging.StreamHandler())
logging.getLogger("uvicorn").propagate = False
log_setup.set_up("info", "{log_format}")
log_setup.set_up("info", "{log_format}")
logging.getLogger("sidecar").debug("too fine")
logging.getLogger("sidecar").info("ours")
logging.getLogger("uvicorn.error").info("uvicorn's")
logging.getLogger("uvicorn.access").info('%s - "%s"', "1.2.3.4", "GET /\\n")
warnings.warn("careful")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = run.stderr.splitlines()
    assert "" == run.stdout
    assert 4 == len(lines), run.stderr
    assert all(line.startswith(start) for line in lines)
    assert ["ours" in lines[0], "uvicorn's" in lines[1], "GET" in lines[2], "careful" in lines[3]] == [
        True
    ] * 4
