"""Which parts of a JSON Schema nothing would enforce: better refused than believed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_NEVER = (
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "else",
    "if",
    "not",
    "then",
)
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_STRINGS = ("minLength", "maxLength", "pattern", "format")
_ARRAYS = ("minItems", "maxItems")
_OBJECTS = ("minProperties", "maxProperties", "required", "properties", "additionalProperties")
_ALONE = ("$ref", "anyOf", "oneOf", "allOf", "enum", "const")
"""Each decides by itself: what stands beside it is not looked at."""
_WITHIN = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "unevaluatedItems", "unevaluatedProperties")


def unenforced(schema: object, place: str = "#") -> str | None:
    """The first keyword that xgrammar reads over, with its place; None if there is none.

    Keywords that only describe, and formats that nobody knows, bind nothing and may stand.
    """
    if not isinstance(schema, dict):
        return None
    for keyword in _read_over(schema):
        return f"{keyword} at {place}"
    for name, inner in _inner(schema):
        if (found := unenforced(inner, f"{place}/{name}")) is not None:
            return found
    return None


def _read_over(schema: dict[str, Any]) -> Iterator[str]:
    yield from (keyword for keyword in _NEVER if keyword in schema)
    if schema.get("uniqueItems") is True:
        yield "uniqueItems"
    if len(schema.get("allOf", ())) > 1:
        yield "allOf of more than one"
    bounds = [k for k in (*_NUMBERS, *_STRINGS, *_ARRAYS) if k in schema]
    for alone in _ALONE:
        beside = [*bounds, *(k for k in _OBJECTS if k in schema)]
        if alone in schema and beside:
            yield f"{beside[0]} beside {alone}"
    if "type" not in schema and bounds:
        yield f"{bounds[0]} without a type"
    if "multipleOf" in schema and schema.get("type") != "integer":
        yield "multipleOf of other than integers"
    lengths = [k for k in ("minLength", "maxLength") if k in schema]
    for shape in ("pattern", "format"):
        if shape in schema and lengths:
            yield f"{lengths[0]} beside {shape}"


def _inner(schema: dict[str, Any]) -> Iterator[tuple[str, object]]:
    for keyword in _WITHIN:
        named = schema.get(keyword)
        if isinstance(named, dict):
            yield from ((f"{keyword}/{name}", inner) for name, inner in named.items())
    for keyword in _LISTS:
        listed = schema.get(keyword)
        if isinstance(listed, list):
            yield from ((f"{keyword}/{i}", inner) for i, inner in enumerate(listed))
    yield from ((keyword, schema[keyword]) for keyword in _SINGLE if keyword in schema)
