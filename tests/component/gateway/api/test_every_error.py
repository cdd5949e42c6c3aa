"""Each class of the one error table, over HTTP and gRPC, before the first token and after it."""

from __future__ import annotations

import json

import grpc
import httpx
import openai
import pytest

from headrace.errors import (
    AttemptsExhausted,
    BodyTooLarge,
    BrokerUnavailable,
    ContextLengthExceeded,
    ControlUnavailable,
    DeadlineExceeded,
    EngineFailed,
    FailedPrecondition,
    GatewayDraining,
    GatewayUnreachable,
    HeadraceError,
    InsufficientQuota,
    InternalError,
    InvalidApiKey,
    InvalidRequest,
    InvalidStructure,
    LaneFull,
    ModelNotFound,
    NoWorker,
    PatienceExhausted,
    PermissionDenied,
    QuotaUnavailable,
    RateLimitExceeded,
    RequestCancelled,
    RequestExists,
    RequestNotFound,
    ResourceExists,
    ResourceNotFound,
    SlowReader,
    TooManyFailedAttempts,
    Unsupported,
    errors_by_reason,
)
from headrace.rpc.status import DOMAIN, from_rpc_error, from_status
from headrace.v1 import generation_pb2, generation_pb2_grpc
from headrace_gateway.request.generation import Failed, Tokens, ValidRequest
from helpers.api_scripts import ids_of
from helpers.scripted_admission import Script, ScriptedAdmission

RAISED: dict[type[HeadraceError], type[openai.APIStatusError]] = {
    InvalidRequest: openai.BadRequestError,
    ContextLengthExceeded: openai.BadRequestError,
    InvalidStructure: openai.BadRequestError,
    BodyTooLarge: openai.APIStatusError,
    Unsupported: openai.BadRequestError,
    ModelNotFound: openai.NotFoundError,
    RequestNotFound: openai.NotFoundError,
    RequestExists: openai.ConflictError,
    InvalidApiKey: openai.AuthenticationError,
    TooManyFailedAttempts: openai.RateLimitError,
    PermissionDenied: openai.PermissionDeniedError,
    ResourceNotFound: openai.NotFoundError,
    ResourceExists: openai.ConflictError,
    FailedPrecondition: openai.BadRequestError,
    LaneFull: openai.RateLimitError,
    PatienceExhausted: openai.RateLimitError,
    RateLimitExceeded: openai.RateLimitError,
    InsufficientQuota: openai.RateLimitError,
    QuotaUnavailable: openai.InternalServerError,
    NoWorker: openai.InternalServerError,
    BrokerUnavailable: openai.InternalServerError,
    GatewayDraining: openai.InternalServerError,
    GatewayUnreachable: openai.InternalServerError,
    ControlUnavailable: openai.InternalServerError,
    DeadlineExceeded: openai.InternalServerError,
    RequestCancelled: openai.APIStatusError,
    SlowReader: openai.APIStatusError,
    InternalError: openai.InternalServerError,
    AttemptsExhausted: openai.InternalServerError,
    EngineFailed: openai.InternalServerError,
}
"""Those at 500 and above are one class to the client, and 413 and 499 have none of their own."""
ASK = generation_pb2.GenerateRequest(model="valley", prompt="Hello")
NATIVE = "/v2/models/valley:generate"
STREAM = "/v2/models/valley:streamGenerate"
FACT, FIELD, RETRY_S = "so many of so many", "a[0].b", 2.5


def made(kind: type[HeadraceError]) -> HeadraceError:
    return kind(FACT, field=FIELD, retry_after_s=RETRY_S)


def test_every_error_of_the_table_is_here() -> None:
    assert RAISED.keys() == set(errors_by_reason().values()) - {HeadraceError}


async def test_openais_client_raises_the_class_of_each(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    for kind, expected in RAISED.items():
        admission.refusal = made(kind)
        with pytest.raises(openai.APIStatusError) as refused:
            await client.completions.create(model="valley", prompt="Hello", stream=True)
        error = refused.value
        assert type(error) is expected, kind
        assert (error.code, error.param) == (kind.reason.lower(), FIELD)
        assert (FACT in error.message, error.response.headers["retry-after"]) == (True, "3")


async def test_the_native_api_reports_each_with_its_details(
    channel: grpc.aio.Channel, http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    for kind in RAISED:
        admission.refusal = made(kind)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Generate(ASK)
        error = from_rpc_error(refused.value)
        assert (type(error), error.message, error.field) == (kind, FACT, FIELD)
        assert error.retry_after_s == RETRY_S
        answer = await http.post(NATIVE, json={"prompt": "Hello"})
        assert answer.status_code == kind.code.http_status, kind
        info = answer.json()["details"][0]
        assert (info["reason"], info["domain"]) == (kind.reason, DOMAIN)


async def test_each_comes_as_an_event_where_the_stream_has_begun(
    client: openai.AsyncOpenAI,
    channel: grpc.aio.Channel,
    http: httpx.AsyncClient,
    admission: ScriptedAdmission,
) -> None:
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    for kind in RAISED:

        def fails(request: ValidRequest, kind: type[HeadraceError] = kind) -> Script:
            return [[Tokens(0, 0, ids_of("the mill"))], [Failed(made(kind))]]

        admission.script = fails
        stream = await client.completions.create(model="valley", prompt="Hello", stream=True)
        with pytest.raises(openai.APIError, match=FACT):
            _ = [chunk async for chunk in stream]
        text = (await http.post(STREAM, json={"prompt": "Hello"})).text
        last = json.loads(text.rstrip().splitlines()[-1].removeprefix("data: "))
        assert last["finish"]["error"]["details"][0]["reason"] == kind.reason
        call = stub.StreamGenerate(ASK)
        events = [event async for event in call]
        assert type(from_status(events[-1].finish.error)) is kind
