"""Pure: whether a JSON Schema has the shape that all who read it rely on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords with schemas by name."""
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
"""Keywords with lists of schemas."""
_ONES = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
"""Keywords with one schema."""


def schema_fault(schema: Mapping[str, Any]) -> str:
    """Return what is wrong with the first keyword that is not of its type; empty if all are.

        {"properties": {"town": {"enum": "x"}}}     "properties.town.enum should be a list"

    None counts as absent, as some clients write it.
    """
    waiting: list[tuple[str, Mapping[str, Any]]] = [("", schema)]
    while waiting:
        place, each = waiting.pop()
        if fault := _own_fault(each):
            return place + fault
        waiting += [(f"{place}{name}.", part) for name, part in _parts(each)]
    return ""


def _own_fault(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [] if kind is None else [kind]
    if not all(isinstance(each, str) for each in kinds):
        return "type should be a text or a list of texts"
    for name in _MAPS:
        if not isinstance(schema.get(name, {}), Mapping | None):
            return f"{name} should be an object"
    for name in ("required", "enum", *_LISTS):
        if not isinstance(schema.get(name, []), list | None):
            return f"{name} should be a list"
    return ""


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in _MAPS:
        for key, each in (schema.get(name) or {}).items():
            if isinstance(each, Mapping):
                yield f"{name}.{key}", each
    for name in _LISTS:
        for i, each in enumerate(schema.get(name) or ()):
            if isinstance(each, Mapping):
                yield f"{name}[{i}]", each
    for name in _ONES:
        if isinstance(each := schema.get(name), Mapping):
            yield name, each
