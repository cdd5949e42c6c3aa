"""`headrace.load` answers as a mesh does with the same model and seed, token for token."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import pytest

import headrace
from headrace.client import Answer, Client
from headrace.errors import HeadraceError
from headrace_local import LocalModel
from helpers import running_mesh

# A busy machine starts a mesh within minutes.
pytestmark = pytest.mark.timeout(300)

TOOL = {
    "name": "get_weather",
    "description": "Get the current weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
WEATHER = [{"role": "user", "content": "What is the weather in Oslo?"}]
CALLED = {"id": "call_1", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "4 °C, rain"}
ANSWERED = [*WEATHER, {"role": "assistant", "content": "", "tool_calls": [CALLED]}, RESULT]

TEXTS: list[dict[str, Any]] = [
    {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 60},
    {"prompt": "Once upon a time", "temperature": 1.0, "seed": 7, "max_tokens": 60},
    {"prompt": "The river", "seed": 8, "max_tokens": 60, "top_p": 0.8, "min_p": 0.05},
    {"prompt": "The river", "seed": 9, "max_tokens": 60, "frequency_penalty": 0.7},
    {"prompt": "In the village", "seed": 3, "max_tokens": 80, "stop": [".", " the"]},
    {"prompt": "In the village", "seed": 3, "max_tokens": 80, "stop": ["e"], "include_stop": True},
    {"prompt": "A stone", "seed": 4, "max_tokens": 20, "logprobs": 3, "prompt_logprobs": 2},
    {"prompt": "A stone", "seed": 5, "max_tokens": 20, "n": 3, "temperature": 1.2},
    {"prompt": "A person:", "seed": 6, "max_tokens": 60, "json_schema": PERSON},
    {"prompt": "A number:", "seed": 6, "max_tokens": 60, "regex": "[0-9]{3}-[a-c]+"},
    {"prompt": "Long ago", "seed": 2**64 - 1, "max_tokens": 40, "ignore_eos": True},
]
CHATS: list[dict[str, Any]] = [
    {"messages": "Who are you?", "temperature": 0},
    {"messages": [("system", "Be brief."), ("user", "Tell a story.")], "seed": 11},
    {"messages": WEATHER, "tools": [TOOL], "temperature": 0},
    {"messages": WEATHER, "tools": [TOOL], "tool_choice": "required", "seed": 12},
    {"messages": ANSWERED, "tools": [TOOL], "seed": 13},
]
INVALID: list[dict[str, Any]] = [
    {"prompt": "x", "top_p": 2.0},
    {"prompt": "x", "max_tokens": 10**6},
    {"prompt": ""},
    {"prompt": "x", "stop": [""]},
    {"prompt": "x", "json_schema": {"type": "nonsense"}},
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    mesh = running_mesh.start(tmp_path_factory.mktemp("mesh"))
    with Client(mesh.url) as client:
        yield client
    running_mesh.stop(mesh)


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    with headrace.load("valley", threads=1) as loaded:
        yield loaded


def content(answer: Answer) -> tuple[list[object], list[float]]:
    """All of an answer but its id, which those of its calls are made of, and the cache; and its
    log probabilities."""
    usage = answer.usage
    exact: list[object] = [answer.model, usage.prompt_tokens, usage.output_tokens]
    floats: list[float] = []
    for choice in answer.choices:
        exact += [choice.text, choice.reasoning, choice.finish_reason, choice.token_ids]
        exact += [(call.name, call.arguments) for call in choice.tool_calls]
        for run in (choice.logprobs, choice.prompt_logprobs):
            if run is not None:
                exact += [len(run.logprobs), *run.top_token_ids]
                floats += [*run.logprobs, *run.top_logprobs]
    return exact, floats


def require_same(found: Answer, expected: Answer, what: object = "") -> None:
    """Tokens are the same in any batch; log probabilities but for the last bits of a float."""
    assert content(found)[0] == content(expected)[0], what
    assert content(found)[1] == pytest.approx(content(expected)[1], abs=1e-4), what


def together(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    with ThreadPoolExecutor(len(calls)) as threads:
        return [each.result() for each in [threads.submit(call) for call in calls]]


def test_texts_and_chats_are_answered_alike_alone_and_together(
    client: Client, model: LocalModel
) -> None:
    texts = [partial(client.generate, model="valley", **each) for each in TEXTS]
    meshed = [*texts, *(partial(client.chat, model="valley", **each) for each in CHATS)]
    local: list[Callable[[], Answer]] = [
        *(partial(cast(Any, model.generate), **each) for each in TEXTS),
        *(partial(model.chat, **each) for each in CHATS),
    ]
    expected = together(meshed)
    for call, meant, options in zip(local, expected, [*TEXTS, *CHATS], strict=True):
        require_same(call(), meant, options)
    for found, meant in zip(together(local), expected, strict=True):
        require_same(found, meant)
    called = model.chat(**CHATS[3]).tool_calls
    assert [json.loads(call.arguments).keys() for call in called] == [{"city"}]


def test_a_stream_has_the_same_pieces(client: Client, model: LocalModel) -> None:
    for each in TEXTS[:2]:
        meshed = client.generate_stream(model="valley", **each)
        local = model.generate_stream(**each)
        assert "".join(p.text for p in local) == "".join(p.text for p in meshed)
        require_same(local.answer, meshed.answer)


def test_what_is_refused_is_refused_with_the_same_error(client: Client, model: LocalModel) -> None:
    def error_of(call: Callable[[], object]) -> tuple[type[HeadraceError], str, str | None]:
        with pytest.raises(HeadraceError) as refused:
            call()
        return type(refused.value), refused.value.message, refused.value.field

    for each in INVALID:
        meshed = error_of(partial(client.generate, model="valley", **each))
        assert error_of(partial(cast(Any, model.generate), **each)) == meshed
