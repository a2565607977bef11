"""The OpenAPI document, made of what the router is made of.

What comes in a stream has no word in OpenAPI 3.1: its answer is a text, and ``x-itemSchema`` says what each
event is, as ``itemSchema`` does in 3.2.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from celery_plugin.contract import JSON
from sidecar.json_schema import ref
from sidecar.operations import (
    HTML_TYPE,
    OPERATIONS,
    STREAM_TYPE,
    TEXT_TYPE,
    Answer,
    Needs,
    Operation,
    Parameter,
)
from sidecar.problems import RETRY_AFTER_SECONDS, TITLES
from sidecar.schemas import SCHEMAS

PROBLEM_TYPE: Final = "application/problem+json"
DESCRIPTION: Final = """\
What a Celery queue does, as it happens. A reader passes over members and events that it does not know: more
may come, and none is renamed."""
# Answered before there is a request to look at, so with no problem.
_HEAD_TOO_LARGE: Final[JSON] = {
    "431": {
        "description": "The head of the request is too large",
        "content": {"text/plain": {"schema": {"type": "string", "maxLength": 0}}},
    }
}
# What any request may be answered: it is too large, or a fault of the sidecar's own.
_ANYWHERE: Final = (400, 413, 414, 500)
# What stands before every route but the open ones.
_GUARDED: Final = (401, 403, 404, 421, 429)
_SECURITY: Final[dict[Needs, list[JSON]]] = {
    Needs.NOTHING: [],
    # Also without any, where SIDECAR_ALLOW_ANONYMOUS or a sidecar on loopback lets everybody read.
    Needs.SOME_SCOPE: [{"bearer": []}, {"cookie": []}, {}],
    Needs.EVERYTHING: [{"bearer": []}, {"cookie": []}, {}],
    Needs.BEARER: [{"bearer": []}],
}
_SCHEMES: Final[JSON] = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "__Host-celery-sidecar"},
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
}


def make_document() -> JSON:
    """Make the document; it is the same whatever the settings are."""
    paths: JSON = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "celery-sidecar", "version": version("celery-sidecar"), "description": DESCRIPTION},
        # Where the document is: so it holds behind any prefix.
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "responses": {f"Problem{status}": _problem(status) for status in TITLES},
            "securitySchemes": _SCHEMES,
        },
    }


def problems_of(operation: Operation) -> list[int]:
    """Every status of a problem that a route may answer."""
    guarded = () if operation.needs is Needs.NOTHING else _GUARDED
    return sorted({*_ANYWHERE, *guarded, *operation.problems})


def _operation(operation: Operation) -> JSON:
    answers = {str(answer.status): _answer(answer) for answer in operation.answers}
    problems = {
        str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in problems_of(operation)
    }
    described: JSON = {
        "operationId": operation.name,
        "summary": operation.text,
        "description": f"Answers {operation.needs.value}.",
        "security": _security(operation),
        "responses": answers | problems | _HEAD_TOO_LARGE,
    }
    if operation.parameters:
        described["parameters"] = [_parameter(each) for each in operation.parameters]
    return described


def _security(operation: Operation) -> list[JSON]:
    schemes = _SECURITY[operation.needs]
    return [*schemes, {"ticket": []}] if operation.is_stream else schemes


def _parameter(parameter: Parameter) -> JSON:
    described = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.text,
        "schema": parameter.schema,
    }
    return described | ({"required": True} if parameter.required else {})


def _answer(answer: Answer) -> JSON:
    if answer.media_type == STREAM_TYPE:
        content: JSON = {"schema": {"type": "string"}, "x-itemSchema": ref(answer.schema)}
    elif answer.media_type in (HTML_TYPE, TEXT_TYPE):
        content = {"schema": {"type": "string"}}
    else:
        content = {"schema": ref(answer.schema)}
    described: JSON = {"description": answer.text}
    return described if answer.status == 204 else described | {"content": {answer.media_type: content}}


def _problem(status: int) -> JSON:
    described: JSON = {"description": TITLES[status], "content": {PROBLEM_TYPE: {"schema": ref("Problem")}}}
    if status == 400:
        # What is no HTTP, or has an address longer than that, is no request either.
        described["content"]["text/plain"] = {"schema": {"type": "string"}}
    if status in (429, 503):
        text = f"seconds; {RETRY_AFTER_SECONDS} where Redis is away"
        described["headers"] = {"Retry-After": {"description": text, "schema": {"type": "integer"}}}
    return described
