"""Chat, as OpenAI's quick start and its guide on function calling begin."""

from __future__ import annotations

import json
from typing import Any

from openai import OpenAI

MODEL = "valley"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string", "enum": ["Oakford", "Millbrook"]}},
            "required": ["town"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def test_an_answer(client: OpenAI) -> None:
    done = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Answer briefly."},
            {"role": "user", "content": "Who are you?"},
        ],
    )
    assert done.choices[0].message.content
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_a_stream_says_what_the_answer_says(client: OpenAI) -> None:
    asked: Any = {
        "model": MODEL,
        "temperature": 0,
        "messages": [{"role": "user", "content": "Count from 3 to 9."}],
    }
    whole = client.chat.completions.create(**asked)
    with client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ) as chunks:
        pieces = list(chunks)
    text = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    assert text == whole.choices[0].message.content == "3, 4, 5, 6, 7, 8, 9"
    assert pieces[-1].usage == whole.usage


def test_a_function_is_called_and_its_result_used(client: OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Oakford?"}]
    asked = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER], temperature=0
    )
    (call,) = asked.choices[0].message.tool_calls or []
    assert asked.choices[0].finish_reason == "tool_calls"
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"town": "Oakford"}
    result = {"sky": "windy", "degrees": 14}
    messages += [
        asked.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)},
    ]
    told = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER], temperature=0
    )
    assert "windy in Oakford" in (told.choices[0].message.content or "")
