"""Makes JSON Schemas: a word for each kind of value that is used here."""

from __future__ import annotations

from celery_plugin.contract import JSON


def ref(name: str) -> JSON:
    """Point to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(description: str = "") -> JSON:
    """A text."""
    return _described({"type": "string"}, description)


def whole(description: str = "") -> JSON:
    """A whole number."""
    return _described({"type": "integer"}, description)


def number(description: str = "") -> JSON:
    """A number."""
    return _described({"type": "number"}, description)


def word(words: tuple[str, ...], description: str = "") -> JSON:
    """One of some words."""
    return _described({"type": "string", "enum": list(words)}, description)


def or_null(schema: JSON) -> JSON:
    """The same, or null."""
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def many(schema: JSON) -> JSON:
    """A list."""
    return {"type": "array", "items": schema}


def an_object(properties: JSON, always: tuple[str, ...] | None = None, description: str = "") -> JSON:
    """An object, of which some members are always there; all of them unless it is said otherwise."""
    schema = {"type": "object", "properties": properties, "required": list(always or properties)}
    return _described(schema, description)


def _described(schema: JSON, description: str) -> JSON:
    return {**schema, "description": description} if description else schema
