"""Keywords of JSON Schema: enforced, without effect, or refused.

The documentation's table is made from this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from headrace_worker.engine.regex.value_regex import UnsupportedPattern


class SchemaRefused(Exception):
    """The schema cannot be enforced, or nothing satisfies it; the message names the place."""


@contextmanager
def refusing_unsupported(keyword: str, pointer: str) -> Iterator[None]:
    """Raise SchemaRefused for a pattern that is unsupported."""
    try:
        yield
    except UnsupportedPattern as error:
        raise SchemaRefused(f"{keyword} at {pointer} cannot be enforced: {error}") from error


class Effect(StrEnum):
    ENFORCED = "enforced"
    NONE = "no effect"
    REFUSED = "refused"


MAX_COUNT = 1_000_000
"""A minimum above it is refused; a maximum above it is longer than any answer."""
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def is_number(value: object) -> bool:
    """Return whether the value is a finite JSON number."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _is_schema(value: object) -> bool:
    return isinstance(value, dict | bool)


def _are_schemas(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_schema, value))


def _are_types(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(each in TYPES for each in names)


class Form(Enum):
    """What a keyword's value must be, and whether a value is that."""

    ANYTHING = "anything", lambda _: True
    SCHEMA = "a schema", _is_schema
    SCHEMA_OR_SCHEMAS = (
        "a schema or a list of schemas",
        lambda v: _is_schema(v) or v == [] or _are_schemas(v),
    )
    SCHEMAS = "a list of one schema or more", _are_schemas
    NAMED_SCHEMAS = (
        "an object of schemas",
        lambda v: isinstance(v, dict) and all(map(_is_schema, v.values())),
    )
    COUNT = "an integer of 0 or more", lambda v: is_number(v) and v >= 0 and v == int(v)
    NUMBER = "a number", is_number
    POSITIVE = "a number above 0", lambda v: is_number(v) and v > 0
    TEXT = "a text", lambda v: isinstance(v, str)
    TEXTS = "a list of texts", lambda v: isinstance(v, list) and all(type(t) is str for t in v)
    FLAG = "true or false", lambda v: isinstance(v, bool)
    VALUES = "a list of one value or more", lambda v: isinstance(v, list) and bool(v)
    TYPES = "a type of JSON, or a list of them", _are_types

    def __init__(self, description: str, fits: Callable[[Any], bool]) -> None:
        self.description, self.fits = description, fits


@dataclass(frozen=True, slots=True)
class Keyword:
    effect: Effect
    form: Form = Form.ANYTHING
    note: str = ""


def _enforced(form: Form, note: str = "") -> Keyword:
    return Keyword(Effect.ENFORCED, form, note)


def _refused(note: str = "") -> Keyword:
    return Keyword(Effect.REFUSED, Form.ANYTHING, note)


_NO_EFFECT = Keyword(Effect.NONE)
_FIXED_ORDER = "properties come in the order in which they are declared"
_ALONE = "`true` or `false` only, in a schema that no other stands beside"

KEYWORDS: dict[str, Keyword] = {
    # Core.
    "$schema": _NO_EFFECT,
    "$id": Keyword(Effect.NONE, Form.TEXT, "refused below the root"),
    "$ref": _enforced(Form.TEXT, "to a place or an anchor of the same schema; others are refused"),
    "$anchor": _enforced(Form.TEXT),
    "$dynamicRef": _enforced(Form.TEXT, "as `$ref`: there is one schema resource"),
    "$dynamicAnchor": _enforced(Form.TEXT),
    "$recursiveRef": _refused("write `$ref`"),
    "$defs": _enforced(Form.NAMED_SCHEMAS),
    "definitions": _enforced(Form.NAMED_SCHEMAS),
    "$comment": _NO_EFFECT,
    "$vocabulary": _NO_EFFECT,
    # Applicators.
    "allOf": _enforced(Form.SCHEMAS),
    "anyOf": _enforced(Form.SCHEMAS),
    "oneOf": _enforced(Form.SCHEMAS, "refused where two of its schemas may hold at once"),
    "not": _enforced(Form.SCHEMA, "`true`, `false` and `{}` only; others are refused"),
    "if": _refused("write `anyOf`"),
    "then": _refused(),
    "else": _refused(),
    "dependentSchemas": _refused("write `anyOf`"),
    "dependencies": _refused("write `anyOf`"),
    "prefixItems": _enforced(Form.SCHEMAS, "without `items`, no more items come than `minItems`"),
    "items": _enforced(Form.SCHEMA_OR_SCHEMAS, "a list is read as `prefixItems`, as in draft 7"),
    "additionalItems": _enforced(Form.SCHEMA, "beside a list of `items`, as in draft 7"),
    "contains": _refused(),
    "minContains": Keyword(Effect.NONE, note="it has one beside `contains` only"),
    "maxContains": Keyword(Effect.NONE, note="it has one beside `contains` only"),
    "properties": _enforced(Form.NAMED_SCHEMAS, _FIXED_ORDER),
    "patternProperties": _enforced(Form.NAMED_SCHEMAS, "at most three of them at one place"),
    "additionalProperties": _enforced(
        Form.SCHEMA, "left out beside `properties` or `patternProperties`: no others come"
    ),
    "propertyNames": _enforced(Form.SCHEMA),
    # Unevaluated.
    "unevaluatedItems": _enforced(Form.SCHEMA, _ALONE),
    "unevaluatedProperties": _enforced(Form.SCHEMA, _ALONE),
    # Validation.
    "type": _enforced(Form.TYPES),
    "enum": _enforced(Form.VALUES, "values that what stands beside it forbids do not come"),
    "const": _enforced(Form.ANYTHING),
    "multipleOf": _enforced(Form.POSITIVE, "integers up to 1000 only"),
    "maximum": _enforced(Form.NUMBER),
    "exclusiveMaximum": _enforced(Form.NUMBER),
    "minimum": _enforced(Form.NUMBER),
    "exclusiveMinimum": _enforced(Form.NUMBER),
    "maxLength": _enforced(Form.COUNT),
    "minLength": _enforced(Form.COUNT),
    "pattern": _enforced(
        Form.TEXT,
        "on the value, found anywhere in it; back-references, look-behinds, word boundaries"
        " and flags are refused",
    ),
    "maxItems": _enforced(Form.COUNT),
    "minItems": _enforced(Form.COUNT),
    "uniqueItems": _enforced(Form.FLAG, "refused where more than one item may come"),
    "maxProperties": _enforced(Form.COUNT),
    "minProperties": _enforced(
        Form.COUNT, "refused where more than one name that is not declared would be needed"
    ),
    "required": _enforced(Form.TEXTS),
    "dependentRequired": _refused("write `anyOf`"),
    # Formats, contents and descriptions.
    "format": _enforced(Form.TEXT, "the names below; others have no effect"),
    "contentEncoding": _NO_EFFECT,
    "contentMediaType": _NO_EFFECT,
    "contentSchema": _NO_EFFECT,
    "title": _NO_EFFECT,
    "description": _NO_EFFECT,
    "default": _NO_EFFECT,
    "deprecated": _NO_EFFECT,
    "readOnly": _NO_EFFECT,
    "writeOnly": _NO_EFFECT,
    "examples": _NO_EFFECT,
    "nullable": Keyword(Effect.NONE, note="it is OpenAPI's; null does not come for it"),
    "discriminator": _enforced(
        Form.ANYTHING, "it is OpenAPI's; the name that it gives is required, and not more"
    ),
}
"""A keyword that is not here has no effect, as in JSON Schema."""

KEYWORDS_ABOUT = {
    "number": ("multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    "string": ("maxLength", "minLength", "pattern", "format"),
    "array": ("prefixItems", "items", "maxItems", "minItems", "uniqueItems", "unevaluatedItems"),
    "object": (
        "properties",
        "patternProperties",
        "additionalProperties",
        "propertyNames",
        "unevaluatedProperties",
        "maxProperties",
        "minProperties",
        "required",
    ),
}
"""Keywords by the type of the values that they are about."""


def keywords_beside(keyword: str) -> tuple[str, ...]:
    """Return the keywords that are about values of the same type."""
    return next(keywords for keywords in KEYWORDS_ABOUT.values() if keyword in keywords)


def check_keywords(schema: dict[str, Any], pointer: str) -> None:
    """Raise SchemaRefused for the first keyword that is refused or whose value is invalid."""
    for name, value in schema.items():
        keyword = KEYWORDS.get(name)
        if keyword is None:
            continue
        if keyword.effect is Effect.REFUSED:
            advice = f"; {keyword.note}".replace("`", "") if keyword.note else ""
            raise SchemaRefused(f"{name} at {pointer} cannot be enforced{advice}")
        if not keyword.form.fits(value):
            raise SchemaRefused(f"{name} at {pointer} should be {keyword.form.description}")
        if name.startswith("min") and keyword.form is Form.COUNT and value > MAX_COUNT:
            raise SchemaRefused(f"{name} at {pointer} is above {MAX_COUNT}")
