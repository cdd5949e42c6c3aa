"""LiteLLM in a program: completions, streams, tools, embeddings, and its own exceptions."""

from __future__ import annotations

import json
import os
from typing import Any, Literal

import pytest
from pydantic import BaseModel

import litellm

URL, KEY = os.environ["HEADRACE_BASE_URL"], os.environ["HEADRACE_API_KEY"]
EMBEDDER = os.environ["HEADRACE_EMBEDDING_MODEL"]
OPENAI: Any = {"model": "openai/valley", "api_base": f"{URL}/v1", "api_key": KEY}
ANTHROPIC: Any = {"model": "anthropic/valley", "api_base": URL, "api_key": KEY}
HOSTED: Any = {"model": "hosted_vllm/valley", "api_base": f"{URL}/v1", "api_key": KEY}
COUNT: Any = [{"role": "user", "content": "Count from 3 to 9."}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}},
            "required": ["town"],
        },
    },
}
each_way = pytest.mark.parametrize("way", [OPENAI, ANTHROPIC, HOSTED], ids=lambda way: way["model"])


class Villager(BaseModel):
    name: Literal["Ada", "Bram"]
    town: Literal["Oakford", "Willowmere"]


@each_way
def test_an_answer_and_its_stream(way: Any) -> None:
    asked = way | {"messages": COUNT, "temperature": 0, "max_tokens": 64}
    whole = litellm.completion(**asked)
    chunks = list(litellm.completion(**asked, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content == "3, 4, 5, 6, 7, 8, 9"
    assert whole.usage.completion_tokens > 0


@each_way
async def test_a_tool_is_called(way: Any) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Oakford?"}]
    asked = way | {"tools": [WEATHER], "temperature": 0, "max_tokens": 128}
    answer = await litellm.acompletion(**asked, messages=messages)
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"town": "Oakford"}
    result = json.dumps({"sky": "windy", "degrees": 14})
    messages += [
        answer.choices[0].message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
    told = await litellm.acompletion(**asked, messages=messages)
    assert "windy in Oakford" in told.choices[0].message.content


async def test_a_streamed_tool_call() -> None:
    chunks = [
        chunk
        async for chunk in await litellm.acompletion(
            **OPENAI,
            stream=True,
            temperature=0,
            tools=[WEATHER],
            messages=[{"role": "user", "content": "What is the weather in Oakford?"}],
        )
    ]
    built = litellm.stream_chunk_builder(chunks)
    (call,) = built.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"town": "Oakford"}


def test_structured_output() -> None:
    asked: Any = [{"role": "user", "content": "Give me Ada as JSON."}]
    done = litellm.completion(**OPENAI, messages=asked, response_format=Villager, temperature=0)
    assert Villager.model_validate_json(done.choices[0].message.content)


def test_responses() -> None:
    told = litellm.responses(**OPENAI, input="Count from 3 to 9.", temperature=0)
    assert told.output[0].content[0].text == "3, 4, 5, 6, 7, 8, 9"


def test_embeddings_and_text_completion() -> None:
    embedder = OPENAI | {"model": f"openai/{EMBEDDER}"}
    made = litellm.embedding(**embedder, input=["the river", "the mill"])
    assert len(made.data) == 2
    done = litellm.text_completion(
        **(OPENAI | {"model": "text-completion-openai/valley"}), prompt="Hello", max_tokens=4
    )
    assert done.choices[0].text is not None


def test_exceptions_are_its_own() -> None:
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**(OPENAI | {"model": "openai/absent"}), messages=COUNT)
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**(OPENAI | {"api_key": "none"}), messages=COUNT)
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**OPENAI, messages=COUNT, temperature=9)


@each_way
def test_too_long_a_prompt_is_its_exception_of_the_context_window(way: Any) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(
            **way, messages=[{"role": "user", "content": "a b " * 9000}], max_tokens=8
        )


def test_the_router_falls_back() -> None:
    router = litellm.Router(
        model_list=[
            {"model_name": "first", "litellm_params": OPENAI | {"model": "openai/absent"}},
            {"model_name": "second", "litellm_params": OPENAI},
        ],
        fallbacks=[{"first": ["second"]}],
        num_retries=0,
    )
    assert router.completion(model="first", messages=COUNT).choices[0].message.content
