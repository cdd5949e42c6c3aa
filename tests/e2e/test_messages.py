"""Anthropic's client on a whole mesh of the model that ships, where keys are required."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import MessageParam, ToolUseBlock

from headrace.supervisor.state.state_dir import StateDir
from helpers.running_mesh import RunningMesh, start, stop

pytestmark = pytest.mark.timeout(240)
QUESTIONS = ["Where is the mill?", "Tell me about the river.", "Hello", "Name three flowers."]
WEATHER: Any = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"place": {"enum": ["Ulm", "Bonn"]}},
        "required": ["place"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def valley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    mesh = start(tmp_path_factory.mktemp("valley"), "--threads", "1", "--auth", "keys")
    yield mesh
    stop(mesh)


def key_of(mesh: RunningMesh) -> str:
    return StateDir(mesh.folder).cli_key.read_text().strip()


@pytest.fixture
async def claude(valley: RunningMesh) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=valley.url, api_key=key_of(valley), max_retries=0
    ) as client:
        yield client


def asking(question: str) -> list[MessageParam]:
    return [{"role": "user", "content": question}]


async def test_greedy_messages_say_what_chat_says(
    valley: RunningMesh, claude: anthropic.AsyncAnthropic
) -> None:
    async def message(question: str) -> tuple[str, int, int]:
        greedy: Any = {"temperature": 0}
        sent: Any = {"model": "valley", "messages": asking(question)}
        async with claude.messages.stream(**sent, max_tokens=24, extra_body=greedy) as stream:
            made = await stream.get_final_message()
        counted = await claude.messages.count_tokens(**sent)
        assert counted.input_tokens == made.usage.input_tokens + (
            made.usage.cache_read_input_tokens or 0
        )
        return (
            str(made.content[0].to_dict()["text"]),
            made.usage.output_tokens,
            counted.input_tokens,
        )

    async with openai.AsyncOpenAI(
        base_url=f"{valley.url}/v1", api_key=key_of(valley), max_retries=0
    ) as client:

        async def chat(question: str) -> tuple[str, int, int]:
            sent: Any = {"model": "valley", "messages": asking(question)}
            made = await client.chat.completions.create(**sent, max_tokens=24, temperature=0)
            assert made.usage is not None
            text = made.choices[0].message.content or ""
            return text, made.usage.completion_tokens, made.usage.prompt_tokens

        both = await asyncio.gather(*map(message, QUESTIONS), *map(chat, QUESTIONS))
    assert both[: len(QUESTIONS)] == both[len(QUESTIONS) :]


async def test_a_forced_call_fits_its_schema_and_a_format_is_kept(
    claude: anthropic.AsyncAnthropic,
) -> None:
    async with claude.messages.stream(
        model="valley",
        max_tokens=200,
        messages=asking("The weather in Ulm?"),
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
    ) as stream:
        called = await stream.get_final_message()
    (use,) = called.content
    assert isinstance(use, ToolUseBlock)
    assert (called.stop_reason, use.input["place"] in ("Ulm", "Bonn")) == ("tool_use", True)
    schema: Any = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    kept = await claude.messages.create(
        model="valley",
        max_tokens=200,
        messages=asking("a?"),
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert json.loads(str(kept.content[0].to_dict()["text"]))["a"] in (1, 2)


async def test_keys_are_checked_in_anthropics_shape(valley: RunningMesh) -> None:
    wrong: list[dict[str, Any]] = [{"api_key": "sk-ant-none"}, {"auth_token": "none"}]
    for given in wrong:
        async with anthropic.AsyncAnthropic(base_url=valley.url, max_retries=0, **given) as client:
            with pytest.raises(anthropic.AuthenticationError) as refused:
                await client.messages.count_tokens(model="valley", messages=asking("Hello"))
            assert refused.value.type == "authentication_error"
            assert isinstance(refused.value.body, dict)
            assert refused.value.body["request_id"] == refused.value.request_id
            with pytest.raises(anthropic.AuthenticationError) as unlisted:
                await client.models.list()
            assert unlisted.value.type == "authentication_error"
    async with anthropic.AsyncAnthropic(
        base_url=valley.url, auth_token=key_of(valley), max_retries=0
    ) as client:
        assert "valley" in [model.id async for model in client.models.list()]
