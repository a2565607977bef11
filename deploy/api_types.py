"""Writes the TypeScript types of the sidecar's API, from the document that it shows: ``make types``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sidecar.openapi import make_document

FILE: Final = Path(__file__).resolve().parents[1] / "sidecar" / "static" / "api.d.ts"
HEAD: Final = (
    "// Made of /openapi.json by `make types`: change that, not this. More members may come than are here.\n"
)
_KINDS: Final = {"integer": "number", "object": "Record<string, unknown>"}


def make_types() -> str:
    """Make the types of all schemas, and what each question is answered."""
    document = make_document()
    parts = [_declaration(name, schema) for name, schema in document["components"]["schemas"].items()]
    answers = "".join(f'  "{question}": {answer};\n' for question, answer in _answers(document))
    parts.append(f"/** What is answered where all is well. */\nexport interface Answers {{\n{answers}}}\n")
    return "\n".join([HEAD, *parts])


def _declaration(name: str, schema: dict[str, Any]) -> str:
    if "properties" not in schema:
        return f"{_comment(schema, '')}export type {name} =\n  {_type(schema)};\n"
    always = schema["required"]
    members = "".join(
        f"{_comment(member, '  ')}  {key}{'' if key in always else '?'}: {_type(member)};\n"
        for key, member in schema["properties"].items()
    )
    return f"{_comment(schema, '')}export interface {name} {{\n{members}}}\n"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(map(_type, choices))
    if "enum" in schema or "const" in schema:
        return " | ".join(map(json.dumps, schema.get("enum") or [schema["const"]]))
    if "items" in schema:
        return f"{_in_brackets(_type(schema['items']))}[]"
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "additionalProperties" in schema:
        values = f"Record<string, {_type(schema['additionalProperties'])}>"
        return " | ".join(values if kind == "object" else kind for kind in kinds)
    return " | ".join(_KINDS.get(kind, kind) for kind in kinds)


def _in_brackets(text: str) -> str:
    return f"({text})" if " " in text else text


def _comment(schema: dict[str, Any], indent: str) -> str:
    return f"{indent}/** {schema['description']} */\n" if schema.get("description") else ""


def _answers(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for answer in operation["responses"].values():
                content = answer.get("content", {}).get("application/json")
                if content is not None:
                    yield f"{method.upper()} {path}", _type(content["schema"])


if __name__ == "__main__":
    FILE.write_text(make_types())
    print(FILE)
