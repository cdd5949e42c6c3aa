"""Agents, as the quick start of OpenAI's Agents SDK begins."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)
MODEL = "valley"
GREEDY = ModelSettings(temperature=0)


@pytest.fixture(params=[OpenAIChatCompletionsModel, OpenAIResponsesModel])
async def model(request: pytest.FixtureRequest) -> AsyncIterator[Model]:
    url, key = os.environ["HEADRACE_BASE_URL"] + "/v1", os.environ["HEADRACE_API_KEY"]
    async with AsyncOpenAI(base_url=url, api_key=key) as client:
        yield request.param(MODEL, client)


@function_tool
def get_weather(town: str) -> str:
    """The weather of a town."""
    return f'{{"town": "{town}", "sky": "windy", "degrees": 14}}'


class Villager(BaseModel):
    name: Literal["Ada", "Bram"]
    town: Literal["Oakford", "Willowmere"]


async def test_an_agent_answers(model: Model) -> None:
    agent = Agent(name="Guide", instructions="Answer briefly.", model=model)
    result = await Runner.run(agent, "Who are you?")
    assert result.final_output


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_agent_uses_a_tool(model: Model, streamed: bool) -> None:
    agent = Agent(name="Guide", model=model, tools=[get_weather], model_settings=GREEDY)
    question = "What is the weather in Oakford?"
    result: Any
    if streamed:
        result = Runner.run_streamed(agent, question, max_turns=3)
        kinds = [
            e.item.type async for e in result.stream_events() if e.type == "run_item_stream_event"
        ]
    else:
        result = await Runner.run(agent, question, max_turns=3)
        kinds = [item.type for item in result.new_items]
    assert kinds == ["tool_call_item", "tool_call_output_item", "message_output_item"]
    assert "Oakford" in result.final_output


async def test_an_output_type_is_held_to(model: Model) -> None:
    agent = Agent(name="Guide", model=model, output_type=Villager, model_settings=GREEDY)
    result = await Runner.run(agent, "Give me Ada as JSON.")
    assert isinstance(result.final_output, Villager)


async def test_an_output_type_beside_tools(model: Model) -> None:
    agent = Agent(
        name="Guide",
        model=model,
        tools=[get_weather],
        output_type=Villager,
        model_settings=GREEDY,
    )
    result = await Runner.run(agent, "Give me Ada as JSON.", max_turns=4)
    assert isinstance(result.final_output, Villager)


async def test_a_handoff(model: Model) -> None:
    poet = Agent(name="Poet", handoff_description="Writes poems", model=model)
    guide = Agent(
        name="Guide",
        model=model,
        handoffs=[poet],
        model_settings=ModelSettings(temperature=0, tool_choice="required"),
    )
    result = await Runner.run(guide, "Write a poem about the moon.", max_turns=3)
    assert result.last_agent.name == "Poet"
    assert result.final_output


async def test_a_session_remembers(model: Model) -> None:
    agent = Agent(name="Guide", model=model, model_settings=GREEDY)
    session = SQLiteSession("talk")
    await Runner.run(agent, "My name is Vera.", session=session)
    result = await Runner.run(agent, "What is my name?", session=session)
    assert "Vera" in result.final_output
