"""What the package adds to chat: parsing, streams of events, tools that run in a loop."""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI, pydantic_function_tool
from pydantic import BaseModel

MODEL = "valley"
ASKED: Any = [{"role": "user", "content": "What is the weather in Oakford?"}]


class Villager(BaseModel):
    name: Literal["Ada", "Bram"]
    town: Literal["Oakford", "Willowmere"]


class get_weather(BaseModel):  # noqa: N801  # the function's name
    """The weather of a town."""

    town: str


def test_structured_output_is_parsed(client: OpenAI) -> None:
    done = client.chat.completions.parse(
        model=MODEL,
        temperature=0,
        messages=[{"role": "user", "content": "Give me Ada as JSON."}],
        response_format=Villager,
    )
    assert isinstance(done.choices[0].message.parsed, Villager)


def test_arguments_of_a_function_are_parsed(client: OpenAI) -> None:
    done = client.chat.completions.parse(
        model=MODEL, temperature=0, messages=ASKED, tools=[pydantic_function_tool(get_weather)]
    )
    (call,) = done.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == get_weather(town="Oakford")


def test_events_of_a_stream_of_arguments(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL,
        temperature=0,
        messages=ASKED,
        tools=[pydantic_function_tool(get_weather)],
        tool_choice="required",
    ) as stream:
        events = list(stream)
        message = stream.get_final_completion().choices[0].message
    (call,) = message.tool_calls or []
    ends = [e for e in events if e.type == "tool_calls.function.arguments.done"]
    assert [e.arguments for e in ends] == [call.function.arguments]
    assert isinstance(call.function.parsed_arguments, get_weather)


def test_plain_json(client: OpenAI) -> None:
    done = client.chat.completions.create(
        model=MODEL,
        temperature=0,
        messages=[{"role": "user", "content": "Give me Ada as JSON."}],
        response_format={"type": "json_object"},
    )
    assert isinstance(json.loads(done.choices[0].message.content or ""), dict)


async def test_many_at_once(async_client: AsyncOpenAI) -> None:
    async with async_client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": "Who are you?"}], n=3, seed=5
    ) as stream:
        done = await stream.get_final_completion()
    assert [choice.finish_reason for choice in done.choices] == ["stop"] * 3


def test_log_probabilities(client: OpenAI) -> None:
    done = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        logprobs=True,
        top_logprobs=2,
        max_completion_tokens=3,
    )
    assert done.choices[0].logprobs is not None
    tokens = done.choices[0].logprobs.content or []
    assert [len(token.top_logprobs) for token in tokens] == [2] * len(tokens)


def test_an_image_is_refused_in_words(client: OpenAI) -> None:
    image = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
    with pytest.raises(openai.BadRequestError, match="image"):
        client.chat.completions.create(
            model=MODEL,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is in it?"},
                        {"type": "image_url", "image_url": {"url": image}},
                    ],
                }
            ],
        )
