"""Anthropic's API, through Envoy, by its unchanged client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import MessageParam, ModelInfo, TextBlock, ToolParam, ToolUseBlock

from headrace.errors import LaneFull, NoWorker
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace_gateway.request.generation import ChoiceEnded, Tokens, ValidRequest
from helpers.anthropic_models import events, message, strictly
from helpers.api_scripts import FAILURE, SAYING, ended, fails_at_once, fails_midway, ids_of
from helpers.running_api import CARD, RunningApi, running_api
from helpers.running_edge import RunningEdge
from helpers.scripted_admission import LENGTH, Script, ScriptedAdmission, one_by_one
from helpers.tiny_tokenizers import byte_level

HELLO: list[MessageParam] = [{"role": "user", "content": "Hello"}]
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"place": {"type": "string"}},
        "required": ["place"],
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"place": "Ulm"}}\n</tool_call>'
VERSION = {"anthropic-version": "2023-06-01"}


def answers(text: str) -> Any:
    def script(request: ValidRequest) -> Script:
        return one_by_one(0, ids_of(text))

    return script


def prompt_of(admission: ScriptedAdmission) -> str:
    return byte_level().decode(list(admission.last.request.prompt_ids), skip_special_tokens=False)


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[RunningApi]:
    caller = ModelCard()
    caller.CopyFrom(CARD)
    caller.model, caller.context_tokens = "caller", 4000
    caller.tool_parser, caller.reasoning_parser = "hermes", "qwen3"
    async with running_api(admission, caller) as running:
        yield running


@pytest.fixture
async def claude(edge: RunningEdge) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=edge.url, api_key="none", max_retries=0) as client:
        yield client


async def test_a_message_comes_whole(
    claude: anthropic.AsyncAnthropic, admission: ScriptedAdmission
) -> None:
    answer = await claude.messages.create(model="valley", max_tokens=50, messages=HELLO)
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": SAYING}]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.input_tokens == len(admission.last.request.prompt_ids)
    assert answer.usage.output_tokens == len(ids_of(SAYING)) + 1
    assert answer.id == f"msg_{admission.last.request.request_id}"
    assert answer._request_id == admission.last.request.request_id
    await ended(admission.last)


async def test_the_synchronous_client_streams(edge: RunningEdge) -> None:
    def streamed() -> str:
        with (
            anthropic.Anthropic(base_url=edge.url, api_key="none", max_retries=0) as client,
            client.messages.stream(model="valley", max_tokens=50, messages=HELLO) as stream,
        ):
            return "".join(stream.text_stream)

    assert await asyncio.to_thread(streamed) == SAYING


async def test_a_stream_is_anthropics_events_and_adds_up_to_the_message(
    claude: anthropic.AsyncAnthropic, http: httpx.AsyncClient
) -> None:
    body = {"model": "valley", "max_tokens": 50, "messages": HELLO}
    whole = message((await http.post("/v1/messages", json=body)).content)
    answer = await http.post("/v1/messages?beta=true", json=body | {"stream": True})
    assert answer.headers["content-type"] == "text/event-stream"
    seen = events(answer.text)
    kinds = [event.type for event in seen]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert (seen[-2].delta.stop_reason, seen[-2].usage.output_tokens) == (
        whole.stop_reason,
        whole.usage.output_tokens,
    )
    async with claude.messages.stream(model="valley", max_tokens=50, messages=HELLO) as stream:
        final = await stream.get_final_message()
    assert [block.to_dict() for block in final.content] == [b.to_dict() for b in whole.content]


async def test_a_stop_sequence_is_named_and_not_in_the_text(
    claude: anthropic.AsyncAnthropic,
) -> None:
    asked: Any = {"model": "valley", "max_tokens": 50, "messages": HELLO}
    stops = ["river", "水"]
    answer = await claude.messages.create(**asked, stop_sequences=stops)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "水")
    assert answer.content[0].to_dict()["text"] == "the mill "
    async with claude.messages.stream(**asked, stop_sequences=stops) as stream:
        final = await stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", "水")


async def test_what_ends_early_says_whether_max_tokens_or_the_context_ended_it(
    claude: anthropic.AsyncAnthropic, admission: ScriptedAdmission
) -> None:
    admission.script = lambda request: [[Tokens(0, 0, ids_of("the")), ChoiceEnded(0, LENGTH)]]
    short = await claude.messages.create(model="valley", max_tokens=1, messages=HELLO)
    assert short.stop_reason == "max_tokens"
    long = await claude.messages.create(model="valley", max_tokens=5000, messages=HELLO)
    assert long.stop_reason == "model_context_window_exceeded"
    request = admission.last.request
    assert request.sampling.max_tokens == CARD.context_tokens - len(request.prompt_ids)


async def test_a_loop_of_tools_goes_round(
    claude: anthropic.AsyncAnthropic, admission: ScriptedAdmission
) -> None:
    admission.script = answers(f"Let me look.\n{CALL}")
    question: list[MessageParam] = [{"role": "user", "content": "Weather in Ulm?"}]
    first = await claude.messages.create(
        model="caller", max_tokens=200, messages=question, tools=[WEATHER]
    )
    text, use = first.content
    assert isinstance(text, TextBlock)
    assert isinstance(use, ToolUseBlock)
    assert (text.text, first.stop_reason) == ("Let me look.\n", "tool_use")
    assert (use.name, use.input) == ("get_weather", {"place": "Ulm"})
    admission.script = answers("It rains.")
    second = await claude.messages.create(
        model="caller",
        max_tokens=200,
        tools=[WEATHER],
        messages=[
            *question,
            first.to_param(),
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": use.id, "content": "rain"},
                    {"type": "text", "text": "In a word?"},
                ],
            },
        ],
    )
    assert second.content[0].to_dict()["text"] == "It rains."
    prompt = prompt_of(admission)
    assert prompt.index("rain") < prompt.index("In a word?")


async def test_a_streamed_call_is_a_block_of_its_own(
    claude: anthropic.AsyncAnthropic, admission: ScriptedAdmission, http: httpx.AsyncClient
) -> None:
    admission.script = answers(f"\n{CALL}\n{CALL}")
    body: Any = {"model": "caller", "max_tokens": 200, "messages": HELLO, "tools": [WEATHER]}
    seen = events((await http.post("/v1/messages", json=body | {"stream": True})).text)
    opened = [event.content_block for event in seen if event.type == "content_block_start"]
    assert [block.type for block in opened] == ["tool_use", "tool_use"]
    assert opened[0].id != opened[1].id
    async with claude.messages.stream(**body) as stream:
        final = await stream.get_final_message()
    assert [block.to_dict()["input"] for block in final.content] == [{"place": "Ulm"}] * 2
    assert final.stop_reason == "tool_use"


async def test_thinking_is_a_block_before_the_answer(
    claude: anthropic.AsyncAnthropic, admission: ScriptedAdmission
) -> None:
    admission.script = answers("<think>\nIt may rain.\n</think>\n\nRain.")
    asked: Any = {
        "model": "caller",
        "max_tokens": 2000,
        "messages": HELLO,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    whole = await claude.messages.create(**asked)
    assert admission.last.request.sampling.reasoning.budget == 1024
    async with claude.messages.stream(**asked) as stream:
        streamed = await stream.get_final_message()
    thinking, text = (block.to_dict() for block in whole.content)
    assert ("It may rain." in str(thinking["thinking"]), text["text"]) == (True, "Rain.")
    assert [block.to_dict() for block in streamed.content] == [thinking, text]
    assert whole.usage.output_tokens_details is not None
    assert 0 < whole.usage.output_tokens_details.thinking_tokens < whole.usage.output_tokens
    again = await claude.messages.create(
        **asked | {"messages": [*HELLO, whole.to_param(), {"role": "user", "content": "Sure?"}]}
    )
    assert again.content[-1].to_dict()["text"] == "Rain."


async def test_tokens_are_counted_as_the_prompt_has_them(
    claude: anthropic.AsyncAnthropic, admission: ScriptedAdmission
) -> None:
    asked: Any = {"model": "caller", "system": "Be brief.", "messages": HELLO, "tools": [WEATHER]}
    counted = await claude.messages.count_tokens(**asked)
    answer = await claude.messages.create(**asked, max_tokens=50)
    assert counted.input_tokens == answer.usage.input_tokens
    assert counted.input_tokens == len(admission.last.request.prompt_ids)


async def test_what_a_coding_agent_sends_first_is_served(
    claude: anthropic.AsyncAnthropic, admission: ScriptedAdmission
) -> None:
    cached: Any = {"cache_control": {"type": "ephemeral"}}
    sent: Any = {
        "model": "caller",
        "max_tokens": 32_000,
        "betas": ["claude-code-20250219", "interleaved-thinking-2025-05-14"],
        "system": [
            {"type": "text", "text": "You are an agent.", **cached},
            {"type": "text", "text": "Rules. " * 200, **cached},
        ],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", **cached}]}],
        "tools": [WEATHER | cached],
        "metadata": {"user_id": "user_1"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "extra_body": {"temperature": 1},
    }
    stream = await claude.beta.messages.create(**sent, stream=True)
    assert [event.type async for event in stream][-1] == "message_stop"
    assert "You are an agent.\nRules." in prompt_of(admission)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ({"model": "none"}, anthropic.NotFoundError, "known models: "),
        ({"max_tokens": 0}, anthropic.BadRequestError, "max_tokens is 0"),
        ({"extra_body": {"temperature": 1.5}}, anthropic.BadRequestError, "temperature: "),
        ({"messages": []}, anthropic.BadRequestError, "messages: is empty"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            anthropic.BadRequestError,
            r"messages\[0\].content\[0\].type: is 'image'; only text",
        ),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            anthropic.BadRequestError,
            r"tools\[0\].type: is 'web_search_20250305'",
        ),
        ({"tools": [WEATHER]}, anthropic.BadRequestError, "does not support tool calling"),
    ],
)
async def test_what_is_wrong_is_an_error_of_anthropics(
    claude: anthropic.AsyncAnthropic,
    body: dict[str, Any],
    kind: type[anthropic.APIStatusError],
    words: str,
) -> None:
    asked: Any = {"model": "valley", "max_tokens": 50, "messages": HELLO}
    with pytest.raises(kind, match=words) as refused:
        await claude.messages.create(**(asked | body))
    assert refused.value.type == (
        "not_found_error" if kind is anthropic.NotFoundError else "invalid_request_error"
    )
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["type"] == "error"
    assert refused.value.body["request_id"] == refused.value.request_id


async def test_capacity_is_a_rate_limit_or_an_overload(
    claude: anthropic.AsyncAnthropic, admission: ScriptedAdmission
) -> None:
    asked: Any = {"model": "valley", "max_tokens": 50, "messages": HELLO}
    admission.refusal = LaneFull("valley/standard", retry_after_s=2)
    with pytest.raises(anthropic.RateLimitError) as limited:
        await claude.messages.create(**asked)
    assert limited.value.response.headers["retry-after"] == "2"
    admission.refusal = NoWorker("no worker serves it", retry_after_s=2)
    with pytest.raises(anthropic.InternalServerError) as overloaded:
        await claude.messages.create(**asked)
    assert (overloaded.value.status_code, overloaded.value.type) == (529, "overloaded_error")


async def test_a_stream_that_fails_ends_with_an_error_event(
    claude: anthropic.AsyncAnthropic, admission: ScriptedAdmission
) -> None:
    asked: Any = {"model": "valley", "max_tokens": 50, "messages": HELLO, "stream": True}
    admission.script = fails_midway
    stream = await claude.messages.create(**asked)
    with pytest.raises(anthropic.APIStatusError, match=FAILURE.message) as failed:
        [_ async for _ in stream]
    assert failed.value.type == "api_error"
    admission.script = fails_at_once
    with pytest.raises(anthropic.RateLimitError):
        await claude.messages.create(**asked)


async def test_models_are_in_anthropics_shape_for_its_clients(
    claude: anthropic.AsyncAnthropic, http: httpx.AsyncClient
) -> None:
    listed = [model.id async for model in claude.models.list()]
    assert listed[0] == "valley"
    found = await http.get("/v1/models/valley", headers=VERSION)
    assert (
        strictly(ModelInfo, found.content, frozenset({"ready"})).max_input_tokens
        == CARD.context_tokens
    )
    with pytest.raises(anthropic.NotFoundError) as missing:
        await claude.models.retrieve("none")
    assert missing.value.type == "not_found_error"
    assert (await http.get("/v1/models")).json()["object"] == "list"


async def test_what_envoy_refuses_is_in_anthropics_shape(
    claude: anthropic.AsyncAnthropic, http: httpx.AsyncClient, edge: RunningEdge
) -> None:
    large = await http.post("/v1/messages", content=b" " * (17 * 1024 * 1024))
    assert (large.status_code, large.json()["error"]["type"]) == (413, "request_too_large")
    assert large.json()["request_id"] == large.headers["request-id"]
    unknown = await http.get("/v1/messages/batches/no", headers=VERSION)
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "not_found_error")
    edge.edge.set_gateways([("127.0.0.1", 1)])
    async with asyncio.timeout(20):
        while (gone := await http.get("/v1/models", headers=VERSION)).status_code == 200:
            await asyncio.sleep(0.05)
    assert (gone.status_code, gone.json()["error"]["type"]) == (529, "overloaded_error")
    assert gone.headers["retry-after"] == "1"
