"""Schemas and tools as other clients send them, with the default model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from helpers.fresh_mesh import FreshMesh
from helpers.running_mesh import start, stop


@pytest.fixture(scope="module")
def valley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshMesh]:
    folder = tmp_path_factory.mktemp("edges")
    mesh = start(folder / ".headrace", "--threads", "1")
    yield FreshMesh(folder, mesh.url)
    stop(mesh)


@pytest.fixture
def client(valley: FreshMesh) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{valley.url}/v1", api_key="none", max_retries=0)


async def answered(client: openai.AsyncOpenAI, schema: dict[str, Any]) -> Any:
    """The answer that follows the schema, parsed as JSON."""
    answer = await client.chat.completions.create(
        model="valley",
        messages=[{"role": "user", "content": "Who are you?"}],
        max_tokens=60,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    assert answer.choices[0].message.content is not None
    return json.loads(answer.choices[0].message.content)


def an_object(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"p": schema}, "required": ["p"], **more}


@pytest.mark.parametrize("pattern", ['^"x"$', r"^C:\\[a-z]{3}$", "^a\\tb$", '^[^a-z"]{2}$'])
async def test_a_pattern_holds_for_the_value_that_a_client_reads(
    client: openai.AsyncOpenAI, pattern: str
) -> None:
    async with client:
        parsed = await answered(client, an_object({"type": "string", "pattern": pattern}))
    assert re.search(pattern, parsed["p"])


async def test_required_names_without_a_schema_are_generated_and_enum_values_fit_the_type(
    client: openai.AsyncOpenAI,
) -> None:
    schema = an_object({"type": "integer", "enum": ["a", 1]})
    schema |= {
        "required": ["p", "zz"],
        "additionalProperties": {"type": "null"},
        "maxProperties": 2,
    }
    async with client:
        parsed = await answered(client, schema)
    assert (parsed["p"], parsed["zz"]) == (1, None)


@pytest.mark.parametrize(
    ("schema", "fact"),
    [
        (an_object({"$ref": "https://example.test/a.json"}), "$ref at #/properties/p"),
        (an_object({"$ref": "/$defs/N"}, **{"$defs": {"N": {}}}), "$ref at #/properties/p"),
        ({"type": "object", "minProperties": 2}, "minProperties at #"),
        (an_object({"type": "integer", "enum": ["a"]}), "nothing fulfils the schema"),
    ],
)
async def test_an_unsupported_schema_is_rejected_with_keyword_and_location(
    client: openai.AsyncOpenAI, schema: dict[str, Any], fact: str
) -> None:
    async with client:
        with pytest.raises(openai.BadRequestError) as refused:
            await answered(client, schema)
    assert refused.value.code == "invalid_structure"
    assert fact in refused.value.message


def offered(name: str, **properties: Any) -> Any:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


WEATHER = offered("get_weather", city={"type": "string"})
CALL = {"name": "get_weather", "arguments": '{"city": "Willowmere"}'}
HISTORY: Any = [
    {"role": "user", "content": "What is the weather in Willowmere?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": CALL}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": '{"sky": "sunny", "degrees": 21}'},
    {"role": "assistant", "content": "It is sunny in Willowmere, 21 degrees."},
    {"role": "user", "content": "What time is it in Willowmere?"},
]


@pytest.mark.parametrize("messages", [HISTORY, HISTORY[-1:]], ids=["history", "none"])
async def test_only_offered_functions_are_called(client: openai.AsyncOpenAI, messages: Any) -> None:
    fields: Any = {"model": "valley", "messages": messages, "tools": [WEATHER], "max_tokens": 60}
    names = set()
    async with client:
        for temperature in (0, 1):
            answer = await client.chat.completions.create(**fields, temperature=temperature, seed=3)
            calls: list[Any] = list(answer.choices[0].message.tool_calls or ())
            names |= {call.function.name for call in calls}
            async with client.chat.completions.stream(
                **fields, temperature=temperature, seed=3
            ) as stream:
                streamed = await stream.get_final_completion()
            again: list[Any] = list(streamed.choices[0].message.tool_calls or ())
            assert [each.function.name for each in again] == [each.function.name for each in calls]
    assert names <= {"get_weather"}


async def test_text_stays_free_where_tools_are_offered(client: openai.AsyncOpenAI) -> None:
    fields: Any = {"model": "valley", "messages": [{"role": "user", "content": "Hello!"}]}
    async with client:
        free = await client.chat.completions.create(**fields, temperature=0, max_tokens=30)
        beside = await client.chat.completions.create(
            **fields, temperature=0, max_tokens=30, tools=[WEATHER]
        )
    assert free.choices[0].message.content
    assert beside.choices[0].message.content
    assert beside.choices[0].finish_reason in ("stop", "length")
