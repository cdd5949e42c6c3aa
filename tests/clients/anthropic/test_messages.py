"""Messages, as Anthropic's quick start and its guides on tools begin."""

from __future__ import annotations

from typing import Any, Literal

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_tool
from pydantic import BaseModel

MODEL = "valley"
GREEDY: Any = {"model": MODEL, "max_tokens": 128, "extra_body": {"temperature": 0}}
COUNT: Any = [{"role": "user", "content": "Count from 3 to 9."}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a town",
    "input_schema": {
        "type": "object",
        "properties": {"town": {"type": "string", "enum": ["Oakford", "Millbrook"]}},
        "required": ["town"],
    },
}


def test_an_answer(client: Anthropic) -> None:
    told = client.messages.create(
        model=MODEL,
        max_tokens=64,
        system="Answer briefly.",
        messages=[{"role": "user", "content": "Who are you?"}],
    )
    assert told.content[0].type == "text"
    assert told.content[0].text
    assert told.stop_reason == "end_turn"


def test_the_text_stream(client: Anthropic) -> None:
    with client.messages.stream(**GREEDY, messages=COUNT) as stream:
        assert "".join(stream.text_stream) == "3, 4, 5, 6, 7, 8, 9"
        assert stream.get_final_message().usage.output_tokens > 0


async def test_raw_events(async_client: AsyncAnthropic) -> None:
    stream = await async_client.messages.create(**GREEDY, messages=COUNT, stream=True)
    kinds = [event.type async for event in stream]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_used_and_its_result_too(client: Anthropic, streamed: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Oakford?"}]

    def ask() -> Any:
        if not streamed:
            return client.messages.create(**GREEDY, messages=messages, tools=[WEATHER])
        with client.messages.stream(**GREEDY, messages=messages, tools=[WEATHER]) as stream:
            return stream.get_final_message()

    asked = ask()
    assert asked.stop_reason == "tool_use"
    (use,) = asked.content
    assert (use.name, use.input) == ("get_weather", {"town": "Oakford"})
    result = {
        "type": "tool_result",
        "tool_use_id": use.id,
        "content": '{"sky": "windy", "degrees": 14}',
    }
    messages += [
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": [result]},
    ]
    assert "windy in Oakford" in ask().content[0].text


def test_the_tool_runner_ends_with_an_answer(client: Anthropic) -> None:
    @beta_tool
    def get_weather(town: str) -> str:
        """The weather of a town.

        Args:
            town: Its name.
        """
        return f'{{"town": "{town}", "sky": "windy", "degrees": 14}}'

    runner = client.beta.messages.tool_runner(
        **GREEDY,
        tools=[get_weather],
        messages=[{"role": "user", "content": "What is the weather in Oakford?"}],
        max_iterations=3,
    )
    kinds = [message.stop_reason for message in runner]
    assert kinds == ["tool_use", "end_turn"]


def test_structured_output_is_parsed(client: Anthropic) -> None:
    class Villager(BaseModel):
        name: Literal["Ada", "Bram"]
        town: Literal["Oakford", "Willowmere"]

    asked: Any = [{"role": "user", "content": "Give me Ada as JSON."}]
    told = client.messages.parse(**GREEDY, messages=asked, output_format=Villager)
    assert isinstance(told.parsed_output, Villager)


def test_tokens_are_counted_as_they_are_billed(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=COUNT, tools=[WEATHER])
    told = client.messages.create(model=MODEL, max_tokens=1, messages=COUNT, tools=[WEATHER])
    cached = told.usage.cache_read_input_tokens or 0
    assert counted.input_tokens == told.usage.input_tokens + cached


def test_models(client: Anthropic) -> None:
    assert MODEL in {model.id for model in client.models.list()}
    assert client.models.retrieve(MODEL).id == MODEL


def test_errors_have_the_classes_that_code_catches(client: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="absent", max_tokens=1, messages=COUNT)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(model=MODEL, max_tokens=0, messages=COUNT)
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        client.messages.create(
            model=MODEL, max_tokens=1, messages=[{"role": "user", "content": "a b " * 9000}]
        )
    with pytest.raises(anthropic.AuthenticationError):
        client.with_options(api_key="none").messages.create(
            model=MODEL, max_tokens=1, messages=COUNT
        )
