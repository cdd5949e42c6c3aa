"""Requests that their callers do not wait for, in every API."""

from __future__ import annotations

import grpc
import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from headrace.v1 import generation_pb2, generation_pb2_grpc, requests_pb2, requests_pb2_grpc
from helpers.api_scripts import SAYING
from helpers.eventually import eventually
from helpers.scripted_admission import ScriptedAdmission

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]


async def test_a_detached_rest_request_is_answered_by_its_name_before_anything_is_made(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    answer = await http.post("/v2/models/valley:generate", json={"prompt": "a", "detached": True})
    request = admission.last.request
    assert (answer.status_code, request.background) == (202, True)
    assert answer.headers["location"] == f"/v2/requests/{request.request_id}"
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == request.request_id
    assert answer.json()["state"] == "REQUEST_STATE_WAITING"
    assert (admission.last.abandoned, admission.last.settled) == (1, [])


async def test_its_times_are_its_own_and_no_call_shortens_them(
    channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    stub = requests_pb2_grpc.RequestServiceStub(channel)
    asked = generation_pb2.GenerateRequest(model="valley", prompt="a")
    begun = await stub.CreateRequest(asked, timeout=20.0)
    request = admission.last.request
    assert (begun.request_id, begun.detached) == (request.request_id, True)
    assert (request.background, request.timeout_s, request.patience_s) == (True, 3600.0, 3600.0)
    assert request.result_ttl_s == 3600.0
    asked.timeout.FromSeconds(3601)
    with pytest.raises(grpc.aio.AioRpcError, match="at most 3600 s"):
        await stub.CreateRequest(asked)


async def test_a_typed_answer_in_one_piece_cannot_be_detached(channel: grpc.aio.Channel) -> None:
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    asked = generation_pb2.GenerateRequest(model="valley", prompt="a", detached=True)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Generate(asked)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "CreateRequest" in str(refused.value.details())


async def test_the_name_of_another_request_is_refused(
    channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    stub = requests_pb2_grpc.RequestServiceStub(channel)
    asked = generation_pb2.GenerateRequest(model="valley", prompt="a", request_id="known")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CreateRequest(asked)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert admission.generations == []
    asked.request_id = "new"
    begun = await stub.CreateRequest(asked)
    assert (begun.request_id, begun.state) == ("new", requests_pb2.REQUEST_STATE_WAITING)


async def test_openais_client_gets_the_id_and_the_path_of_a_background_request(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="valley", messages=HELLO, extra_body={"background": True}
    )
    request_id = admission.last.request.request_id
    assert raw.http_response.status_code == 202
    assert raw.headers["location"] == f"/v2/requests/{request_id}"
    answer = raw.parse()
    assert (answer.id, answer.choices) == (f"chatcmpl-{request_id}", [])
    assert admission.last.request.background
    assert admission.last.abandoned == 1


async def test_a_detached_stream_is_read_as_any_other(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    stream = await client.chat.completions.create(
        model="valley", messages=HELLO, stream=True, extra_body={"background": True}
    )
    said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(said) == SAYING
    assert admission.last.request.background
    path = "/v2/models/valley:streamGenerate"
    native = await http.post(path, json={"prompt": "a", "detached": True})
    assert '"finish"' in native.text
    await eventually(lambda: len(admission.last.settled) == 1)


async def test_an_idempotency_key_names_a_detached_request_as_it_names_others(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    path, headers = "/v2/models/valley:generate", {"idempotency-key": "mine"}
    body = {"prompt": "a", "detached": True}
    first = await http.post(path, json=body, headers=headers)
    again = await http.post(path, json=body, headers=headers)
    assert first.json()["request_id"] == again.json()["request_id"]
    assert len({each.request.seed for each in admission.generations}) == 1
    both = await http.post(path, json=body | {"request_id": "r"}, headers=headers)
    assert (both.status_code, "request_id" in both.text) == (400, True)


async def test_a_named_background_request_is_opened_while_no_leader_knows_whether_it_exists(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    # The next leader runs the first of two that have this name.
    body = {"prompt": "a", "detached": True, "request_id": "unled"}
    answer = await http.post("/v2/models/valley:streamGenerate", json=body)
    assert answer.status_code == 200, answer.text
    assert admission.last.request.request_id == "unled"
