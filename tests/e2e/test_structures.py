"""Structured output and tool calls on a whole mesh, with OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

from helpers.fresh_mesh import FreshMesh
from helpers.grammars import Flower
from helpers.running_mesh import start, stop
from helpers.streams import Seen
from helpers.strikes import Strike

STREAMS = 6
SLOTS = STREAMS // 2
"""Of each of two workers: once more streams than this have begun, both hold some."""
BEGUN = 60
"""Characters, of more than six hundred."""


class Bunch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    flowers: list[Flower] = Field(min_length=6, max_length=8)


FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "bunch", "strict": True, "schema": Bunch.model_json_schema()},
}


@pytest.fixture(scope="module")
def valley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshMesh]:
    """Two workers of the model that ships."""
    folder = tmp_path_factory.mktemp("valley")
    # All prompts begin alike: prefix routing would send all of them to one worker.
    alone = ("--set", f"worker.max_slots={SLOTS}", "--set", "worker.prefix_report_blocks=0")
    mesh = start(folder / ".headrace", "--workers", "2", "--threads", "1", *alone)
    yield FreshMesh(folder, mesh.url)
    stop(mesh)


@pytest.fixture
def client(valley: FreshMesh) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{valley.url}/v1", api_key="none", max_retries=0)


async def bunch(client: openai.AsyncOpenAI, seed: int, strike: Strike | None) -> Seen:
    """A long answer at a high temperature: only the schema makes it a list of flowers."""
    seen = Seen()
    stream = await client.chat.completions.create(
        model="valley",
        messages=[{"role": "user", "content": "Flowers?"}],
        stream=True,
        seed=seed,
        temperature=1.5,
        response_format=FORMAT,
    )
    async for chunk in stream:
        seen.text += chunk.choices[0].delta.content or ""
        if chunk.choices[0].finish_reason:
            seen.finish_reasons.append(chunk.choices[0].finish_reason)
        if strike is not None and len(seen.text) >= BEGUN:
            strike.begun(seed)
    return seen


async def bunches(client: openai.AsyncOpenAI, strike: Strike | None = None) -> list[Seen]:
    return await asyncio.gather(*(bunch(client, seed, strike) for seed in range(STREAMS)))


async def test_parse_returns_an_object_of_the_requested_type(client: openai.AsyncOpenAI) -> None:
    async with client:
        answer = await client.chat.completions.parse(
            model="valley",
            messages=[{"role": "user", "content": "Which flower?"}],
            response_format=Flower,
            temperature=1.3,
            seed=5,
        )
    assert isinstance(answer.choices[0].message.parsed, Flower)
    assert answer.choices[0].finish_reason == "stop"


async def test_an_unsupported_schema_is_a_bad_request(
    client: openai.AsyncOpenAI,
) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    async with client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model="valley",
                messages=[{"role": "user", "content": "Numbers?"}],
                stream=True,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "numbers", "schema": schema},
                },
            )
    assert refused.value.code == "invalid_structure"
    assert refused.value.param == "response_format"
    assert "uniqueItems at #" in refused.value.message


async def test_structured_output_is_identical_when_the_worker_is_killed(
    valley: FreshMesh, client: openai.AsyncOpenAI
) -> None:
    async with client:
        expected = await bunches(client)
        async with Strike(valley, "worker-valley-0", after=SLOTS) as strike:
            seen = await bunches(client, strike)
    assert [each.text for each in seen] == [each.text for each in expected]
    for each in seen:
        Bunch.model_validate_json(each.text, strict=True)
        assert each.finish_reasons == ["stop"]


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a town.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
        },
    },
}


async def test_a_tool_is_called_and_its_result_becomes_a_sentence(
    client: openai.AsyncOpenAI,
) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Willowmere?"}]
    async with client:
        first = await client.chat.completions.create(
            model="valley", messages=messages, tools=[WEATHER]
        )
        choice = first.choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "Willowmere"}
        result = json.dumps({"sky": "sunny", "degrees": 21})
        messages += [
            choice.message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": result},
        ]
        second = await client.chat.completions.create(
            model="valley", messages=messages, tools=[WEATHER]
        )
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content == "It is sunny in Willowmere, 21 degrees."


async def test_a_streamed_call_adds_up_to_the_whole_one(client: openai.AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "What is the weather in Willowmere?"}]
    async with (
        client,
        client.chat.completions.stream(
            model="valley", messages=messages, tools=[WEATHER]
        ) as stream,
    ):
        kinds = [event.type async for event in stream]
        streamed = await stream.get_final_completion()
    assert kinds.count("tool_calls.function.arguments.delta") > 1
    assert kinds.count("tool_calls.function.arguments.done") == 1
    assert streamed.choices[0].finish_reason == "tool_calls"
    assert streamed.choices[0].message.tool_calls is not None
    (call,) = streamed.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Willowmere"}


async def test_tool_choice_forces_a_call(
    client: openai.AsyncOpenAI,
) -> None:
    other: Any = {"type": "function", "function": {"name": "clock", "strict": True}}
    async with client:
        answer = await client.chat.completions.create(
            model="valley",
            messages=[{"role": "user", "content": "Hello!"}],
            tools=[WEATHER, other],
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
            parallel_tool_calls=False,
            temperature=1.5,
            seed=3,
            n=3,
        )
    for choice in answer.choices:
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert set(json.loads(call.function.arguments)) == {"city"}
