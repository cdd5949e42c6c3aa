"""headrace.v1, typed, over gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from headrace.errors import (
    AttemptsExhausted,
    ContextLengthExceeded,
    HeadraceError,
    InvalidRequest,
    ModelNotFound,
    RequestNotFound,
)
from headrace.rpc.status import from_rpc_error, from_status
from headrace.v1 import (
    fleet_pb2,
    fleet_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    requests_pb2,
    requests_pb2_grpc,
)
from helpers.api_scripts import (
    FAILURE,
    SAYING,
    ended,
    fails_midway,
    hangs,
    ids_of,
)
from helpers.scripted_admission import STOP, ScriptedAdmission
from helpers.tiny_tokenizers import byte_level


def generate(**fields: Any) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(**{"model": "valley", "prompt": "Hello", **fields})


async def test_a_typed_stream_is_started_deltas_and_one_finish(
    channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    request = generate(request_id="mine", seed=7, n=2)
    events = [event async for event in stub.StreamGenerate(request)]
    assert events[0].started.request_id == "mine"
    assert (events[0].started.seed, events[0].started.prompt_tokens) == (7, len(ids_of("Hello")))
    deltas = [event.delta for event in events[1:-1]]
    for choice in range(2):
        own = [delta for delta in deltas if delta.choice == choice]
        assert "".join(delta.text for delta in own) == SAYING
        ids = [token_id for delta in own for token_id in delta.token_ids]
        assert ids == [*ids_of(SAYING), 1]
        starts = [delta.first_index for delta in own if delta.token_ids]
        assert starts == list(range(len(ids)))
        assert [delta.finish_reason for delta in own if delta.finish_reason] == [STOP]
    assert events[-1].finish.usage.output_tokens == 2 * (len(ids_of(SAYING)) + 1)
    assert not events[-1].finish.HasField("error")
    await ended(admission.last)


async def test_a_typed_answer_comes_whole(channel: grpc.aio.Channel) -> None:
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    answer = await stub.Generate(generate(parameters={"stop": ["🌊"]}))
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("the mill 水 ", STOP)
    assert byte_level().decode(list(answer.choices[0].token_ids)).endswith("🌊")


async def test_a_late_failure_of_a_typed_stream_is_its_finish(
    channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    admission.script = fails_midway
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    events = [event async for event in stub.StreamGenerate(generate())]
    error = from_status(events[-1].finish.error)
    assert (type(error), error.message) == (AttemptsExhausted, FAILURE.message)
    await ended(admission.last)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stub.Generate(generate())
    assert isinstance(from_rpc_error(failed.value), AttemptsExhausted)
    await ended(admission.last)


REFUSED: list[tuple[generation_pb2.GenerateRequest, type[HeadraceError], str]] = [
    (generate(model="nobody"), ModelNotFound, "model"),
    (generate(model="n" * 100_000), ModelNotFound, "model"),
    (generate(prompt=""), InvalidRequest, "prompt"),
    (generate(parameters={"temperature": 3}), InvalidRequest, "parameters.temperature"),
    (generate(parameters={"max_tokens": 10**6}), ContextLengthExceeded, "parameters.max_tokens"),
    (generate(prompt="a1" * 250), ContextLengthExceeded, "prompt"),
    (generate(request_id="a b"), InvalidRequest, "request_id"),
    (generate(n=5), InvalidRequest, "n"),
]


@pytest.mark.parametrize(("request_", "kind", "field"), REFUSED)
async def test_a_typed_refusal_is_a_status_with_the_field(
    channel: grpc.aio.Channel,
    request_: generation_pb2.GenerateRequest,
    kind: type[HeadraceError],
    field: str,
) -> None:
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Generate(request_)
    error = from_rpc_error(refused.value)
    assert (type(error), error.field) == (kind, field)
    with pytest.raises(grpc.aio.AioRpcError):
        _ = [event async for event in stub.StreamGenerate(request_)]


async def test_a_typed_caller_that_leaves_abandons_its_generation(
    channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    admission.script = hangs
    call = generation_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(generate())
    assert (await anext(aiter(call))).HasField("started")
    call.cancel()
    await ended(admission.last)
    assert admission.last.abandoned


async def test_a_calls_own_deadline_is_the_requests(
    channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    await generation_pb2_grpc.GenerationServiceStub(channel).Generate(generate(), timeout=9)
    assert 5 < admission.last.request.timeout_s < 10


async def test_the_native_api_lists_models_and_tokenizes(channel: grpc.aio.Channel) -> None:
    stub = models_pb2_grpc.ModelServiceStub(channel)
    asleep, model = (await stub.ListModels(models_pb2.ListModelsRequest())).models
    assert (asleep.name, asleep.workers) == ("asleep", 0)
    assert (model.name, model.workers, model.max_choices, model.chat) == ("valley", 1, 4, True)
    assert await stub.GetModel(models_pb2.GetModelRequest(model="valley")) == model
    said = await stub.Tokenize(models_pb2.TokenizeRequest(model="valley", text="the 水"))
    assert list(said.token_ids) == ids_of("the 水")
    assert byte_level().decode(list(said.token_ids)) == "the 水"
    assert len(said.tokens) == len(said.token_ids)


async def test_the_native_api_has_the_fleet_and_its_requests(channel: grpc.aio.Channel) -> None:
    fleet = fleet_pb2_grpc.FleetServiceStub(channel)
    assert (await fleet.ListWorkers(fleet_pb2.ListWorkersRequest())).workers[0].name == "one"
    assert (await fleet.ListLanes(fleet_pb2.ListLanesRequest())).lanes[0].waiting == 2
    requests = requests_pb2_grpc.RequestServiceStub(channel)
    found = await requests.GetRequest(requests_pb2.GetRequestRequest(request_id="known"))
    assert found.state == requests_pb2.REQUEST_STATE_RUNNING
    gone = await requests.CancelRequest(requests_pb2.CancelRequestRequest(request_id="known"))
    assert gone.state == requests_pb2.REQUEST_STATE_ENDED
    for request_id, kind in (("other", RequestNotFound), ("a.*", InvalidRequest)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await requests.GetRequest(requests_pb2.GetRequestRequest(request_id=request_id))
        assert type(from_rpc_error(refused.value)) is kind
