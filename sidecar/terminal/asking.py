"""Asks a sidecar over HTTP, with the standard library; says in words why there is no answer."""

from __future__ import annotations

import json
import socket
import ssl
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Final

from celery_plugin.contract import JSON
from sidecar.terminal.target import NoToken, Target
from sidecar.terminal.text import clean

STATUS: Final = "/api/v1/queue/status"
EVENTS: Final = "/api/v1/queue/events"
ANSWER_SECONDS: Final = 10.0
# What the sidecar answers to a question without a list is a few KB; whatever else listens may never end.
ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024
# These become no better by being asked again.
_FINAL: Final = frozenset({204, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406, 410, 414, 421})


class NoAnswer(Exception):
    """Raised when there is no answer; ``final`` where asking again is of no use."""

    def __init__(self, words: str, *, final: bool = False) -> None:
        super().__init__(words)
        self.final = final


def ask(target: Target, path: str, *, seconds: float = ANSWER_SECONDS) -> JSON:
    """Ask one question and return the answer; raises NoAnswer."""
    response = open_answer(target, path, seconds=seconds)
    try:
        return _object(response.read(ANSWER_MAX_BYTES))
    except (OSError, HTTPException) as error:
        raise NoAnswer(_words(error)) from None
    finally:
        response.close()


def open_answer(
    target: Target, path: str, headers: dict[str, str] | None = None, *, seconds: float
) -> HTTPResponse:
    """Ask, and return the answer once its head has come with 200; raises NoAnswer.

    ``seconds`` is how long nothing may come. Whoever closes the answer closes the connection.
    """
    try:
        sent = {"User-Agent": "celery-sidecar", "Connection": "close"}
        sent |= target.authorization() | (headers or {})
    except NoToken as error:
        raise NoAnswer(str(error), final=True) from None
    connection = _connection(target, seconds)
    try:
        connection.request("GET", target.path + path, headers=sent)
        response = connection.getresponse()
    except (OSError, HTTPException) as error:
        connection.close()
        # What is wrong with a certificate or a name is wrong the next time, too, but may be mended.
        raise NoAnswer(_words(error)) from None
    if response.status != 200:
        with response:
            raise _refusal(response)
    return response


def _connection(target: Target, seconds: float) -> HTTPConnection:
    if target.scheme == "https":
        return HTTPSConnection(
            target.host, target.port, timeout=seconds, context=ssl.create_default_context()
        )
    return HTTPConnection(target.host, target.port, timeout=seconds)


def _refusal(response: HTTPResponse) -> NoAnswer:
    try:
        problem = _object(response.read(ANSWER_MAX_BYTES))
    except (OSError, HTTPException, NoAnswer):
        problem = {}
    title = clean(problem.get("title") or response.reason)[:100]
    detail = clean(problem.get("detail"))[:300]
    words = f"{response.status} {title}{': ' if detail else ''}{detail}"
    return NoAnswer(words, final=response.status in _FINAL)


def _object(body: bytes) -> JSON:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise NoAnswer("what answers there is no sidecar", final=True)
    return answer


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {clean(error.verify_message)}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {clean(error.reason)}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return f"its name is not known: {clean(error.strerror)}"
    if isinstance(error, OSError):
        return clean(error.strerror or error)
    return "what answers there does not speak HTTP"
