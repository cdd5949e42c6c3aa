"""What a request has used, in every API."""

from __future__ import annotations

import json
from typing import Any

import grpc
import httpx
import openai
import pytest

from headrace.v1 import generation_pb2, generation_pb2_grpc
from headrace_gateway.request.generation import Event, Tokens, ValidRequest
from helpers.api_scripts import SAYING, ids_of, says
from helpers.scripted_admission import Script, ScriptedAdmission

CACHED = 3
HELLO: Any = [{"role": "user", "content": "Hello"}]
COUNTED = {"include_usage": True, "continuous_usage_stats": True}


def some_cached(request: ValidRequest) -> Script:
    """Of the first choice's prompt; the second found what the first had put there."""
    first, *rest = says(request)
    told: list[Event] = [
        Tokens(e.choice, 0, e.token_ids, cached_prompt=CACHED + e.choice)
        if isinstance(e, Tokens)
        else e
        for e in first
    ]
    return [told, *rest]


@pytest.mark.parametrize("n", [1, 2])
async def test_openai_usage_names_what_was_cached(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission, n: int
) -> None:
    admission.script = some_cached
    whole = await client.chat.completions.create(model="valley", messages=HELLO, n=n)
    stream = await client.chat.completions.create(
        model="valley", messages=HELLO, n=n, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    for usage in (whole.usage, chunks[-1].usage):
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        assert usage.prompt_tokens_details.cached_tokens == CACHED
        assert usage.total_tokens == usage.prompt_tokens + n * (len(ids_of(SAYING)) + 1)


async def test_openai_usage_has_no_cached_tokens_where_the_engine_does_not_report_them(
    client: openai.AsyncOpenAI,
) -> None:
    whole = await client.completions.create(model="valley", prompt="Hello")
    assert whole.usage is not None
    assert whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == 0


async def test_native_usage_names_what_was_cached_or_leaves_it_out(
    http: httpx.AsyncClient, channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    path = "/v2/models/valley:generate"
    unknown = (await http.post(path, json={"prompt": "Hello"})).json()
    assert "cached_prompt_tokens" not in unknown["usage"]
    admission.script = some_cached
    whole = (await http.post(path, json={"prompt": "Hello"})).json()
    assert whole["usage"]["cached_prompt_tokens"] == CACHED
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    asked = generation_pb2.GenerateRequest(model="valley", prompt="Hello")
    events = [event async for event in stub.StreamGenerate(asked)]
    assert events[-1].finish.usage.cached_prompt_tokens == CACHED


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_each_chunk_has_usage_where_that_is_requested(
    http: httpx.AsyncClient, admission: ScriptedAdmission, path: str
) -> None:
    asked = {"prompt": "Hello"} if path == "/v1/completions" else {"messages": HELLO}
    body = {"model": "valley", "stream": True, "max_tokens": 20, "stream_options": COUNTED}
    text = (await http.post(path, json=asked | body)).text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == len(ids_of(SAYING)) + 1
    assert len(set(counts)) > 2
    prompt_tokens = {chunk["usage"]["prompt_tokens"] for chunk in chunks}
    assert prompt_tokens == {len(admission.last.request.prompt_ids)}
    assert chunks[-1]["choices"] == []


@pytest.mark.parametrize("value", [False, None])
async def test_chunks_have_no_usage_where_that_is_turned_off(
    http: httpx.AsyncClient, value: bool | None
) -> None:
    options = {"include_usage": True, "continuous_usage_stats": value}
    body = {"model": "valley", "prompt": "a", "stream": True, "stream_options": options}
    text = (await http.post("/v1/completions", json=body)).text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert {json.dumps(chunk["usage"]) for chunk in chunks[:-1]} == {"null"}
