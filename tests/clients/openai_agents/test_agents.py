"""Agents, as the quick start of OpenAI's Agents SDK begins."""

from __future__ import annotations

import os
from typing import Any

import pytest
from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

set_tracing_disabled(True)
MODEL = "valley"


@pytest.fixture(params=[OpenAIChatCompletionsModel, OpenAIResponsesModel])
async def model(request: pytest.FixtureRequest) -> Any:
    url, key = os.environ["HEADRACE_BASE_URL"] + "/v1", os.environ["HEADRACE_API_KEY"]
    async with AsyncOpenAI(base_url=url, api_key=key) as client:
        yield request.param(MODEL, client)


async def test_an_agent_answers(model: Model) -> None:
    agent = Agent(name="Guide", instructions="Answer briefly.", model=model)
    result = await Runner.run(agent, "Who are you?")
    assert result.final_output


@function_tool
def get_weather(town: str) -> str:
    """The weather of a town."""
    return f'{{"town": "{town}", "sky": "windy", "degrees": 14}}'


async def test_an_agent_uses_a_tool(model: Model) -> None:
    agent = Agent(
        name="Guide", model=model, tools=[get_weather], model_settings=ModelSettings(temperature=0)
    )
    result = await Runner.run(agent, "What is the weather in Oakford?", max_turns=3)
    kinds = [item.type for item in result.new_items]
    assert kinds == ["tool_call_item", "tool_call_output_item", "message_output_item"]
