"""Agents, as Pydantic AI's documentation begins: with each of its models that speaks to us."""

from __future__ import annotations

import os
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    ModelContextWindowExceededError,
    ModelHTTPError,
    NativeOutput,
    PromptedOutput,
    RunContext,
    ToolOutput,
)
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

MODEL = "valley"
URL, KEY = os.environ["HEADRACE_BASE_URL"], os.environ["HEADRACE_API_KEY"]
OPENAI = OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY)
ANTHROPIC = AnthropicProvider(base_url=URL, api_key=KEY)
MODELS = {
    "chat": lambda: OpenAIChatModel(MODEL, provider=OPENAI),
    "responses": lambda: OpenAIResponsesModel(MODEL, provider=OPENAI),
    "anthropic": lambda: AnthropicModel(MODEL, provider=ANTHROPIC),
}
GREEDY: Any = {"temperature": 0, "max_tokens": 128}


class Villager(BaseModel):
    name: Literal["Ada", "Bram"]
    town: Literal["Oakford", "Willowmere"]


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


async def test_an_agent_answers(model: Any) -> None:
    agent = Agent(model, instructions="Answer briefly.")
    result = await agent.run("Who are you?")
    assert result.output
    assert result.usage.output_tokens > 0


async def test_text_is_streamed(model: Any) -> None:
    agent = Agent(model, model_settings=GREEDY)
    async with agent.run_stream("Count from 3 to 9.") as streamed:
        texts = [text async for text in streamed.stream_text(delta=True, debounce_by=None)]
    assert "".join(texts) == "3, 4, 5, 6, 7, 8, 9"
    assert len(texts) > 1


async def test_a_tool_is_used(model: Any) -> None:
    agent = Agent(model, model_settings=GREEDY, deps_type=str)

    @agent.tool
    def get_weather(context: RunContext[str], town: str) -> dict[str, Any]:
        """The weather of a town."""
        return {"town": town, "sky": context.deps, "degrees": 14}

    result = await agent.run("What is the weather in Oakford?", deps="windy")
    kinds = [part.part_kind for message in result.all_messages() for part in message.parts]
    assert kinds == ["user-prompt", "tool-call", "tool-return", "text"]
    assert "windy" in result.output


@pytest.mark.parametrize("kind", [ToolOutput, NativeOutput, PromptedOutput])
async def test_an_output_type_is_held_to(kind: Any) -> None:
    agent: Any = Agent(MODELS["chat"](), output_type=kind(Villager), model_settings=GREEDY)
    result = await agent.run("Give me Ada as JSON.")
    assert isinstance(result.output, Villager)


@pytest.mark.parametrize("name", ["chat", "responses"])
async def test_native_output_beside_a_tool(name: str) -> None:
    agent: Any = Agent(MODELS[name](), output_type=NativeOutput(Villager), model_settings=GREEDY)

    @agent.tool_plain
    def get_weather(town: str) -> str:
        """The weather of a town."""
        return f"windy in {town}"

    result = await agent.run("Give me Ada as JSON.")
    assert isinstance(result.output, Villager)


async def test_structured_output_is_streamed() -> None:
    agent: Any = Agent(MODELS["chat"](), output_type=NativeOutput(Villager), model_settings=GREEDY)
    async with agent.run_stream("Give me Ada as JSON.") as streamed:
        whole = await streamed.get_output()
    assert isinstance(whole, Villager)


async def test_history_goes_on(model: Any) -> None:
    agent = Agent(model, model_settings=GREEDY)
    first = await agent.run("My name is Vera.")
    second = await agent.run("What is my name?", message_history=first.all_messages())
    assert "Vera" in second.output


async def test_an_error_has_its_status_and_class() -> None:
    agent = Agent(OpenAIChatModel("absent", provider=OPENAI))
    with pytest.raises(ModelHTTPError) as missing:
        await agent.run("Hello")
    assert missing.value.status_code == 404


async def test_too_long_a_prompt_exceeds_the_context_window(model: Any) -> None:
    with pytest.raises(ModelContextWindowExceededError):
        await Agent(model, model_settings=GREEDY).run("a b " * 9000)
