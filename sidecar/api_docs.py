"""The OpenAPI document, and a page that is made of it: no script, and no style but its own."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from celery_plugin.contract import JSON
from sidecar.openapi import make_document
from sidecar.routing import Endpoint

STYLE: Final = """\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { margin-top: 2.5rem; } h3 { margin-bottom: .25rem; }
code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .75rem .2rem 0; }
tr { border-bottom: 1px solid #8884; }
p { margin: .25rem 0 .5rem; }"""
_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


def api_endpoints() -> dict[str, Endpoint]:
    """Make the endpoints; what they answer is made now, so that a fault in it is seen at start."""
    described = make_document()
    shown, as_page = json.dumps(described, indent=1, ensure_ascii=False).encode(), page(described)

    async def openapi(_: Request) -> Response:
        return Response(shown, media_type="application/json", headers={"Cache-Control": "no-cache"})

    async def api_docs(_: Request) -> Response:
        return Response(as_page, media_type="text/html", headers=HEADERS)

    return {"openapi": openapi, "api_docs": api_docs}


def page(described: JSON) -> bytes:
    """The page as it is sent, of the document."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>celery-sidecar</title><style>{STYLE}</style>",
        f"<h1>celery-sidecar {escape(described['info']['version'])}</h1>",
        f"<p>{_prose(described['info']['description'])}</p>",
        '<p><a href="openapi.json">This as OpenAPI 3.1</a></p>',
        "<h2>Routes</h2>",
        *_routes(described),
        "<h2>What they answer</h2>",
        *_schemas(described),
    ]
    return "\n".join(parts).encode()


def _routes(described: JSON) -> Iterator[str]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f'<h3 id="{operation["operationId"]}"><code>{method.upper()} {escape(path)}</code></h3>'
            yield f"<p>{_prose(operation['summary'])}. {_prose(operation['description'])}</p>"
            parameters = operation.get("parameters", [])
            if parameters:
                yield _table(
                    (_code(each["name"]), each["in"], _kind(each["schema"]), _prose(each["description"]))
                    for each in parameters
                )
            yield _table(_answers(described, operation))


def _answers(described: JSON, operation: JSON) -> Iterator[tuple[str, ...]]:
    for status, answer in operation["responses"].items():
        if "$ref" in answer:
            answer = described["components"]["responses"][_name(answer["$ref"])]  # noqa: PLW2901  # what it points to
        media = next(iter(answer.get("content", {"": {}}).values()))
        kind = media.get("x-itemSchema") or media.get("schema", {})
        yield _code(status), _kind(kind) if kind else "", _prose(answer["description"])


def _schemas(described: JSON) -> Iterator[str]:
    for name, schema in described["components"]["schemas"].items():
        yield f'<h3 id="schema-{name}">{name}</h3>'
        yield f"<p>{_prose(schema.get('description', ''))}</p>"
        members = schema.get("properties")
        if not members:
            yield f"<p>{_kind(schema)}</p>"
            continue
        always = schema.get("required", ())
        yield _table(
            (
                _code(member),
                _kind(each),
                "always" if member in always else "",
                _prose(each.get("description", "")),
            )
            for member, each in members.items()
        )


def _kind(schema: JSON) -> str:
    """What a value is, in words."""
    if "$ref" in schema:
        name = _name(schema["$ref"])
        return f'<a href="#schema-{name}">{name}</a>'
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(map(_kind, choices))
    if "enum" in schema:
        return ", ".join(map(_code, schema["enum"]))
    if "const" in schema:
        return _code(schema["const"])
    if "items" in schema:
        return f"list of {_kind(schema['items'])}"
    kinds: Any = schema["type"]
    return " or ".join(kinds) if isinstance(kinds, list) else str(kinds)


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _code(value: str) -> str:
    return f"<code>{escape(value)}</code>"


def _prose(value: str) -> str:
    """A text in which backquotes set code."""
    parts = escape(value).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    cells = ("".join(f"<td>{cell}" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}' for row in cells)}</table>"
