"""What is stored of responses and conversations, over a scripted mesh, without Envoy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from headrace.auth.tables import Tenant
from headrace.errors import BrokerUnavailable, GatewayDraining, HeadraceError, LaneFull, NoWorker
from headrace.internal.v1.access_pb2 import TenantRow
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import Choice, FinishReason, RequestOutcome
from headrace.v1.responses_pb2 import (
    ConversationBodyRequest,
    DeleteConversationRequest,
    GetResponseRequest,
    ListConversationItemsRequest,
)
from headrace.v1.responses_pb2_grpc import ResponsesServiceStub
from headrace_gateway.conversations import packing
from headrace_gateway.request.generation import Failed, Tokens
from helpers.api_scripts import SAYING, ids_of
from helpers.running_api import CARD, RunningApi, running_api
from helpers.scripted_admission import ScriptedAdmission
from helpers.scripted_keeper import FixedRows

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

    async def converse(self, *items: dict[str, Any]) -> str:
        """Create a conversation; return its id."""
        body = HttpBody(data=json.dumps({"items": items}).encode())
        made = await answered(self.stub.CreateConversation(body))
        return str(made.json["id"])

    async def items(self, conversation_id: str, after: str = "") -> Any:
        request = ListConversationItemsRequest(
            conversation_id=conversation_id, after=after, order="asc"
        )
        return (await answered(self.stub.ListConversationItems(request))).json["data"]

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
    # The broker may have stored the request all the same.
    admission.quota_refusal = BrokerUnavailable("no answer", retry_after_s=1)
    assert (await calls.respond()).status == 503
    assert len(await stored_ids(api)) == 4


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


async def test_a_later_tenant_of_the_name_finds_nothing(admission: ScriptedAdmission) -> None:
    rows = FixedRows([TenantRow(tenant=TENANT, create_ms=5)])
    async with (
        running_api(admission, rows=rows) as api,
        grpc.aio.insecure_channel(api.address) as channel,
    ):
        calls = Client(channel)
        response_id = (await calls.respond("k")).json["id"]
        conversation = await calls.converse({"role": "user", "content": "a"})
        later = TenantRow(tenant=TENANT, create_ms=6)
        rows._tenants[TENANT] = Tenant.parse(later.SerializeToString())
        assert (await calls.get(response_id)).status == 404
        assert (await calls.respond(previous_response_id=response_id)).status == 404
        assert (await calls.respond(conversation=conversation)).status == 404
        listed = calls.stub.ListConversationItems(
            ListConversationItemsRequest(conversation_id=conversation)
        )
        assert (await answered(listed)).status == 404
        # A key is of one body of one tenant.
        assert (await calls.respond("k", input="Bye")).status == 200


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


async def test_a_stream_of_tokens_waits_for_its_model_to_be_loaded(
    api: RunningApi, calls: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    response_id = (await calls.respond(include=["message.output_text.logprobs"])).json["id"]
    result = result_of(response_id.removeprefix("resp_"), "words")
    await api.services.conversations.store_result(result)

    def loading(name: str) -> None:
        raise NoWorker("it is being loaded", retry_after_s=1)

    monkeypatch.setattr(api.catalog, "of_record", loading)
    # Its events would have other numbers.
    assert (await calls.get(response_id, stream=True)).status == 503
    whole = (await calls.get(response_id)).json
    assert whole["output"][0]["content"][0]["text"] == "words"


async def test_items_that_are_referred_to_are_read_once_for_each_response_and_bounded(
    api: RunningApi, calls: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    response_id = (await calls.respond()).json["id"].removeprefix("resp_")
    store, reads = api.services.conversations, list[str]()
    await store.store_result(result_of(response_id, "stored"))
    read = store.description

    async def counted(tenant: str, request_id: str) -> Any:
        reads.append(request_id)
        return await read(tenant, request_id)

    monkeypatch.setattr(store, "description", counted)
    last = {"role": "user", "content": "And?"}
    reference = {"type": "item_reference", "id": f"msg_{response_id}_0"}
    begun = await calls.respond(input=[*[reference] * 3, last])
    assert begun.status == 200
    assert reads == [response_id]
    listed = await read(TENANT, begun.json["id"].removeprefix("resp_"))
    assert listed is not None
    assert len({item["id"] for item in listed["input"]}) == 4
    reads.clear()
    unmade = reference | {"id": f"fc_{response_id}_7"}
    assert (await calls.respond(input=[reference, unmade])).status == 404
    assert reads == [response_id]
    reads.clear()
    missing = [{"type": "item_reference", "id": f"msg_r{n}_0"} for n in range(101)]
    assert (await calls.respond(input=missing[:1])).status == 404
    stored = [{"type": "item_reference", "id": f"msg_{response_id}_0"}, *missing]
    assert (await calls.respond(input=stored)).status == 404
    assert len(reads) == 3


async def test_no_more_than_so_many_responses_and_characters_are_referred_to(
    api: RunningApi, calls: Client
) -> None:
    store, request_ids = api.services.conversations, list[str]()
    for _ in range(101):
        response_id = (await calls.respond()).json["id"]
        request_ids.append(response_id.removeprefix("resp_"))
        await store.store_result(result_of(request_ids[-1], "a"))
    references = [{"type": "item_reference", "id": f"msg_{each}_0"} for each in request_ids]
    refused = await calls.respond(input=references)
    assert refused.status == 400
    assert "more than 100 other responses" in refused.text
    await store.store_result(result_of(request_ids[0], "a" * 50_000))
    refused = await calls.respond(input=references[:1] * 200)
    assert refused.status == 400
    assert "the items that input refers to" in refused.text


async def test_what_is_too_much_for_a_conversation_is_not_added_and_it_can_be_used(
    api: RunningApi, calls: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await calls.converse({"role": "user", "content": "a"})
    response_id = (await calls.respond(conversation=conversation)).json["id"]
    result = result_of(response_id.removeprefix("resp_"), "b" * 20_000)
    await api.services.conversations.store_result(result)
    monkeypatch.setattr(packing, "MAX_JSON_BYTES", 10_000)
    assert len(await calls.items(conversation)) == 1
    assert (await calls.respond(conversation=conversation)).status == 200


async def test_a_conversation_is_deleted_whatever_its_response_does(
    api: RunningApi, calls: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = await calls.converse()
    await calls.respond(conversation=conversation)

    async def unreachable(*args: Any) -> None:
        raise AssertionError("it was settled")

    monkeypatch.setattr(api.services.conversations, "put_conversation", unreachable)
    monkeypatch.setattr(api.services.conversations, "description", unreachable)
    request = DeleteConversationRequest(conversation_id=conversation)
    assert (await answered(calls.stub.DeleteConversation(request))).json["deleted"]
    assert (await answered(calls.stub.DeleteConversation(request))).status == 404


async def test_a_conversation_has_no_logprobs_and_each_of_its_items_an_id_of_its_own(
    api: RunningApi, calls: Client
) -> None:
    item = {"role": "user", "content": "a", "id": "msg_same"}
    conversation = await calls.converse(item, item)
    more = ConversationBodyRequest(
        conversation_id=conversation, body=HttpBody(data=json.dumps({"items": [item]}).encode())
    )
    added = (await answered(calls.stub.CreateConversationItems(more))).json["data"]
    whole = await calls.respond(
        conversation=conversation, include=["message.output_text.logprobs"], input=[item]
    )
    assert whole.json["output"][0]["content"][0]["logprobs"]
    response_id = whole.json["id"].removeprefix("resp_")
    result = result_of(response_id, "b")
    await api.services.conversations.store_result(result)
    items = await calls.items(conversation)
    assert [len(items), len({item["id"] for item in items})] == [5, 5]
    assert items[2] == added[0]
    assert await calls.items(conversation, after=added[0]["id"]) == items[3:]
    assert items[4]["content"][0]["logprobs"] == []


async def test_nothing_is_truncated_where_there_is_no_room(
    calls: Client, admission: ScriptedAdmission, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def in_vain(*args: Any) -> None:
        raise AssertionError("it was truncated")

    monkeypatch.setattr("headrace_gateway.api.responses.create.truncated", in_vain)
    admission.refusal = LaneFull("full", retry_after_s=1)
    assert (await calls.respond(truncation="auto")).status == 429
    assert (await calls.respond(truncation="auto", store=False)).status == 429
