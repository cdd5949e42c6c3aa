"""What callers read of a request that waits for quota, and of one that a day's limit ends."""

from __future__ import annotations

import json

import grpc
import httpx
import openai
import pytest
from grpc_status import rpc_status

from headrace.errors import InsufficientQuota
from headrace.rpc.status import from_rpc_error
from headrace.v1 import generation_pb2, generation_pb2_grpc
from headrace_gateway.request.generation import Failed, Queued, Tokens, ValidRequest
from helpers.api_scripts import ids_of
from helpers.scripted_admission import Script, ScriptedAdmission

TEXT = "the mill"
BODY = {"model": "valley", "prompt": "Hello", "n": 2}
NATIVE = "/v2/models/valley"


FAILED = Failed(InsufficientQuota("tokens_per_day is used up", retry_after_s=60.0))


def ends(request: ValidRequest) -> Script:
    return [[Tokens(0, 0, ids_of(TEXT))], [Tokens(1, 0, ids_of("the"))], [FAILED]]


def waits(request: ValidRequest) -> Script:
    return [[Tokens(0, 0, ids_of(TEXT))], [Queued(waits_for_quota=True)], [FAILED]]


async def test_an_answer_that_a_day_ends_has_all_of_it_beside_the_error(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    admission.script = ends
    answer = await http.post("/v1/completions", json=BODY)
    assert answer.status_code == 429
    found = answer.json()
    assert found["error"]["code"] == "insufficient_quota"
    assert [each["text"] for each in found["choices"]] == [TEXT, "the"]
    assert [each["finish_reason"] for each in found["choices"]] == [None, None]
    made = len(ids_of(TEXT)) + len(ids_of("the"))
    assert found["usage"]["completion_tokens"] == made
    (settled,) = admission.generations[0].settled
    assert settled.usage.output_tokens == made
    with pytest.raises(openai.RateLimitError) as refused:
        await client.completions.create(model="valley", prompt="Hello", n=2)
    assert refused.value.code == "insufficient_quota"


async def test_a_chat_and_a_native_answer_have_it_too(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    admission.script = ends
    chat = {"model": "valley", "messages": [{"role": "user", "content": "Hello"}], "n": 2}
    found = (await http.post("/v1/chat/completions", json=chat)).json()
    assert [each["message"]["content"] for each in found["choices"]] == [TEXT, "the"]
    native = {"prompt": "Hello", "n": 2}
    answer = await http.post(f"{NATIVE}:generate", json=native)
    assert answer.status_code == 429
    assert [each["text"] for each in answer.json()["choices"]] == [TEXT, "the"]
    assert answer.json()["details"][0]["reason"] == "INSUFFICIENT_QUOTA"


@pytest.mark.parametrize(
    ("tokens", "texts"),
    [(2, ["word" * 2, "the"]), (1000, ["word" * 1000, "the"]), (2000, [])],
    ids=["all of it", "without token ids", "without choices"],
)
async def test_the_status_of_a_grpc_call_has_it_as_far_as_it_fits(
    channel: grpc.aio.Channel, admission: ScriptedAdmission, tokens: int, texts: list[str]
) -> None:
    admission.script = lambda _: [
        [Tokens(0, 0, ids_of("word" * tokens))],
        [Tokens(1, 0, ids_of("the"))],
        [FAILED],
    ]
    ask = generation_pb2.GenerateRequest(model="valley", prompt="Hello", n=2)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await generation_pb2_grpc.GenerationServiceStub(channel).Generate(ask)
    error = from_rpc_error(refused.value)
    assert isinstance(error, InsufficientQuota)
    assert error.retry_after_s == 60.0
    found = generation_pb2.GenerateResponse()
    status = rpc_status.from_call(refused.value)  # type: ignore[arg-type]
    assert status is not None
    assert any(detail.Unpack(found) for detail in status.details)
    assert [choice.text for choice in found.choices] == texts
    assert bool(found.choices and found.choices[0].token_ids) == (tokens == 2)
    (settled,) = admission.generations[0].settled
    assert found.usage.output_tokens == settled.usage.output_tokens > tokens


async def test_streams_say_that_they_wait_and_have_all_text_before_the_error(
    http: httpx.AsyncClient, channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    admission.script = waits
    text = (await http.post("/v1/completions", json=BODY | {"stream": True})).text
    assert ": waiting for quota\n\n" in text
    assert text.index("the") < text.index("waiting") < text.index("insufficient_quota")
    text = (await http.post(f"{NATIVE}:streamGenerate", json={"prompt": "Hello"})).text
    assert ": waiting for quota\n" in text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert {"queued": {"position": 0, "reason": "QUEUED_REASON_QUOTA"}} in events
    ask = generation_pb2.GenerateRequest(model="valley", prompt="Hello")
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    reasons = [e.queued.reason async for e in stub.StreamGenerate(ask) if e.HasField("queued")]
    assert reasons == [generation_pb2.QUEUED_REASON_QUOTA]
