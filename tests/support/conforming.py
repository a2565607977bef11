"""Holds answers and events against the document that a sidecar shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from tests.support.sse import Event

PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Document:
    """An OpenAPI document. ``strict``: also a member that no schema names is wrong."""

    content: dict[str, Any]
    strict: bool = True

    @cached_property
    def schemas(self) -> dict[str, Any]:
        """The schemas by name."""
        schemas: dict[str, Any] = self.content["components"]["schemas"]
        return {name: _closed(schema) for name, schema in schemas.items()} if self.strict else schemas

    def operation(self, method: str, path: str) -> dict[str, Any]:
        """The operation that a request is for."""
        for template, methods in self.content["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method.lower() in methods:
                return dict(methods[method.lower()])
        raise AssertionError(f"{method} {path} is in no document")

    def check_answer(self, answer: httpx.Response) -> None:
        """Fail where an answer is not one that its operation declares."""
        request = answer.request
        declared = self.operation(request.method, request.url.path)["responses"]
        assert str(answer.status_code) in declared, f"{request.method} {request.url}: {answer.status_code}"
        described = self._resolved(declared[str(answer.status_code)])
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        assert media_type in described.get("content", {"": {}})
        if media_type in ("application/json", PROBLEM):
            self.check(described["content"][media_type]["schema"], answer.json())

    def check_event(self, event: Event) -> None:
        """Fail where an event of a stream is no message."""
        mapping = self.schemas["Message"]["discriminator"]["mapping"]
        assert event.event == event.data["type"]
        self.check({"$ref": mapping[event.event]}, event.data)

    def check(self, schema: dict[str, Any], value: Any) -> None:
        """Fail where a value is not what a schema says."""
        whole = {**schema, "components": {"schemas": self.schemas}}
        errors = list(Draft202012Validator(whole).iter_errors(value))
        assert [] == [f"{error.json_path}: {error.message}" for error in errors]

    def _resolved(self, described: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in described:
            return described
        name = described["$ref"].rpartition("/")[2]
        return dict(self.content["components"]["responses"][name])


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def references(value: Any) -> Iterator[str]:
    """Every reference in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)
