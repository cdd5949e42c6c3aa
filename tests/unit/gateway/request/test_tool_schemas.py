"""Parameters of a tool that are no JSON Schema are refused by name; None is as if absent."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import InvalidRequest
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace_gateway.parsers.formats import FORMATS
from headrace_gateway.parsers.keywords import keywords
from headrace_gateway.request.tools import Tool, Tools, check_tools

CARD = ModelCard(model="m", tool_parser="hermes")


def check(parameters: dict[str, Any]) -> None:
    tools = Tools((Tool("a"), Tool("sky", parameters=parameters)))
    check_tools(tools, CARD, "tools", "tool_choice")


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"properties": ["town"]}, "properties should be an object"),
        ({"properties": ""}, "properties should be an object"),
        ({"required": "town"}, "required should be a list"),
        ({"properties": {"town": {"enum": "x"}}}, "properties.town.enum should be a list"),
        ({"anyOf": {"type": "object"}}, "anyOf should be a list"),
        ({"allOf": [{"oneOf": 3}]}, "allOf[0].oneOf should be a list"),
        ({"type": ["object", {}]}, "type should be a text or a list of texts"),
        ({"$defs": {"x": {"type": 1}}}, "$defs.x.type should be a text or a list of texts"),
        ({"items": {"required": True}}, "items.required should be a list"),
    ],
)
def test_what_is_no_schema_is_refused_by_place(parameters: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(parameters)
    assert str(refused.value) == f"tools[1]: its parameters are no schema: {fault}"
    assert refused.value.field == "tools[1]"


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": None, "properties": None, "required": None, "enum": None, "anyOf": None},
        {"properties": {"enum": {"type": "string"}, "required": True, "type": {"type": "null"}}},
        {"type": ["object", "null"], "properties": {"a": {"type": ["string", "null"]}}},
    ],
)
def test_what_is_one_is_taken(parameters: dict[str, Any]) -> None:
    check(parameters)
    form = FORMATS["glm45"].keyword
    assert form is not None
    assert keywords(parameters, form)


def test_a_schema_that_is_none_still_has_a_grammar() -> None:
    form = FORMATS["glm45"].keyword
    assert form is not None
    odd = {"properties": {"a": {"type": "string", "enum": 3}, "b": 1}, "required": True}
    assert keywords(odd, form)
    assert keywords({"properties": ["a"]}, form) == {"type": "const_string", "value": ""}
