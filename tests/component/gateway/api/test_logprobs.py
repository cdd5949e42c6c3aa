"""Log probabilities and echo through every API, by unchanged clients."""

from __future__ import annotations

import grpc
import httpx
import openai
import pytest

from headrace.v1 import common_pb2, generation_pb2, generation_pb2_grpc
from helpers.api_scripts import SAYING, ended, ids_of
from helpers.scripted_admission import ScriptedAdmission

IDS = [*ids_of(SAYING), 1]
OWN = [token_id / -100 for token_id in IDS]


async def test_a_chat_answer_has_them_whole_and_in_chunks(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(
        model="valley",
        messages=[{"role": "user", "content": "Hello"}],
        logprobs=True,
        top_logprobs=2,
        n=2,
    )
    stream = await client.chat.completions.create(
        model="valley",
        messages=[{"role": "user", "content": "Hello"}],
        logprobs=True,
        top_logprobs=2,
        stream=True,
    )
    pieces = [c.choices[0].logprobs for c in [chunk async for chunk in stream]]
    streamed = [entry for piece in pieces if piece for entry in piece.content or []]
    for choice in whole.choices:
        assert choice.message.content == SAYING
        assert choice.logprobs is not None
        assert choice.logprobs.content == streamed
    assert [entry.logprob for entry in streamed] == pytest.approx(OWN)
    assert [len(entry.top_logprobs) for entry in streamed] == [2] * len(IDS)
    text = bytes(byte for entry in streamed[:-1] for byte in entry.bytes or [])
    assert text.decode() == SAYING


async def test_an_answer_has_no_logprobs_unless_they_are_requested(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    answer = await client.completions.create(model="valley", prompt="Hello")
    assert answer.choices[0].logprobs is None
    await ended(admission.last)
    assert not admission.last.settled[0].choices[0].HasField("logprobs")


async def test_an_evaluation_harness_reads_how_likely_a_continuation_is(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    """The request is that of lm-eval, and so is the way of reading the answer."""
    prompt = ids_of("the river runs past the mill")
    answer = await client.completions.create(
        model="valley", prompt=[prompt], max_tokens=1, temperature=0, logprobs=1, echo=True
    )
    assert admission.last.request.sampling.prompt_logprobs == 1
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    continuation = told.token_logprobs[3 : len(prompt)]
    assert continuation == pytest.approx([token_id / -100 for token_id in prompt[3:]])
    assert [max(top.values()) for top in told.top_logprobs[3 : len(prompt)]] == continuation
    assert answer.choices[0].text == "the river runs past the mill" + SAYING


async def test_an_echo_alone_has_no_output_tokens(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    answer = await client.completions.create(
        model="valley", prompt="the mill", max_tokens=0, echo=True
    )
    assert answer.choices[0].text == "the mill"
    assert admission.last.request.sampling.max_tokens == 1
    assert not admission.last.request.sampling.HasField("prompt_logprobs")


async def test_the_native_api_has_them_in_columns(channel: grpc.aio.Channel) -> None:
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    request = generation_pb2.GenerateRequest(
        model="valley",
        prompt_token_ids=[9, 8, 7],
        parameters=common_pb2.SamplingParameters(logprobs=2, prompt_logprobs=0),
    )
    (choice,) = (await stub.Generate(request)).choices
    assert list(choice.logprobs.logprobs) == pytest.approx(OWN)
    assert list(choice.logprobs.top_token_ids[:4]) == [IDS[0], IDS[0] + 1, IDS[1], IDS[1] + 1]
    assert list(choice.prompt_logprobs.logprobs) == pytest.approx([-0.08, -0.07])
    assert not choice.prompt_logprobs.top_logprobs
    deltas = [event.delta async for event in stub.StreamGenerate(request)]
    own = [logprob for delta in deltas for logprob in delta.logprobs.logprobs]
    assert own == list(choice.logprobs.logprobs)
    assert [delta.HasField("prompt_logprobs") for delta in deltas].count(True) == 1


async def test_rest_has_the_same_as_json(http: httpx.AsyncClient) -> None:
    body = {"prompt": "Hello", "parameters": {"logprobs": 1}}
    whole = (await http.post("/v2/models/valley:generate", json=body)).json()["choices"][0]
    assert whole["logprobs"]["logprobs"] == pytest.approx(OWN)
    text = (await http.post("/v2/models/valley:streamGenerate", json=body)).text
    assert text.count('"top_token_ids"') == len(IDS)


@pytest.mark.parametrize(
    ("fields", "param", "fact"),
    [
        ({"logprobs": 21}, "logprobs", "logprobs is 21; it must be in [0, 20]"),
        ({"prompt_logprobs": 21}, "prompt_logprobs", "it must be in [0, 20]"),
        ({"logprobs": 0, "model": "asleep"}, "logprobs", "model asleep does not support logprobs"),
        ({"prompt_logprobs": 0, "model": "asleep"}, "prompt_logprobs", "model asleep"),
    ],
)
async def test_logprobs_that_cannot_be_served_are_refused_by_the_field_and_the_limit(
    http: httpx.AsyncClient, fields: dict[str, object], param: str, fact: str
) -> None:
    body = {"model": "valley", "prompt": "Hello", **fields}
    error = (await http.post("/v1/completions", json=body)).json()["error"]
    assert error["param"] == param
    assert fact in error["message"]


async def test_top_logprobs_of_a_chat_is_refused_by_its_own_name(
    http: httpx.AsyncClient,
) -> None:
    for fields in ({"logprobs": True, "top_logprobs": 21}, {"top_logprobs": 1}):
        body = {"model": "valley", "messages": [{"role": "user", "content": "a"}], **fields}
        error = (await http.post("/v1/chat/completions", json=body)).json()["error"]
        assert error["param"] == "top_logprobs"
