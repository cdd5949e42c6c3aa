"""Responses, as OpenAI's own guides begin: text, streams, functions, what is kept."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

MODEL = "valley"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a town",
    "parameters": {
        "type": "object",
        "properties": {"town": {"type": "string", "enum": ["Oakford", "Millbrook"]}},
        "required": ["town"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Villager(BaseModel):
    name: Literal["Ada", "Bram"]
    town: Literal["Oakford", "Willowmere"]


def test_a_response_is_kept_continued_and_deleted(client: OpenAI) -> None:
    first = client.responses.create(
        model=MODEL, instructions="Answer briefly.", input="My name is Vera.", temperature=0
    )
    assert first.output_text
    assert client.responses.retrieve(first.id).output_text == first.output_text
    second = client.responses.create(
        model=MODEL, previous_response_id=first.id, input="What is my name?", temperature=0
    )
    assert "Vera" in second.output_text
    (asked,) = client.responses.input_items.list(first.id).data
    assert asked.type == "message"
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_a_stream_has_every_event_and_can_be_read_again(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Count from 3 to 9.", temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "3, 4, 5, 6, 7, 8, 9"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")


def test_a_response_in_the_background_is_read_from_a_place_on(client: OpenAI) -> None:
    begun = client.responses.create(
        model=MODEL, input="Count from 3 to 9.", temperature=0, background=True
    )
    whole = list(client.responses.retrieve(begun.id, stream=True))
    rest = list(client.responses.retrieve(begun.id, stream=True, starting_after=2))
    assert [e.sequence_number for e in rest] == [e.sequence_number for e in whole][3:]
    assert client.responses.retrieve(begun.id).status == "completed"


def test_a_function_is_called_and_its_result_used(client: OpenAI) -> None:
    items: list[Any] = [{"role": "user", "content": "What is the weather in Oakford?"}]
    asked = client.responses.create(model=MODEL, input=items, tools=[WEATHER], temperature=0)
    (call,) = asked.output
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"town": "Oakford"}
    result = json.dumps({"sky": "windy", "degrees": 14})
    items += asked.output
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": result})
    told = client.responses.create(model=MODEL, input=items, tools=[WEATHER], temperature=0)
    assert "windy in Oakford" in told.output_text


def test_structured_output_is_parsed(client: OpenAI) -> None:
    parsed = client.responses.parse(
        model=MODEL, input="Give me Ada as JSON.", text_format=Villager, temperature=0
    )
    assert isinstance(parsed.output_parsed, Villager)
    with client.responses.stream(
        model=MODEL, input="Give me Ada as JSON.", text_format=Villager, temperature=0
    ) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed


async def test_a_conversation_remembers(async_client: AsyncOpenAI) -> None:
    talk = await async_client.conversations.create()
    for said in ("My name is Vera.", "What is my name?"):
        answer = await async_client.responses.create(
            model=MODEL, conversation=talk.id, input=said, temperature=0
        )
    assert "Vera" in answer.output_text
    items = await async_client.conversations.items.list(talk.id)
    assert len(items.data) == 4
