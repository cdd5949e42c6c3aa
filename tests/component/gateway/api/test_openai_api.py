"""OpenAI's API, through Envoy, by its unchanged client."""

from __future__ import annotations

import asyncio
import json
from itertools import chain
from typing import Any

import grpc
import httpx
import openai
import pytest
from google.api.httpbody_pb2 import HttpBody
from openai.types.chat import ChatCompletionMessageParam

from headrace.errors import (
    LaneFull,
)
from headrace.v1 import (
    common_pb2,
    openai_pb2_grpc,
)
from headrace_gateway.request.generation import ChoiceEnded, Event, Tokens, ValidRequest
from helpers.api_scripts import (
    SAYING,
    ended,
    fails_at_once,
    fails_midway,
    hangs,
    hangs_after_a_word,
    ids_of,
)
from helpers.running_api import RunningApi
from helpers.scripted_admission import LENGTH, Script, ScriptedAdmission

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]


async def test_a_chat_answer_comes_whole(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    answer = await client.chat.completions.create(
        model="valley",
        messages=HELLO,
        n=2,
    )
    assert [choice.message.content for choice in answer.choices] == [SAYING, SAYING]
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2 * (len(ids_of(SAYING)) + 1)
    assert answer.usage.prompt_tokens == len(admission.last.request.prompt_ids)
    assert answer.id == f"chatcmpl-{admission.last.request.request_id}"
    await ended(admission.last)
    assert [choice.text for choice in admission.last.settled[0].choices] == [SAYING, SAYING]


async def test_a_chat_answer_is_streamed_in_chunks_with_usage_last(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    stream = await client.chat.completions.create(
        model="valley",
        messages=HELLO,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == SAYING
    assert [c.choices[0].finish_reason for c in chunks[-3:-1]] == [None, "stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(ids_of(SAYING)) + 1
    await ended(admission.last)
    assert admission.last.settled


async def test_completions_come_whole_and_in_pieces(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model="valley", prompt="Hello", stop=["水"])
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("the mill ", "stop")
    stream = await client.completions.create(
        model="valley", prompt=[5, 6], stop=["水", "mill"], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "the "
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_stream_is_events_and_ends_in_done(http: httpx.AsyncClient) -> None:
    body = {"model": "valley", "messages": HELLO, "stream": True}
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_all_configured_models_are_listed_those_that_a_worker_serves_first(
    client: openai.AsyncOpenAI,
) -> None:
    listed = [model.model_dump() for model in (await client.models.list()).data]
    assert [(model["id"], model["ready"]) for model in listed] == [
        *(("valley", True), ("valley:poet", True)),
        *(("asleep", False), ("asleep:poet", False)),
    ]
    assert (await client.models.retrieve("valley")).owned_by == "headrace"
    asleep = await client.models.retrieve("asleep")
    assert (asleep.id, asleep.model_dump()["ready"]) == ("asleep", False)
    with pytest.raises(openai.NotFoundError, match="known models: asleep, valley"):
        await client.models.retrieve("no/such")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_before_the_first_token_has_its_own_status(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission, stream: bool
) -> None:
    admission.script = fails_at_once
    with pytest.raises(openai.RateLimitError) as refused:
        await client.chat.completions.create(
            model="valley",
            messages=HELLO,
            stream=stream,
        )
    headers = refused.value.response.headers
    assert (refused.value.code, headers["retry-after"]) == ("patience_exhausted", "3")
    await ended(admission.last)
    assert "waited 5 s" in admission.last.settled[0].error.message


async def test_a_failure_after_the_first_token_is_an_event_and_no_done_follows(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    admission.script = fails_midway
    body = {"model": "valley", "messages": HELLO, "stream": True}
    text = (await http.post("/v1/chat/completions", json=body)).text
    last = json.loads(text.rstrip().splitlines()[-1].removeprefix("data: "))
    assert (last["error"]["code"], "[DONE]" in text) == ("attempts_exhausted", False)
    await ended(admission.last)
    assert admission.last.settled
    stream = await client.chat.completions.create(
        model="valley",
        messages=HELLO,
        stream=True,
    )
    with pytest.raises(openai.APIError, match="failed on 3 attempts"):
        _ = [chunk async for chunk in stream]
    # Settled or abandoned: this client disconnects as soon as it has read the error.
    await ended(admission.last)


async def test_a_full_lane_is_refused_before_tokenizing(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    admission.refusal = LaneFull("lane valley/bulk is full", retry_after_s=1.5)
    with pytest.raises(openai.RateLimitError) as refused:
        await client.completions.create(
            model="valley",
            prompt="Hello",
            extra_body={"service_tier": "flex"},
        )
    assert refused.value.response.headers["retry-after-ms"] == "1500"
    assert admission.checked == [("valley", common_pb2.PRIORITY_BULK, 60.0)]
    assert admission.generations == []


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("script", [hangs, hangs_after_a_word])
async def test_a_client_that_leaves_abandons_its_generation(
    http: httpx.AsyncClient, admission: ScriptedAdmission, stream: bool, script: Any
) -> None:
    admission.script = script
    body = {"model": "valley", "messages": HELLO, "stream": stream}
    asking = asyncio.create_task(http.post("/v1/chat/completions", json=body))
    async with asyncio.timeout(5):
        while not admission.generations:
            await asyncio.sleep(0.01)
    asking.cancel()
    await ended(admission.last)
    assert admission.last.abandoned


async def test_a_client_that_leaves_while_a_write_waits_for_it_abandons_its_generation(
    api: RunningApi, admission: ScriptedAdmission
) -> None:
    def floods(request: ValidRequest) -> Script:
        ids = ids_of(SAYING) * 50
        return ([Tokens(0, step * len(ids), ids)] for step in range(10**9))

    admission.script = floods
    async with grpc.aio.insecure_channel(api.address) as channel:
        stub = openai_pb2_grpc.OpenAIServiceStub(channel)
        body = json.dumps({"model": "valley", "prompt": "a", "stream": True}).encode()
        call = stub.Completions(HttpBody(data=body))
        await anext(aiter(call))
        call.cancel()
    await ended(admission.last)
    assert admission.last.abandoned


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"foo": 1}])
async def test_the_request_id_is_in_the_head_of_every_answer(
    channel: grpc.aio.Channel, admission: ScriptedAdmission, fields: dict[str, Any]
) -> None:
    body = json.dumps({"model": "valley", "prompt": "Hello", **fields}).encode()
    call = openai_pb2_grpc.OpenAIServiceStub(channel).Completions(HttpBody(data=body))
    head = dict(await call.initial_metadata())
    _ = [part async for part in call]
    assert len(head["x-request-id"]) == 32
    assert {g.request.request_id for g in admission.generations} <= {head["x-request-id"]}


def chat(content: object = "Hello", **fields: Any) -> bytes:
    message = {"role": "user", "content": content}
    return json.dumps({"model": "valley", "messages": [message], **fields}).encode()


BAD: list[tuple[bytes, int, str | None]] = [
    (b"", 400, None),
    (b"{", 400, None),
    (b"\xff\xfe\x00", 400, None),
    (b"[" * 100_000, 400, None),
    (chat(messages=[]), 400, "messages"),
    (chat(1), 400, "messages[0].content"),
    (chat(messages=[{"role": "u ser", "content": ""}]), 400, "messages[0].role"),
    (chat(model="nobody"), 404, "model"),
    (chat(model="é" * 10**6), 404, "model"),
    (chat(audio={}), 400, "audio"),
    (chat(temperature=9), 400, "temperature"),
    (chat(max_tokens=500), 400, "max_tokens"),
    (chat(max_tokens=10**100), 400, "max_tokens"),
    (chat("x" * 10**6), 400, "messages"),
    (chat("a1" * 250), 400, "messages"),
    (chat("x" * 9 * 1024 * 1024), 400, None),
    (chat("x" * 20 * 1024 * 1024), 413, None),
]


async def test_bad_bodies_get_a_4xx_that_names_the_field_and_harm_no_other_request(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    for body, status, param in BAD:
        answer = await http.post("/v1/chat/completions", content=body)
        shown = body[:80]
        assert answer.status_code == status, (shown, answer.text)
        error = answer.json()["error"]
        assert error["param"] == param, shown
        assert 0 < len(error["message"]) < 400, shown
    assert admission.generations == []
    good = await http.post("/v1/chat/completions", json={"model": "valley", "messages": HELLO})
    assert good.status_code == 200


async def test_a_choice_may_end_for_length(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    def short(request: ValidRequest) -> Script:
        events: list[Event] = [Tokens(0, 0, ids_of("车")[:1]), ChoiceEnded(0, LENGTH)]
        return [events]

    admission.script = short
    answer = await client.completions.create(model="valley", prompt="Hello", max_tokens=1)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("�", "length")


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
async def test_the_output_has_token_ids_too_where_they_are_requested(
    http: httpx.AsyncClient, path: str
) -> None:
    prompt: dict[str, Any] = {"messages": HELLO} if "chat" in path else {"prompt": [5, 6]}
    body = prompt | {"model": "valley", "n": 2, "return_token_ids": True}
    made = [*ids_of(SAYING), 1]
    whole = (await http.post(f"/v1/{path}", json=body)).json()
    assert [choice["token_ids"] for choice in whole["choices"]] == [made, made]
    streamed = await http.post(f"/v1/{path}", json=body | {"stream": True})
    events = [
        json.loads(line.removeprefix("data: "))
        for line in streamed.text.splitlines()
        if line.startswith("data: {")
    ]
    choices = [choice for event in events for choice in event["choices"]]
    for index in (0, 1):
        said = [choice.get("token_ids", []) for choice in choices if choice["index"] == index]
        assert [*chain.from_iterable(said)] == made
    plain = await http.post(f"/v1/{path}", json=body | {"return_token_ids": False})
    assert "token_ids" not in plain.text
