"""An agent of LangChain 1, over each of the three APIs, whole and in a stream."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, ToolMessage
from test_chat_models import chat, get_weather, messages, responses

ASKED: Any = {"messages": [{"role": "user", "content": "What is the weather in Oakford?"}]}


@pytest.fixture(params=[chat, responses, messages])
def agent(request: pytest.FixtureRequest) -> Any:
    model: BaseChatModel = request.param()
    return create_agent(model, tools=[get_weather])


def test_an_agent_uses_its_tool_and_answers_with_the_result(agent: Any) -> None:
    done = agent.invoke(ASKED)["messages"]
    assert [message.type for message in done] == ["human", "ai", "tool", "ai"]
    assert done[1].tool_calls[0]["args"] == {"town": "Oakford"}
    assert "windy in Oakford" in done[-1].text


def test_an_agents_tokens_are_streamed(agent: Any) -> None:
    seen = [message for message, _ in agent.stream(ASKED, stream_mode="messages")]
    (place,) = (n for n, message in enumerate(seen) if isinstance(message, ToolMessage))
    said = [m.text for m in seen[place + 1 :] if isinstance(m, AIMessageChunk) and m.text]
    assert len(said) > 3
    assert "windy in Oakford" in "".join(said)
