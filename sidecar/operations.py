"""Every question that may be asked, declared once: router, OpenAPI document and page are made of it.

A parameter that stands in none of them is refused, and an endpoint without a declaration keeps the sidecar
from starting, as does a declaration without an endpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from celery_plugin.contract import EXTRA_FIELDS, JSON, RANKS
from sidecar.credentials import TICKET
from sidecar.filters import SEARCH, VALUE_MAX_CHARS, VALUES_MAX
from sidecar.history import STATUSES as ENDED_STATUSES
from sidecar.json_schema import many, text, word
from sidecar.pages import LIMIT_DEFAULT, LIMIT_MAX
from sidecar.parameters import ALL, LAST_EVENT_ID, TYPES
from sidecar.paths import API_DOCS, METRICS, OPENAPI, SESSION, TICKETS
from sidecar.queries import STATUSES as OPEN_STATUSES
from sidecar.snapshot import WAITING_MAX

JSON_TYPE: Final = "application/json"
STREAM_TYPE: Final = "text/event-stream"
HTML_TYPE: Final = "text/html"
# Also in OpenMetrics, for who asks for that.
TEXT_TYPE: Final = "text/plain"


class Needs(Enum):
    """Who is answered."""

    NOTHING = "anybody, also without a token"
    SOME_SCOPE = "who may read something: the answer is about that alone"
    EVERYTHING = "who may read everything"
    BEARER = "who shows a token in the header Authorization"


@dataclass(frozen=True)
class Parameter:
    """What a request may say besides its path."""

    name: str
    text: str
    schema: JSON
    required: bool = False
    place: str = "query"


@dataclass(frozen=True)
class Answer:
    """What is answered where all is well."""

    status: int
    text: str
    schema: str = ""
    media_type: str = JSON_TYPE


@dataclass(frozen=True)
class Operation:
    """One method of one path; ``problems`` are those that not every route has."""

    name: str
    method: str
    path: str
    text: str
    answers: tuple[Answer, ...]
    parameters: tuple[Parameter, ...] = ()
    needs: Needs = Needs.SOME_SCOPE
    problems: tuple[int, ...] = ()

    @property
    def query(self) -> tuple[str, ...]:
        """The names of what may stand behind the ``?``."""
        return tuple(each.name for each in self.parameters if each.place == "query")

    @property
    def is_stream(self) -> bool:
        """Whether it goes on answering."""
        return any(answer.media_type == STREAM_TYPE for answer in self.answers)


_VALUE: Final[JSON] = {"type": "string", "minLength": 1, "maxLength": VALUE_MAX_CHARS}


def _values(of: JSON) -> JSON:
    return {**many(of), "maxItems": VALUES_MAX}


def _filters(statuses: tuple[str, ...]) -> tuple[Parameter, ...]:
    return (
        Parameter("task_id", "tasks with one of these ids", _values(_VALUE)),
        Parameter("task_name", "tasks with one of these names; * stands for any characters", _values(_VALUE)),
        Parameter("queue", "tasks of one of these queues", _values(_VALUE)),
        Parameter("status", "tasks that are in one of these", _values(word(statuses))),
        Parameter("worker", "tasks of one of these workers", _values(_VALUE)),
    )


_PAGE: Final = (
    Parameter(
        "limit",
        "how many of them at most",
        {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    ),
    Parameter("cursor", "the next of the answer before", text()),
)
_SEARCH: Final = Parameter(SEARCH, "a text in name, id, args or kwargs, in upper case or in lower", _VALUE)
_TASK_ID: Final = Parameter(
    "task_id", "the id of a task", {"type": "string", "minLength": 1}, required=True, place="path"
)
_ID: Final[JSON] = {
    "type": "string",
    "pattern": "^([0-9a-f]{16}-(0|[1-9][0-9]{0,17}))?$",
    "examples": ["9f86d081884c7d65-42"],
}
_RESUME: Final = (
    Parameter(LAST_EVENT_ID, "the id that was seen last; the header wins", _ID),
    Parameter("Last-Event-ID", "the id that was seen last", _ID, place="header"),
    Parameter(TICKET, "in the place of a token", text()),
)
_INCLUDE: Final = Parameter(
    "include",
    "members that do not come unasked; may be repeated or have commas",
    many(word(EXTRA_FIELDS)),
)
_STREAM: Final = Answer(200, "events, of which each is a Message", "Message", STREAM_TYPE)

OPERATIONS: Final = (
    Operation(
        "events",
        "GET",
        "/api/v1/queue/events",
        "The stream of all tasks, or of those that a filter lets through",
        (_STREAM,),
        (
            *_filters(tuple(RANKS)),
            Parameter("types", "only these events; may be repeated or have commas", many(word(TYPES))),
            _INCLUDE,
            Parameter(
                "snapshot",
                f"how many waiting tasks the snapshot may have, or {ALL}",
                {"type": "string", "pattern": f"^({ALL}|[0-9]{{1,9}})$", "default": str(WAITING_MAX)},
            ),
            *_RESUME,
        ),
    ),
    Operation(
        "status",
        "GET",
        "/api/v1/queue/status",
        "The figures of now",
        (Answer(200, "the figures", "QueueStatus"),),
        problems=(503,),
    ),
    Operation(
        "tasks",
        "GET",
        "/api/v1/queue/tasks",
        "What workers have: active, then lost, then waiting ones, each in the order of receipt",
        (Answer(200, "a page", "TaskPage"),),
        (*_filters(OPEN_STATUSES), _SEARCH, *_PAGE),
        problems=(503,),
    ),
    Operation(
        "task",
        "GET",
        "/api/v1/queue/tasks/{task_id}",
        "One task that a worker has, that ended lately, or that is among the first messages of a queue",
        (Answer(200, "the task", "TaskRecord"),),
        (_TASK_ID,),
        problems=(503,),
    ),
    Operation(
        "task_events",
        "GET",
        "/api/v1/queue/tasks/{task_id}/events",
        "The stream of one task until its end, whether anybody has seen it so far or not",
        (_STREAM, Answer(204, "the client has seen the end; an EventSource stops here")),
        (_TASK_ID, _INCLUDE, *_RESUME),
    ),
    Operation(
        "pending",
        "GET",
        "/api/v1/queue/pending",
        "What waits in a queue of the Redis broker, the task that is taken next first",
        (Answer(200, "a page", "WaitingPage"),),
        (Parameter("queue", "the queue", _VALUE, required=True), *_PAGE),
        problems=(501, 503),
    ),
    Operation(
        "history",
        "GET",
        "/api/v1/queue/history",
        "What has ended, the last one first, as long as the worker's settings keep it",
        (Answer(200, "a page", "TaskPage"),),
        (*_filters(ENDED_STATUSES), _SEARCH, *_PAGE),
        problems=(503,),
    ),
    Operation(
        "workers",
        "GET",
        "/api/v1/queue/workers",
        "Every worker, and whether it lives",
        (Answer(200, "the workers", "WorkerList"),),
        needs=Needs.EVERYTHING,
        problems=(503,),
    ),
    Operation(
        "metrics",
        "GET",
        METRICS,
        "The metrics; anyone is answered where SIDECAR_METRICS is open",
        (Answer(200, "for Prometheus", media_type=TEXT_TYPE),),
        needs=Needs.EVERYTHING,
    ),
    Operation(
        "open_session",
        "POST",
        SESSION,
        "Exchange a token for a cookie",
        (Answer(200, "with Set-Cookie", "Session"),),
        needs=Needs.BEARER,
    ),
    Operation(
        "close_session",
        "DELETE",
        SESSION,
        "Forget the cookie",
        (Answer(204, "with Set-Cookie"),),
        needs=Needs.NOTHING,
    ),
    Operation(
        "make_ticket",
        "POST",
        TICKETS,
        "Exchange a token for what opens streams as ?ticket=",
        (Answer(200, "good for so many seconds", "Ticket"),),
        needs=Needs.BEARER,
    ),
    Operation(
        "livez",
        "GET",
        "/livez",
        "Whether the process serves",
        (Answer(200, "it does", "Health"),),
        needs=Needs.NOTHING,
    ),
    Operation(
        "readyz",
        "GET",
        "/readyz",
        "Whether it can answer, after a real round trip to Redis",
        (Answer(200, "it can", "Health"),),
        needs=Needs.NOTHING,
        problems=(503,),
    ),
    Operation(
        "openapi",
        "GET",
        OPENAPI,
        "This document",
        (Answer(200, "OpenAPI 3.1", "AnyObject"),),
        needs=Needs.NOTHING,
    ),
    Operation(
        "api_docs",
        "GET",
        API_DOCS,
        "This document, as a page",
        (Answer(200, "a page", media_type=HTML_TYPE),),
        needs=Needs.NOTHING,
    ),
)
