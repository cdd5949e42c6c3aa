"""Schemas that other tools write, and schemas at random: what is accepted is enforced."""

from __future__ import annotations

import datetime
import enum
import ipaddress
import json
import uuid
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import AnyUrl, BaseModel, Field, SecretStr

from headrace_worker.engine.grammar.compiler import GrammarRefused
from helpers.drawn_json import compiled, draw

BACKENDS = ("xgrammar", "llguidance")


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    weight: float


class Branch(BaseModel):
    value: int
    branches: list[Branch] = []


class Colour(enum.Enum):
    red = "red"
    none = 0


class Everything(BaseModel):
    price: Annotated[float, Field(ge=0, lt=1000)]
    day: datetime.date
    moment: datetime.datetime
    clock: datetime.time
    span: datetime.timedelta
    key: uuid.UUID
    link: AnyUrl
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    tree: Branch
    counts: dict[str, int]
    pair: tuple[int, str]
    perhaps: Literal["x"] | None = None
    colour: Colour
    code: Annotated[str, Field(pattern=r"^[A-Z]{3}-\d+$", max_length=12)]
    secret: SecretStr
    share: Annotated[float, Field(gt=0, le=1)]
    lists: dict[Annotated[str, Field(pattern="^k")], list[Branch]]


ZOD: Any = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "email": {
            "type": "string",
            "format": "email",
            "pattern": (
                r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@"
                r"([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
            ),
        },
        "uuid": {
            "type": "string",
            "format": "uuid",
            "pattern": (
                "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}"
                "-[0-9a-fA-F]{12}|00000000-0000-0000-0000-000000000000)$"
            ),
        },
        "whole": {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991},
        "float64": {
            "type": "number",
            "minimum": -1.7976931348623157e308,
            "maximum": 1.7976931348623157e308,
        },
        "positive": {"type": "number", "exclusiveMinimum": 0},
        "record": {
            "type": "object",
            "propertyNames": {"type": "string"},
            "additionalProperties": {"type": "number"},
        },
        "shape": {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {
                        "type": {"type": "string", "const": name},
                        "r": {"type": "number"},
                    },
                    "required": ["type", "r"],
                    "additionalProperties": False,
                }
                for name in ("circle", "square")
            ]
        },
        "nullable": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["email", "uuid", "whole", "positive", "record", "shape", "nullable"],
    "additionalProperties": False,
}
STRICT: Any = {
    "type": "object",
    "properties": {
        "steps": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "explanation": {"type": "string", "description": "Why."},
                    "output": {"type": ["string", "null"]},
                    "item": {"anyOf": [{"$ref": "#/$defs/item"}, {"type": "null"}]},
                },
                "required": ["explanation", "output", "item"],
                "additionalProperties": False,
            },
        },
        "answer": {"type": "string", "enum": ["yes", "no"]},
    },
    "required": ["steps", "answer"],
    "additionalProperties": False,
    "$defs": {
        "item": {
            "type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/item"}, {"type": "null"}]}},
            "required": ["next"],
            "additionalProperties": False,
        }
    },
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_pydantic_validates_what_its_own_schema_allows(backend: str) -> None:
    schema = Everything.model_json_schema()
    grammar = compiled(backend, schema)
    for seed in range(20):
        text = draw(grammar, seed, likely="az09-.:/")
        Everything.model_validate_json(text)
        Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("schema", [ZOD, STRICT], ids=["zod", "openai-strict"])
def test_what_sdks_send_is_enforced(schema: Any, backend: str) -> None:
    grammar = compiled(backend, schema)
    for seed in range(20):
        Draft202012Validator(schema).validate(json.loads(draw(grammar, seed, likely="ab@.10")))


NAMES = st.sampled_from(["a", "b", "ab"])
VALUES = st.sampled_from([None, True, False, 0, 1, 2.5, -3, "a", 'b"', "", 10, [], [1], {"a": 1}])
NUMBERS = st.sampled_from([-11, -2, 0, 1, 3, 25, 100, -0.5, 0.25, 2.75, 99.9])
PATTERNS = st.sampled_from(["^a", "b$", "^[ab]+$", "^[^b]*$", "a|b", "^(?!a)", "\\s|a", "^$"])
COUNTS = st.integers(0, 3)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])


def _some(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keywords)


def _with(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=1, max_size=2)
    kinds = (
        _some(
            minimum=NUMBERS,
            exclusiveMaximum=NUMBERS,
            maximum=NUMBERS,
            exclusiveMinimum=NUMBERS,
            multipleOf=st.sampled_from([2, 7, 10]),
        ),
        _some(minLength=COUNTS, maxLength=COUNTS, pattern=PATTERNS),
        _some(
            items=inner,
            prefixItems=several,
            minItems=COUNTS,
            maxItems=COUNTS,
            unevaluatedItems=st.just(False),
        ),
        _some(
            properties=st.dictionaries(NAMES, inner, max_size=2),
            required=st.lists(NAMES, max_size=2, unique=True),
            additionalProperties=inner,
            minProperties=COUNTS,
        ),
        _some(
            properties=st.dictionaries(NAMES, inner, max_size=2),
            patternProperties=st.dictionaries(PATTERNS, inner, max_size=2),
            propertyNames=_some(maxLength=COUNTS, pattern=PATTERNS),
            maxProperties=COUNTS,
            unevaluatedProperties=st.just(False),
        ),
        _some(anyOf=several),
        _some(oneOf=several),
        _some(allOf=several),
        _some(enum=st.lists(VALUES, min_size=1, max_size=4), type=TYPES),
        st.just({"$ref": "#/$defs/x"}),
    )
    typed = _some(type=st.one_of(TYPES, st.lists(TYPES, min_size=1, max_size=2)))
    return st.builds(
        lambda *each: {k: v for one in each for k, v in one.items()},
        typed,
        st.one_of(*kinds),
        st.one_of(*kinds),
    )


LEAVES = st.one_of(st.sampled_from([True, False, {}]), _some(type=TYPES), _some(const=VALUES))
SCHEMAS = _with(st.recursive(LEAVES, _with, max_leaves=5))


@settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(SCHEMAS, LEAVES, st.sampled_from(BACKENDS))
def test_what_is_accepted_is_enforced(schema: dict[str, Any], other: Any, backend: str) -> None:
    whole = {**schema, "$defs": {"x": other}}
    try:
        grammar = compiled(backend, whole)
    except GrammarRefused:
        return
    judge = Draft202012Validator(whole)
    for seed in range(6):
        judge.validate(json.loads(draw(grammar, seed, likely='ab" \\')))
