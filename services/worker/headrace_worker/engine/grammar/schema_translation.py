"""Translate a JSON Schema into the input of each grammar library."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from headrace_worker.engine.rules.gbnf import to_gbnf
from headrace_worker.engine.rules.llguidance_schema import to_llguidance_schema
from headrace_worker.engine.schema.keywords import SchemaRefused
from headrace_worker.engine.schema.reader import read_schema

T = TypeVar("T")


def parse_schema(source: str) -> object:
    """Parse the text of a schema. Raises SchemaRefused if it is no JSON."""
    try:
        return json.loads(source, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise SchemaRefused(f"the schema is not JSON: {error}") from error


def schema_to_gbnf(schema: object) -> str:
    """Return the schema in xgrammar's notation. Raises SchemaRefused with keyword and pointer."""
    return to_gbnf(read_schema(schema))


def schema_to_llguidance(schema: object) -> dict[str, Any]:
    """Return a plainer schema. Raises SchemaRefused with keyword and pointer."""
    return to_llguidance_schema(read_schema(schema))


def translate_tag_schema(content: Mapping[str, Any], translate: Callable[[object], T]) -> T:
    """Translate the schema in a structural tag.

    With `best_effort`, a schema that is refused is replaced by that of any object.
    """
    try:
        return translate(content.get("json_schema"))
    except SchemaRefused:
        if not content.get("best_effort"):
            raise
        return translate({"type": "object"})


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
