"""dspy's modules, adapters, tools and streams over a server that speaks OpenAI's API."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Literal

import dspy
import pytest
from dspy import lm15

URL, KEY = os.environ["HEADRACE_BASE_URL"] + "/v1", os.environ["HEADRACE_API_KEY"]
MODEL, EMBEDDER = os.environ["HEADRACE_MODEL"], os.environ["HEADRACE_EMBEDDING_MODEL"]
COUNTED = "3, 4, 5, 6, 7, 8, 9"
GREEDY: Any = {"temperature": 0, "max_tokens": 80, "cache": False}


class Sky(dspy.Signature):
    """Is it windy?"""

    question: str = dspy.InputField()
    sky: Literal["windy", "rainy"] = dspy.OutputField()


class Calls(dspy.Signature):
    """Call tools."""

    question: str = dspy.InputField()
    tools: list[dspy.Tool] = dspy.InputField()
    calls: dspy.ToolCalls = dspy.OutputField()


def get_weather(town: Literal["Oakford", "Millbrook"]) -> str:
    """The weather of a town."""
    return f'{{"town": "{town}", "sky": "windy", "degrees": 14}}'


@pytest.fixture(scope="session")
def able() -> dspy.LM:
    """The model as that of a provider that is known to hold outputs to schemas and to call tools.

    Of a model that dspy has never heard of it assumes neither.
    """
    access = lm15.AccessPolicy(provider="headrace", env_keys=("HEADRACE_API_KEY",), base_url=URL)
    can = lm15.ModelSupport(function_calling=True, response_schema=True)
    compat = lm15.OpenAIChatCompat.preset("openai")
    lm15.register_provider(lm15.ProviderDefinition.chat(access, compat=compat), supports=can)
    return dspy.LM(f"headrace/{MODEL}", **GREEDY)


@pytest.fixture
def program(able: dspy.LM) -> Iterator[dspy.Predict]:
    with dspy.context(lm=able, adapter=dspy.JSONAdapter()):
        yield dspy.Predict(Sky)


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_model_is_asked(kind: str) -> None:
    asked = dspy.LM(f"openai/{MODEL}", api_base=URL, api_key=KEY, model_type=kind, **GREEDY)
    (answer,) = asked("Count from 3 to 9.")
    assert (answer["text"] if isinstance(answer, dict) else answer) == COUNTED


def test_several_answers() -> None:
    asked = dspy.LM(f"openai/{MODEL}", api_base=URL, api_key=KEY, max_tokens=80, cache=False)
    assert len(asked("Tell me a story.", n=2, temperature=1.0)) == 2


async def test_a_signatures_fields_are_filled(program: dspy.Predict) -> None:
    assert program(question="The weather?").sky in ("windy", "rainy")
    assert (await program.acall(question="The weather?")).sky in ("windy", "rainy")


async def test_a_field_is_streamed(program: dspy.Predict) -> None:
    listener = dspy.streaming.StreamListener(signature_field_name="sky")
    streaming = dspy.streamify(program, stream_listeners=[listener])
    *pieces, done = [piece async for piece in streaming(question="The weather?")]
    assert isinstance(done, dspy.Prediction)
    streamed = "".join(p.chunk for p in pieces if isinstance(p, dspy.streaming.StreamResponse))
    assert streamed.strip().strip('"') == done.sky


def test_tools_are_called_natively(able: dspy.LM) -> None:
    tools = [dspy.Tool(get_weather)]
    adapter = dspy.JSONAdapter(use_native_function_calling=True)
    with dspy.context(lm=able, adapter=adapter):
        made = dspy.Predict(Calls)(question="What is the weather in Oakford?", tools=tools)
    (call,) = made.calls.tool_calls
    assert call.name == "get_weather"


def test_a_prompt_that_is_too_long_is_told_apart() -> None:
    asked = dspy.LM(f"openai/{MODEL}", api_base=URL, api_key=KEY, **GREEDY)
    with pytest.raises(dspy.utils.exceptions.ContextWindowExceededError):
        asked("word " * 9000)


@pytest.mark.timeout(300)
def test_texts_are_embedded() -> None:
    # The embedder loads LiteLLM, which takes its time.
    embed = dspy.Embedder(f"openai/{EMBEDDER}", api_base=URL, api_key=KEY, caching=False)
    assert embed(["a river", "a mill"]).shape[0] == 2
