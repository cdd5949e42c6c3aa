"""Every keyword of JSON Schema: enforced, without effect, or refused; judged by `jsonschema`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from headrace_worker.engine.grammar.compiler import GrammarRefused
from headrace_worker.engine.schema.formats import FORMATS
from headrace_worker.engine.schema.keywords import KEYWORDS, Effect
from helpers.drawn_json import compiled, draw

SAMPLES = 50
BACKENDS = ("xgrammar", "llguidance")
A, B = {"const": "a"}, {"const": "b"}
WORD = {"type": "string", "pattern": "^[a-z]{1,3}$"}
FLAG = {"type": "boolean"}

ENFORCED: dict[str, list[Any]] = {
    "$ref": [
        {"$ref": "#/$defs/w", "$defs": {"w": WORD}},
        {"$ref": "#/$defs/w", "minLength": 2, "$defs": {"w": WORD}},
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": FLAG}},
        {
            "$id": "https://example.test/a",
            "$ref": "https://example.test/a#/$defs/w",
            "$defs": {"w": A},
        },
        {
            "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "n": A},
            "required": ["n"],
            "additionalProperties": False,
        },
    ],
    "$anchor": [{"$ref": "#here", "$defs": {"w": {"$anchor": "here", **WORD}}}],
    "$dynamicRef": [{"$dynamicRef": "#t", "$defs": {"w": {"$dynamicAnchor": "t", **WORD}}}],
    "$dynamicAnchor": [
        {
            "$dynamicAnchor": "node",
            "properties": {"inner": {"$dynamicRef": "#node"}},
            "additionalProperties": False,
        }
    ],
    "$defs": [{"items": {"$ref": "#/$defs/w"}, "maxItems": 2, "$defs": {"w": WORD}}],
    "definitions": [{"$ref": "#/definitions/w", "definitions": {"w": WORD}}],
    "allOf": [
        {"allOf": [{"type": "string", "minLength": 2}, {"pattern": "^[ab]*$"}, {"maxLength": 3}]},
        {
            "allOf": [
                {"properties": {"a": {"minimum": 3}}, "required": ["a"]},
                {"properties": {"a": {"type": "integer", "maximum": 5}, "b": FLAG}},
            ]
        },
    ],
    "anyOf": [
        {"anyOf": [{"type": "null"}, WORD]},
        {"type": "integer", "anyOf": [{"minimum": 5}, {"maximum": -5}]},
        {
            "properties": {"k": FLAG},
            "required": ["k"],
            "anyOf": [{"required": ["a"]}, {"properties": {"b": A}, "required": ["b"]}],
        },
    ],
    "oneOf": [
        {"oneOf": [{"type": "integer"}, {"type": "boolean"}]},
        {"oneOf": [{"type": "integer", "maximum": 3}, {"type": "number", "exclusiveMinimum": 3}]},
        {"oneOf": [{"properties": {"k": A}}, {"properties": {"k": B, "n": FLAG}}]},
        {
            "oneOf": [
                {"properties": {"a": FLAG}, "required": ["a"]},
                {"properties": {"b": FLAG}, "required": ["b"]},
            ]
        },
    ],
    "discriminator": [
        {
            "oneOf": [{"properties": {"k": A}}, {"properties": {"k": B, "n": FLAG}}],
            "discriminator": {"propertyName": "k"},
        }
    ],
    "not": [{"properties": {"a": {"not": {}}, "b": FLAG}}, {"type": "boolean", "not": False}],
    "prefixItems": [{"prefixItems": [A, FLAG]}, {"prefixItems": [A, FLAG], "minItems": 3}],
    "items": [
        {"type": "array", "items": FLAG},
        {"prefixItems": [A], "items": FLAG, "minItems": 2, "maxItems": 4},
        {"type": "array", "items": False},
    ],
    "properties": [
        {"type": "object", "properties": {"a": FLAG, 'q"\\\n': A, "é": B}},
        {"properties": {"a": False, "b": FLAG}, "required": ["b"]},
    ],
    "patternProperties": [
        {"patternProperties": {"^a": {"const": 1}, "b$": {"type": "integer"}}},
        {
            "patternProperties": {"^a": A},
            "additionalProperties": FLAG,
            "properties": {"ab": {"type": "string"}, "x": {"type": "null"}},
        },
        {"patternProperties": {"\\s": {"type": "null"}}, "additionalProperties": FLAG},
    ],
    "additionalProperties": [
        {"properties": {"a": FLAG, "ab": A}, "additionalProperties": {"type": "integer"}},
        {"type": "object", "additionalProperties": WORD},
        {"properties": {"a": FLAG}, "additionalProperties": False},
        {"properties": {"a": FLAG}, "additionalProperties": True},
    ],
    "propertyNames": [
        {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": FLAG},
        {"propertyNames": {"pattern": "^[a-c]+$", "maxLength": 2}, "additionalProperties": FLAG},
        {"propertyNames": {"enum": ["a", "b"]}, "additionalProperties": FLAG, "required": ["a"]},
        {"propertyNames": {"maxLength": 1}, "properties": {"a": A, "too long": B}},
    ],
    "unevaluatedItems": [{"prefixItems": [A], "unevaluatedItems": False}],
    "unevaluatedProperties": [
        {
            "allOf": [{"properties": {"a": FLAG}}],
            "properties": {"b": A},
            "unevaluatedProperties": False,
        },
        {"type": "object", "unevaluatedProperties": False},
    ],
    "type": [
        *({"type": name} for name in ("null", "boolean", "integer", "number", "string")),
        {"type": "array"},
        {"type": "object"},
        {"type": ["null", "integer", "boolean"]},
        {},
        True,
    ],
    "enum": [
        {"enum": [1, "a", None, True, 2.5, {"a": [1, {}]}, [], 'q"\\\n\u2028é']},
        {"type": "integer", "enum": ["a", 1]},
        {"enum": [1, 2, 30, "x", "xx"], "maximum": 2, "minLength": 2},
        {"enum": ["cat", "cow", "dog"], "pattern": "^c"},
    ],
    "const": [{"const": {"a": "\t\u0001"}}, {"const": 1, "enum": [True, 1.0]}],
    "multipleOf": [
        {"type": "integer", "multipleOf": 7},
        {"type": "number", "multipleOf": 25, "minimum": -60, "maximum": 1234},
        {"type": "integer", "multipleOf": 1000, "minimum": 1},
    ],
    "maximum": [
        {"type": "integer", "maximum": 345, "minimum": -12},
        {"type": "number", "maximum": 3.5, "minimum": -1.25},
        {"type": "number", "maximum": -3.7},
    ],
    "exclusiveMaximum": [
        {"type": "integer", "exclusiveMaximum": 0.5, "minimum": -2},
        {"type": "number", "exclusiveMaximum": 0.2, "minimum": 0.1},
        {"type": "number", "exclusiveMaximum": 0},
    ],
    "minimum": [
        {"minimum": 3},
        {"type": "integer", "minimum": 98765},
        {"type": "number", "minimum": 1e-7},
    ],
    "exclusiveMinimum": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "integer", "exclusiveMinimum": 9, "maximum": 2**53},
    ],
    "maxLength": [{"type": "string", "maxLength": 3}, {**WORD, "maxLength": 2}],
    "minLength": [
        {"type": "string", "minLength": 3},
        {"pattern": "x", "minLength": 3, "maxLength": 5},
    ],
    "pattern": [
        {"type": "string", "pattern": pattern}
        for pattern in (
            '^"x"$',
            r"^C:\\[a-z]{3}$",
            "^a\\tb$",
            '"',
            "^[^a]$",
            '^[^"]{2}$',
            r"^[^\\]{2}$",
            "^.{3}$",
            r'^[\x00-\x1f"]+$',
            r"^\S+\s\w+$",
            r"^\d\D\W$",
            "x|^y$",
            "^(a|b)*$|^$",
            "^é+/[À-ÿ]$",
            r"^(?!\.)(?!.*\.\.)[a-z.]{1,5}$",
            "^(?=.*x)[x-z]{3}$",
            r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
        )
    ]
    + [{"type": "string", "pattern": "^[a-z]*$", "allOf": [{"pattern": "b$"}]}],
    "maxItems": [
        {"type": "array", "items": FLAG, "maxItems": 3},
        {"prefixItems": [A, B], "maxItems": 1},
    ],
    "minItems": [{"type": "array", "items": FLAG, "minItems": 2}],
    "uniqueItems": [{"type": "array", "uniqueItems": True, "maxItems": 1}],
    "maxProperties": [
        {"type": "object", "maxProperties": 0},
        {"properties": {"a": FLAG, "b": FLAG, "c": FLAG}, "maxProperties": 1},
        {"type": "object", "maxProperties": 2, "additionalProperties": FLAG},
    ],
    "minProperties": [
        {"type": "object", "minProperties": 1},
        {"properties": {"a": FLAG, "b": FLAG}, "required": ["a", "b"], "minProperties": 2},
    ],
    "required": [
        {"type": "object", "properties": {"a": FLAG}, "required": ["a", "zz"]},
        {"required": ["a"], "additionalProperties": FLAG},
        {"required": ['q"\n']},
    ],
    "format": [{"type": "string", "format": name} for name in FORMATS],
}
DRAFT_7: dict[str, list[Any]] = {
    "additionalItems": [
        {"type": "array", "items": [A, FLAG], "additionalItems": B},
        {"type": "array", "items": [A], "additionalItems": False, "minItems": 1},
    ],
}
CASES: list[Any] = [
    pytest.param(schema, judge, id=f"{name}-{i}")
    for cases, judge in ((ENFORCED, Draft202012Validator), (DRAFT_7, Draft7Validator))
    for name, schemas in cases.items()
    for i, schema in enumerate(schemas)
]


def every(effect: Effect) -> list[str]:
    return [name for name, keyword in KEYWORDS.items() if keyword.effect is effect]


def test_every_keyword_documented_as_enforced_is_tested() -> None:
    assert sorted(ENFORCED | DRAFT_7) == sorted(every(Effect.ENFORCED))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("schema", "judge"), CASES)
def test_every_sampled_text_is_valid(schema: Any, judge: Any, backend: str) -> None:
    grammar = compiled(backend, schema)
    judged = judge(schema, format_checker=judge.FORMAT_CHECKER)
    for seed in range(SAMPLES):
        judged.validate(json.loads(draw(grammar, seed, likely=json.dumps(schema))))


@pytest.mark.parametrize("name", [*every(Effect.NONE), "x-unknown"])
def test_a_keyword_without_effect_changes_nothing(name: str) -> None:
    plain = {"type": "integer", "minimum": 0, "maximum": 30}
    value = "https://example.test/a" if name == "$id" else True
    first, other = compiled("xgrammar", plain), compiled("xgrammar", {**plain, name: value})
    assert [draw(first, seed) for seed in range(9)] == [draw(other, seed) for seed in range(9)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", every(Effect.REFUSED))
def test_a_keyword_that_cannot_be_enforced_is_refused_with_its_place(
    name: str, backend: str
) -> None:
    schema: Any = {"properties": {"a": {"items": {name: {}}}}}
    with pytest.raises(GrammarRefused) as refused:
        compiled(backend, schema)
    assert str(refused.value).startswith(f"{name} at #/properties/a/items cannot be enforced")


REFUSED: list[tuple[Any, str]] = [
    ({"$ref": "https://example.test/a.json"}, "$ref at # names"),
    (
        {"properties": {"p": {"$ref": "/$defs/N"}}, "$defs": {"N": A}},
        "$ref at #/properties/p names",
    ),
    ({"$ref": "#/$defs/nowhere"}, "where nothing is"),
    ({"$ref": "#nowhere"}, "an anchor that nothing has"),
    ({"$ref": "#"}, "refers to itself"),
    ({"anyOf": [{"$ref": "#"}, A]}, "refers to itself"),
    ({"properties": {"a": {"$id": "https://example.test/b"}}}, "$id at #/properties/a"),
    ({"type": "strnig"}, "type at # should be a type of JSON"),
    ({"properties": {"a": {"minLength": "3"}}}, "minLength at #/properties/a should be"),
    ({"exclusiveMinimum": True}, "exclusiveMinimum at # should be a number"),
    ({"not": {"type": "string"}}, "not at # cannot be enforced"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf at # cannot be enforced"),
    ({"oneOf": [{"properties": {"a": A}}, {"properties": {"b": B}}]}, "oneOf at #"),
    ({"type": "object", "minProperties": 2}, "minProperties at # cannot be enforced"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems at # cannot be enforced"),
    ({"type": "number", "minimum": 1e60}, "a bound at # has more than 40 digits"),
    ({"type": "string", "minLength": 10**12}, "minLength at # is above 1000000"),
    ({"type": "number", "multipleOf": 0.01}, "multipleOf at # cannot be enforced"),
    ({"enum": [[1]], "minItems": 1}, "minItems at # cannot be enforced beside"),
    (
        {
            "properties": {"a": FLAG},
            "allOf": [{"unevaluatedProperties": False}],
            "unevaluatedProperties": False,
        },
        "unevaluatedProperties at #/allOf/0 cannot be enforced here",
    ),
    *(
        ({"properties": {"p": {"pattern": pattern}}}, f"pattern at #/properties/p cannot.*{why}")
        for pattern, why in (
            ("(", "missing"),
            (r"a\b", "boundary"),
            (r"(a)\1", "back-reference"),
            ("(?<=a)b", "look-behind"),
            ("(?i)a", "flags"),
            (r"\p{L}", "bad escape"),
            ("(?:a{90}){90}b|c{9}.*d.*e.{99}", "too many states"),
        )
    ),
    ({"type": "integer", "enum": ["a"]}, "nothing fulfils .*no value of enum or const at #"),
    ({"required": ["z"], "additionalProperties": False}, 'nothing fulfils .*"z" is required'),
    ({"properties": {"n": {"$ref": "#"}}, "required": ["n"]}, "nothing fulfils .*without end"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "nothing fulfils .*no type is left"),
    ({"type": "integer", "minimum": 0.1, "maximum": 0.9}, "nothing fulfils .*within the bounds"),
    (
        {"type": "string", "minLength": 3, "pattern": "^ab?$"},
        "nothing fulfils .*pattern and length",
    ),
    ({"type": "array", "minItems": 2, "maxItems": 1}, "nothing fulfils .*no array is long enough"),
    ({"required": ["a", "b"], "maxProperties": 1}, "nothing fulfils .*maxProperties at #"),
    (False, "nothing fulfils"),
    ({"not": {}}, "nothing fulfils"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("schema", "why"), REFUSED)
def test_what_cannot_be_enforced_is_refused_with_pointer_and_reason(
    schema: Any, why: str, backend: str
) -> None:
    pattern = why.replace("$", r"\$") if "nothing" not in why else why
    with pytest.raises(GrammarRefused, match=pattern):
        compiled(backend, schema)
