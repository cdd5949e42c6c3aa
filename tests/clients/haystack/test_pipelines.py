"""Haystack's generators, tools, agent, pipeline and embedders at another base URL."""

from __future__ import annotations

import json
import os
from typing import Any, Literal

import pytest
from haystack import Document, Pipeline
from haystack.components.agents import Agent
from haystack.components.builders import ChatPromptBuilder
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage, StreamingChunk
from haystack.tools import create_tool_from_function
from haystack.utils import Secret
from pydantic import BaseModel

COUNTED = "3, 4, 5, 6, 7, 8, 9"
SERVER: Any = {
    "api_base_url": os.environ["HEADRACE_BASE_URL"] + "/v1",
    "api_key": Secret.from_env_var("HEADRACE_API_KEY"),
}
MODEL, EMBEDDER = os.environ["HEADRACE_MODEL"], os.environ["HEADRACE_EMBEDDING_MODEL"]
LENGTHS = {
    OpenAIChatGenerator: "max_completion_tokens",
    OpenAIResponsesChatGenerator: "max_output_tokens",
}
ASKED = [ChatMessage.from_user("What is the weather in Oakford?")]


def get_weather(town: Literal["Oakford", "Millbrook"]) -> str:
    """The weather of a town."""
    return f'{{"town": "{town}", "sky": "windy", "degrees": 14}}'


class Sky(BaseModel):
    """What the sky is like."""

    sky: Literal["windy", "rainy"]


weather = create_tool_from_function(get_weather)


def generator(kind: Any = OpenAIChatGenerator, **more: Any) -> Any:
    settings = {"temperature": 0, LENGTHS[kind]: 60}
    return kind(model=MODEL, generation_kwargs=settings, **SERVER, **more)


@pytest.fixture(params=list(LENGTHS))
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_an_answer_and_its_stream_are_equal(kind: Any) -> None:
    asked = [ChatMessage.from_user("Count from 3 to 9.")]
    (answer,) = generator(kind).run(asked)["replies"]
    assert answer.text == COUNTED
    chunks: list[StreamingChunk] = []
    (streamed,) = generator(kind, streaming_callback=chunks.append).run(asked)["replies"]
    assert streamed.text == COUNTED == "".join(chunk.content for chunk in chunks)
    assert len(chunks) > 9
    (awaited,) = (await generator(kind).run_async(asked))["replies"]
    assert awaited.text == COUNTED


def test_a_tool_is_called_whole_and_in_a_stream(kind: Any) -> None:
    ignored: list[StreamingChunk] = []
    for more in ({}, {"streaming_callback": ignored.append}, {"tools_strict": True}):
        (answer,) = generator(kind, tools=[weather], **more).run(ASKED)["replies"]
        (call,) = answer.tool_calls
        assert (call.tool_name, call.arguments) == ("get_weather", {"town": "Oakford"})


def test_an_agent_uses_its_tool_and_answers(kind: Any) -> None:
    agent = Agent(chat_generator=generator(kind), tools=[weather], max_agent_steps=4)
    done = agent.run(messages=ASKED)["messages"]
    assert [message.role.value for message in done] == ["user", "assistant", "tool", "assistant"]
    assert "windy in Oakford" in done[-1].text


def test_structured_output() -> None:
    (answer,) = generator().run(ASKED, generation_kwargs={"response_format": Sky})["replies"]
    assert Sky.model_validate_json(answer.text)
    responding = generator(OpenAIResponsesChatGenerator)
    (answer,) = responding.run(ASKED, generation_kwargs={"text_format": Sky})["replies"]
    assert Sky.model_validate(json.loads(answer.text))


def test_a_pipeline_of_a_prompt_and_a_model() -> None:
    pipeline = Pipeline()
    asking = [ChatMessage.from_user("Count from {{first}} to 9.")]
    builder = ChatPromptBuilder(template=asking, required_variables=["first"])
    pipeline.add_component("prompt", builder)
    pipeline.add_component("model", generator())
    pipeline.connect("prompt.prompt", "model.messages")
    assert pipeline.run({"prompt": {"first": 3}})["model"]["replies"][0].text == COUNTED


def test_texts_and_documents_are_embedded() -> None:
    one = OpenAITextEmbedder(model=EMBEDDER, **SERVER).run("a river")["embedding"]
    embedder = OpenAIDocumentEmbedder(model=EMBEDDER, progress_bar=False, **SERVER)
    documents = embedder.run([Document(content="a river"), Document(content="a mill")])
    first, other = (document.embedding for document in documents["documents"])
    assert first == pytest.approx(one, abs=1e-5)
    assert first != pytest.approx(other, abs=1e-2)
