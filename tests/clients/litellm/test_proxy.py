"""LiteLLM's proxy in front of the mesh: its clients are OpenAI's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from conftest import PROXY_KEY

EMBEDDER = os.environ["HEADRACE_EMBEDDING_MODEL"]
COUNT: Any = [{"role": "user", "content": "Count from 3 to 9."}]


@pytest.fixture
def client(proxy: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=proxy, api_key=PROXY_KEY) as opened:
        yield opened


def test_an_answer_and_its_stream(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="valley", messages=COUNT, temperature=0)
    with client.chat.completions.create(
        model="valley", messages=COUNT, temperature=0, stream=True
    ) as chunks:
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content == "3, 4, 5, 6, 7, 8, 9"


def test_a_tool_is_called(client: OpenAI) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
        },
    }
    done = client.chat.completions.create(
        model="valley",
        messages=[{"role": "user", "content": "What is the weather in Oakford?"}],
        tools=[tool],
        temperature=0,
    )
    (call,) = done.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {"town": "Oakford"}


def test_responses_and_embeddings(client: OpenAI) -> None:
    told = client.responses.create(model="valley", input="Count from 3 to 9.", temperature=0)
    assert told.output_text == "3, 4, 5, 6, 7, 8, 9"
    assert len(client.embeddings.create(model=EMBEDDER, input=["a", "b"]).data) == 2


def test_a_bad_request_stays_one(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="valley", messages=COUNT, temperature=9)
