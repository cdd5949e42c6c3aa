"""LangChain's chat models, as its documents on models, tools and structured output begin."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from functools import reduce
from operator import add
from typing import Any, Literal

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

ROOT, KEY = os.environ["HEADRACE_BASE_URL"], os.environ["HEADRACE_API_KEY"]
MODEL, EMBEDDER = os.environ["HEADRACE_MODEL"], os.environ["HEADRACE_EMBEDDING_MODEL"]
COUNTED = "3, 4, 5, 6, 7, 8, 9"


def chat(**more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL, base_url=f"{ROOT}/v1", api_key=KEY, temperature=0, max_tokens=80, **more
    )


def responses() -> ChatOpenAI:
    return chat(use_responses_api=True)


def messages() -> ChatAnthropic:
    return ChatAnthropic(model=MODEL, base_url=ROOT, api_key=KEY, temperature=0, max_tokens=80)


@pytest.fixture(params=[chat, responses, messages])
def model(request: pytest.FixtureRequest) -> BaseChatModel:
    make: Callable[[], BaseChatModel] = request.param
    return make()


@tool
def get_weather(town: Literal["Oakford", "Millbrook"]) -> str:
    """The weather of a town."""
    return f'{{"town": "{town}", "sky": "windy", "degrees": 14}}'


class Sky(BaseModel):
    """What the sky is like."""

    sky: Literal["windy", "rainy"]
    degrees: Literal[14, 21]


def whole(chunks: Iterable[Any]) -> AIMessageChunk:
    return reduce(add, chunks)


def test_an_answer_its_stream_and_a_batch_are_equal(model: BaseChatModel) -> None:
    asked = [SystemMessage("Answer briefly."), HumanMessage("Count from 3 to 9.")]
    answer = model.invoke(asked)
    assert answer.text == COUNTED
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 9
    streamed = list(model.stream(asked))
    assert len([chunk for chunk in streamed if chunk.text]) > 9
    assert whole(streamed).text == COUNTED
    assert [each.text for each in model.batch([asked, asked])] == [COUNTED, COUNTED]


async def test_many_at_once() -> None:
    """In one event loop: LangChain keeps its asynchronous connections for all models."""
    models: list[BaseChatModel] = [chat(), responses(), messages()]
    answers = await asyncio.gather(*(m.ainvoke("Count from 3 to 9.") for m in models * 3))
    assert {answer.text for answer in answers} == {COUNTED}
    for model in models:
        chunks = [chunk async for chunk in model.astream("Count from 3 to 9.")]
        assert whole(chunks).text == COUNTED


def test_a_tool_is_called_whole_and_in_a_stream(model: BaseChatModel) -> None:
    bound = model.bind_tools([get_weather])
    for answer in (
        bound.invoke("What is the weather in Oakford?"),
        whole(bound.stream("What is the weather in Oakford?")),
    ):
        (call,) = answer.tool_calls
        assert (call["name"], call["args"]) == ("get_weather", {"town": "Oakford"})
        assert not answer.invalid_tool_calls


def test_a_tool_can_be_forced(model: BaseChatModel) -> None:
    for choice in ("any", "get_weather"):
        answer: Any = model.bind_tools([get_weather], tool_choice=choice).invoke("Who are you?")
        (call,) = answer.tool_calls
        assert call["args"]["town"] in ("Oakford", "Millbrook")


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(model: BaseChatModel, method: Literal["json_schema"]) -> None:
    asked = "What is the weather in Oakford?"
    structured = model.with_structured_output(Sky, method=method)
    assert isinstance(structured.invoke(asked), Sky)
    assert isinstance(list(structured.stream(asked))[-1], Sky)


def test_json_mode_gives_an_object() -> None:
    structured = chat().with_structured_output(None, method="json_mode")
    assert structured.invoke("Give me Ada as JSON.") == {
        "name": "Ada",
        "job": "baker",
        "town": "Willowmere",
        "pet": "cat",
    }


def test_log_probabilities_come_with_the_tokens() -> None:
    answer = chat(logprobs=True, top_logprobs=2).invoke("Count from 3 to 9.")
    tokens = answer.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens).startswith(COUNTED)
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)


def test_a_response_continues_the_one_before() -> None:
    model = chat(use_responses_api=True, use_previous_response_id=True)
    history = [HumanMessage("Tell me about Bram.")]
    history.append(model.invoke(history))  # type: ignore[arg-type]
    history.append(HumanMessage("Where does he live?"))
    assert "Millbrook" in model.invoke(history).text


def test_completions_and_several_prompts_at_once() -> None:
    model = OpenAI(
        model=MODEL, base_url=f"{ROOT}/v1", api_key=KEY, max_tokens=12, temperature=0, logit_bias={}
    )
    text = model.invoke("Once upon")
    assert text
    assert "".join(model.stream("Once upon")) == text
    made = model.generate(["Once upon", "In Fernwick lived"])
    assert [len(choices) for choices in made.generations] == [1, 1]
    assert made.generations[0][0].text == text


def test_texts_and_queries_are_embedded() -> None:
    # The tokens that LangChain sends otherwise are those of OpenAI's own models.
    embedder = OpenAIEmbeddings(
        model=EMBEDDER, base_url=f"{ROOT}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    one, other = embedder.embed_documents(["a river", "a mill"])
    assert len(one) == len(other) > 8
    assert embedder.embed_query("a river") == pytest.approx(one, abs=1e-5)
