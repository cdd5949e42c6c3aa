"""Structured output: which fields request it, and what is refused before it runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.auth.caller import Caller
from headrace.errors import HeadraceError, InvalidRequest, InvalidStructure, Unsupported
from headrace.internal.v1.model_card_pb2 import Capabilities, ModelCard
from headrace.v1.common_pb2 import JsonObject, Priority, SamplingParameters, Structure
from headrace_gateway.api.bodies.convert import chat_request
from headrace_gateway.api.bodies.generation import ChatBody, parse
from headrace_gateway.base.calls import Call
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.checks.structures import MAX_CHARACTERS, MAX_DEPTH, check_structure
from headrace_gateway.checks.validation import check, valid_request
from headrace_gateway.request.generation_request import GenerationRequest, Text

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ABLE = ModelCard(
    model="valley",
    context_tokens=100,
    vocabulary_size=50,
    max_slots=8,
    capabilities=Capabilities(grammar=True),
)
UNABLE = ModelCard(model="plain", context_tokens=100, vocabulary_size=50, max_slots=8)

UNUSED_OPTIONS = {
    "json": None,
    "json_object": False,
    "disable_any_whitespace": False,
    "disable_additional_properties": False,
    "disable_fallback": False,
    "whitespace_pattern": None,
}
"""What vLLM's own class of these parameters has beside the one that is set."""


def asked(**fields: Any) -> GenerationRequest:
    body = {"model": "valley", "messages": [{"role": "user", "content": "Hello"}]} | fields
    parsed = parse(ChatBody, json.dumps(body).encode(), max_bytes=1 << 20)
    return chat_request(parsed, Call(Caller(), "id-1", None, {}))


@pytest.mark.parametrize(
    ("fields", "form", "text"),
    [
        ({"response_format": {"type": "json_object"}}, "json_object", None),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "strict": True, "schema": SCHEMA},
                }
            },
            "json_schema",
            json.dumps(SCHEMA),
        ),
        (
            {"response_format": {"type": "json_object", "json_schema": None, "schema": None}},
            "json_object",
            None,
        ),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            "json_schema",
            json.dumps(SCHEMA),
        ),
        (
            {"response_format": {"type": "json_schema", "schema": SCHEMA}},
            "json_schema",
            json.dumps(SCHEMA),
        ),
        *(
            ({"response_format": {"type": kind, "value": SCHEMA}}, "json_schema", None)
            for kind in ("json", "json_object", "json_schema")
        ),
        ({"guided_json": SCHEMA}, "json_schema", json.dumps(SCHEMA)),
        ({"guided_json": json.dumps(SCHEMA)}, "json_schema", json.dumps(SCHEMA)),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"guided_grammar": 'root ::= "a"'}, "ebnf", 'root ::= "a"'),
        ({"grammar": 'root ::= "a"'}, "ebnf", 'root ::= "a"'),
        ({"json_schema": SCHEMA, "grammar": ""}, "json_schema", json.dumps(SCHEMA)),
        ({"guided_choice": ["yes", 'n"o', "é"]}, "ebnf", r'root ::= "yes" | "n\"o" | "é"'),
        ({"structured_outputs": {"regex": "a+"}}, "regex", "a+"),
        ({"structured_outputs": {"json": SCHEMA, "regex": None}}, "json_schema", None),
        ({"structured_outputs": {"json_object": True}}, "json_object", None),
        ({"structured_outputs": {"regex": "a+", **UNUSED_OPTIONS}}, "regex", "a+"),
        ({"structured_outputs": {"regex": "a+", "disable_any_whitespace": True}}, "regex", "a+"),
    ],
)
def test_every_field_that_requests_a_structure_gets_it(
    fields: dict[str, Any], form: str, text: str | None
) -> None:
    requested = asked(**fields)
    assert requested.parameters.structure.WhichOneof("form") == form
    if text is not None:
        assert getattr(requested.parameters.structure, form) == text
    assert requested.name_of("structure") == next(iter(fields))


def test_the_older_shape_of_a_structural_tag_becomes_todays() -> None:
    structures = [{"begin": "<a>", "schema": SCHEMA, "end": "</a>"}]
    old = {"type": "structural_tag", "structures": structures, "triggers": ["<a"]}
    shape = json.loads(asked(response_format=old).parameters.structure.structural_tag)
    assert shape["format"]["type"] == "triggered_tags"
    assert shape["format"]["tags"][0]["content"]["json_schema"] == SCHEMA
    today = {"type": "structural_tag", "format": shape["format"]}
    assert json.loads(asked(response_format=today).parameters.structure.structural_tag) == shape


def test_the_response_format_text_requests_no_structure() -> None:
    assert not asked(response_format={"type": "text"}).parameters.HasField("structure")


@pytest.mark.parametrize(
    ("fields", "error", "field"),
    [
        ({"response_format": {"type": "xml"}}, Unsupported, "response_format.type"),
        ({"response_format": {}}, InvalidRequest, "response_format.type"),
        (
            {"response_format": {"type": "json_schema"}},
            InvalidRequest,
            "response_format.json_schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            InvalidRequest,
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA, "foo": 1}},
            InvalidRequest,
            "response_format.foo",
        ),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA, "value": SCHEMA}},
            InvalidRequest,
            "response_format.value",
        ),
        ({"response_format": {"type": "json"}}, Unsupported, "response_format.type"),
        (
            {"response_format": {"type": "json_object", "schema": []}},
            InvalidRequest,
            "response_format.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "schema": SCHEMA, "json_schema": {}}},
            InvalidRequest,
            "response_format.json_schema",
        ),
        ({"guided_choice": []}, InvalidRequest, "guided_choice"),
        ({"guided_regex": "a", "guided_json": SCHEMA}, InvalidRequest, "guided_regex"),
        ({"structured_outputs": {}}, InvalidRequest, "structured_outputs"),
        ({"structured_outputs": {"xml": "a"}}, Unsupported, "structured_outputs.xml"),
        ({"structured_outputs": UNUSED_OPTIONS}, InvalidRequest, "structured_outputs"),
        (
            {"structured_outputs": {"regex": "a", "disable_additional_properties": True}},
            Unsupported,
            "structured_outputs.disable_additional_properties",
        ),
        (
            {"structured_outputs": {"regex": "a", "whitespace_pattern": " "}},
            Unsupported,
            "structured_outputs.whitespace_pattern",
        ),
    ],
)
def test_a_malformed_structure_is_refused_by_its_field(
    fields: dict[str, Any], error: type[HeadraceError], field: str
) -> None:
    with pytest.raises(error) as refused:
        asked(**fields)
    assert refused.value.field == field


def nested(depth: int) -> str:
    return '{"items":' * (depth - 1) + "{}" + "}" * (depth - 1)


@pytest.mark.parametrize(
    "structure",
    [
        Structure(),
        Structure(json_schema="{"),
        Structure(json_schema="[1]"),
        Structure(json_schema=nested(MAX_DEPTH + 1)),
        Structure(structural_tag=nested(MAX_DEPTH + 1)),
        Structure(regex="a" * (MAX_CHARACTERS + 1)),
        Structure(regex="(" * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1)),
        Structure(ebnf="root ::= " + "(" * (MAX_DEPTH + 1)),
    ],
)
def test_what_would_break_an_engine_never_reaches_one(structure: Structure) -> None:
    with pytest.raises(InvalidStructure) as refused:
        check_structure(structure, ABLE, "guided_json")
    assert refused.value.field == "guided_json"


@pytest.mark.parametrize(
    "structure",
    [
        Structure(json_object=JsonObject()),
        Structure(json_schema=nested(MAX_DEPTH)),
        Structure(regex="(a)" * 1000),
        Structure(ebnf='root ::= "a"'),
    ],
)
def test_structures_within_the_limits_pass(structure: Structure) -> None:
    check_structure(structure, ABLE, "guided_json")


def test_a_structure_is_refused_for_a_model_without_structured_output() -> None:
    with pytest.raises(Unsupported, match="plain"):
        check_structure(Structure(regex="a"), UNABLE, "guided_regex")


def test_the_record_has_the_structure_and_its_field_in_the_request() -> None:
    parameters = SamplingParameters(structure=Structure(regex="a+"))
    names = {"structure": "guided_regex"}
    requested = GenerationRequest(
        "r-1",
        "valley",
        Text("hi"),
        parameters,
        priority=Priority.PRIORITY_BULK,
        names=names,
        caller=Caller(),
    )
    check(requested, ABLE, GatewaySettings())
    request = valid_request(requested, ABLE, GatewaySettings(), [1, 2], draw_seed=lambda: 7)
    assert request.sampling.grammar.structure.regex == "a+"
    assert request.sampling.grammar.field == "guided_regex"
