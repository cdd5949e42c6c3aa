"""What is stored of responses and conversations, over a scripted mesh, without Envoy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from headrace.errors import GatewayDraining, HeadraceError, LaneFull
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import Choice, FinishReason, RequestOutcome
from headrace.v1.responses_pb2 import GetResponseRequest
from headrace.v1.responses_pb2_grpc import ResponsesServiceStub
from headrace_gateway.request.generation import Failed, Tokens
from helpers.api_scripts import SAYING, ids_of
from helpers.running_api import CARD, RunningApi
from helpers.scripted_admission import ScriptedAdmission

BODY = {"model": "valley", "input": "Hello"}
TENANT = "default"


@dataclass
class Answered:
    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def events(self) -> list[dict[str, Any]]:
        blocks = [block for block in self.text.split("\n\n") if "data: " in block]
        return [json.loads(block.partition("data: ")[2]) for block in blocks]


async def answered(call: Any) -> Answered:
    head = dict(await call.initial_metadata())
    text = b"".join([part.data async for part in call])
    return Answered(int(head.get("x-hr-status", "200")), text.decode())


class Client:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = ResponsesServiceStub(channel)

    async def respond(self, key: str = "", **more: Any) -> Answered:
        body = HttpBody(data=json.dumps(BODY | more).encode())
        metadata = (("idempotency-key", key),) if key else ()
        return await answered(self.stub.CreateResponse(body, metadata=metadata))

    async def get(self, response_id: str, **more: Any) -> Answered:
        request = GetResponseRequest(response_id=response_id, **more)
        return await answered(self.stub.GetResponse(request))


@pytest.fixture
def calls(channel: grpc.aio.Channel) -> Client:
    return Client(channel)


async def stored_ids(api: RunningApi) -> list[str]:
    parts = await api.services.conversations._bus.stored_parts(TENANT)
    return [part.item_id for part in parts]


def result_of(request_id: str, text: str, error: HeadraceError | None = None) -> ResultRecord:
    """Return what the gateway that settles a response's request stores of it."""
    choice = Choice(
        text=text, token_ids=ids_of(text), finish_reason=FinishReason.FINISH_REASON_STOP
    )
    record = RequestRecord(
        request_id=request_id, model=CARD.model, weights_digest=CARD.weights_digest, n=1
    )
    outcome = RequestOutcome(choices=[choice])
    if error is not None:
        outcome.error.CopyFrom(to_status(error))
    return ResultRecord(request_id=f"{TENANT}/{request_id}", request=record, outcome=outcome)


async def test_only_what_was_never_submitted_is_not_stored(
    api: RunningApi, calls: Client, admission: ScriptedAdmission
) -> None:
    admission.quota_refusal = LaneFull("full", retry_after_s=1)
    assert (await calls.respond()).status == 429
    assert await stored_ids(api) == []
    admission.quota_refusal = None
    draining = Failed(GatewayDraining("it goes on elsewhere", retry_after_s=1))
    admission.script = lambda request: [[draining]]
    for kept in (1, 2):
        assert (await calls.respond(stream=True)).status == 503
        assert len(await stored_ids(api)) == kept
    admission.script = lambda request: [[Tokens(0, 0, ids_of("the"))], [draining]]
    events = (await calls.respond(stream=True)).events
    assert events[-1]["type"] == "error"
    assert events[-1]["sequence_number"] == events[-2]["sequence_number"]
    assert len(await stored_ids(api)) == 3


async def test_a_refused_repeat_does_not_delete_what_the_first_call_stored(
    api: RunningApi, calls: Client, admission: ScriptedAdmission
) -> None:
    first = (await calls.respond("k")).json
    admission.quota_refusal = LaneFull("full", retry_after_s=1)
    assert (await calls.respond("k")).status == 429
    assert await stored_ids(api) == [first["id"].removeprefix("resp_")]


@pytest.mark.parametrize(
    "other", [{"input": "Bye"}, {"instructions": "Be brief."}, {"max_output_tokens": 3}]
)
async def test_a_key_is_of_one_body(calls: Client, other: dict[str, Any]) -> None:
    first = await calls.respond("k")
    assert (await calls.respond("k", stream=True)).status == 200
    assert (await calls.respond("k")).json["id"] == first.json["id"]
    refused = await calls.respond("k", **other)
    assert refused.status == 400
    assert "had other parameters" in refused.text


async def test_a_repeat_is_answered_from_what_is_stored_and_a_failed_one_runs_again(
    api: RunningApi, calls: Client, admission: ScriptedAdmission
) -> None:
    request_id = (await calls.respond("k")).json["id"].removeprefix("resp_")
    store = api.services.conversations
    await store.store_result(result_of(request_id, "stored"))
    again = (await calls.respond("k")).json
    assert again["output"][0]["content"][0]["text"] == "stored"
    stream = (await calls.respond("k", stream=True)).events
    assert stream[-1]["response"]["output"] == again["output"]
    assert len(admission.generations) == 1
    await store.store_result(result_of(request_id, "", LaneFull("full", retry_after_s=1)))
    again = (await calls.respond("k")).json
    assert again["output"][0]["content"][0]["text"] == SAYING
    assert len(admission.generations) == 2


async def test_tokens_are_not_read_by_another_model_of_the_same_name(
    api: RunningApi, calls: Client
) -> None:
    include = ["message.output_text.logprobs"]
    response_id = (await calls.respond(include=include)).json["id"]
    result = result_of(response_id.removeprefix("resp_"), "old words")
    del result.outcome.choices[0].token_ids[:]
    result.outcome.choices[0].token_ids.extend(ids_of("other words"))
    result.request.weights_digest = "another"
    await api.services.conversations.store_result(result)
    whole = (await calls.get(response_id)).json
    assert whole["output"][0]["content"][0]["text"] == "old words"
    events = (await calls.get(response_id, stream=True)).events
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"]["output"] == whole["output"]
    (end,) = (await calls.get(response_id, stream=True, starting_after=99)).events
    assert (end["type"], end["sequence_number"]) == ("response.completed", 100)
