"""Rows of batches: control calls for them at the port that gateways have for the mesh."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import grpc
import pytest
from openai.types.responses import Response

from headrace.errors import AttemptsExhausted, HeadraceError, LaneFull, PatienceExhausted
from headrace.internal.v1.reports_pb2 import ResultRecord
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.internal.v1.rows_pb2 import (
    CancelRowRequest,
    CheckModelsRequest,
    Row,
    RowAnswer,
    RowBatch,
    RowCaller,
    RunRowsRequest,
    RunRowsResponse,
)
from headrace.internal.v1.rows_pb2_grpc import RowServiceStub
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import Priority, RequestOutcome
from headrace_gateway.api.rows import row_reply
from headrace_gateway.request.generation import ValidRequest
from headrace_gateway.stream.stored_record import digest_of
from helpers.api_scripts import SAYING, fails_at_once, fails_midway, hangs, says
from helpers.eventually import eventually
from helpers.running_api import RunningApi
from helpers.scripted_admission import Gate, GatedScript, ScriptedAdmission

CHAT = {"model": "valley", "messages": [{"role": "user", "content": "Speak"}]}


def row(body: dict[str, Any] = CHAT, **fields: Any) -> RunRowsRequest:
    line = fields.pop("line", 7)
    batch = RowBatch(**{"batch_id": "batch_1f", "endpoint": "/v1/chat/completions"} | fields)
    batch.caller.CopyFrom(RowCaller(tenant="acme", key_id="k1", models=["*"]))
    batch.deadline.FromSeconds(int(time.time()) + 7200)
    return RunRowsRequest(batch=batch, rows=[Row(line=line, body=json.dumps(body).encode())])


async def run(rows: Any, request: RunRowsRequest) -> RowAnswer:
    """Return the answer to a request's one row, over a stream of its own."""
    stream = rows.RunRows()
    await stream.write(request)
    message: RunRowsResponse = await stream.read()
    stream.cancel()
    (answer,) = message.answers
    assert (answer.batch_id, answer.line) == (request.batch.batch_id, request.rows[0].line)
    return answer


@pytest.fixture
def rows(channel: grpc.aio.Channel) -> Any:
    return RowServiceStub(channel)


async def test_a_row_is_answered_as_its_endpoint_answers(rows: Any) -> None:
    response = await run(rows, row())
    assert (response.status, response.request_id) == (200, "batch_1f_7")
    body = json.loads(response.body)
    assert (body["object"], body["id"]) == ("chat.completion", "chatcmpl-batch_1f_7")
    assert body["choices"][0]["message"]["content"] == SAYING
    usage = body["usage"]
    assert (response.usage.prompt_tokens, response.usage.output_tokens) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    assert not response.HasField("retry_after")


async def test_an_answer_that_control_could_not_receive_is_an_error_of_the_row(
    rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_reply, "MAX_ANSWER_BYTES", 200)
    response = await run(rows, row())
    assert (response.status, response.HasField("retry_after")) == (400, False)
    assert "a row's may have 200" in json.loads(response.body)["error"]["message"]


async def test_a_row_runs_unread_in_the_bulk_lane_until_the_batch_ends(
    rows: Any, admission: ScriptedAdmission
) -> None:
    await run(rows, row(CHAT | {"priority": -1}))
    request = admission.last.request
    assert request.priority == Priority.PRIORITY_BULK
    assert (request.background, request.once, request.tenant) == (True, True, "acme")
    assert request.row is not None
    assert (request.row.batch_id, request.row.line) == ("batch_1f", 7)
    assert 7100 < request.timeout_s <= 7200
    first_seed = request.seed
    await run(rows, row())
    await run(rows, row(line=8))
    assert [each.request.seed == first_seed for each in admission.generations] == [
        *(True, True),
        False,
    ]


async def test_a_row_that_is_called_for_twice_runs_once(
    rows: Any, admission: ScriptedAdmission
) -> None:
    gate = Gate()

    def later(request: ValidRequest) -> GatedScript:
        return [gate, *says(request)]

    admission.script = later
    given_up = rows.RunRows()
    await given_up.write(row())
    await eventually(lambda: len(admission.generations) == 1)
    again = rows.RunRows()
    await again.write(row())
    await again.write(row({}, line=9))
    refused = await again.read()  # so the row before it has been taken
    assert [answer.line for answer in refused.answers] == [9]
    given_up.cancel()
    gate.set()
    (answer,) = (await again.read()).answers
    assert (answer.line, answer.status) == (7, 200)
    again.cancel()
    assert len(admission.generations) == 1
    assert (len(admission.last.settled), admission.last.abandoned) == (1, 0)


async def test_rows_are_answered_together_and_in_the_order_in_which_they_end(rows: Any) -> None:
    sent = row()
    found: list[int] = []
    sent.rows.extend(Row(line=line, body=sent.rows[0].body) for line in range(8, 40))
    sent.rows.append(Row(line=40, body=b"{}"))
    stream, messages = rows.RunRows(), 0
    await stream.write(sent)
    while len(found) < len(sent.rows):
        found += [answer.line for answer in (await stream.read()).answers]
        messages += 1
    stream.cancel()
    assert sorted(found) == [each.line for each in sent.rows]
    assert messages < len(sent.rows) / 4


async def test_a_gateway_that_stops_ends_its_streams(api: RunningApi, rows: Any) -> None:
    stream = rows.RunRows()
    await stream.write(row())
    await stream.read()
    await api.rows.close()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("refusal", "status", "retry_after_s"),
    [(LaneFull("the lane is full", retry_after_s=3), 429, 3), (AttemptsExhausted("3"), 500, None)],
)
async def test_a_refused_row_is_worth_another_call_only_for_want_of_capacity(
    rows: Any,
    admission: ScriptedAdmission,
    refusal: HeadraceError,
    status: int,
    retry_after_s: int | None,
) -> None:
    admission.refusal = refusal
    response = await run(rows, row())
    assert response.status == status
    assert response.HasField("retry_after") == (retry_after_s is not None)
    assert response.retry_after.seconds == (retry_after_s or 0)
    assert "error" in json.loads(response.body)


async def test_a_row_that_fails_under_way_says_whether_to_call_again(
    rows: Any, admission: ScriptedAdmission
) -> None:
    admission.script = fails_at_once
    assert (await run(rows, row())).retry_after.ToMilliseconds() == 2500
    admission.script = fails_midway
    broken = await run(rows, row())
    assert (broken.status, broken.HasField("retry_after")) == (500, False)


async def test_a_wrong_body_is_refused_as_at_the_endpoint(rows: Any) -> None:
    response = await run(rows, row({"model": "valley", "messages": "no"}))
    assert response.status == 400
    assert not response.HasField("retry_after")
    assert json.loads(response.body)["error"]["param"] == "messages"
    unknown = await run(rows, row(CHAT | {"model": "hill"}))
    assert (unknown.status, json.loads(unknown.body)["error"]["code"]) == (404, "model_not_found")
    elsewhere = await run(rows, row(endpoint="/v1/rerank"))
    assert "rows may be for /v1/chat/completions" in elsewhere.body.decode()
    assert elsewhere.HasField("retry_after")


async def test_a_gateway_that_is_not_ready_refuses_rows_so_that_they_are_called_for_elsewhere(
    rows: Any, api: RunningApi, admission: ScriptedAdmission
) -> None:
    api.probes.health = replace(api.probes.health, starting=True)
    answer = await run(rows, row())
    assert (answer.status, answer.HasField("retry_after")) == (503, True)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rows.CheckModels(CheckModelsRequest(models=["valley"]))
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not admission.generations


async def test_a_cancelled_row_ends(rows: Any, admission: ScriptedAdmission) -> None:
    admission.script = hangs
    running = asyncio.create_task(run(rows, row()))
    await eventually(lambda: len(admission.generations) == 1)
    await rows.CancelRow(CancelRowRequest(tenant="acme", batch_id="batch_1f", line=7))
    answer = await running
    assert (answer.status, answer.HasField("retry_after")) == (499, True)
    assert admission.last.abandoned == 1


async def test_a_row_whose_run_failed_for_want_of_capacity_runs_again_under_another_name(
    rows: Any, api: RunningApi, admission: ScriptedAdmission
) -> None:
    await run(rows, row())
    first = admission.last.request
    error = to_status(PatienceExhausted("it waited 5 s", retry_after_s=1))
    record = RequestRecord(request_id=first.key, tenant="acme", detached=True, seed=first.seed)
    record.rendering.digest = digest_of(first)
    api.directory.results[first.key] = ResultRecord(
        request=record, outcome=RequestOutcome(error=error)
    )
    response = await run(rows, row())
    assert (response.status, response.request_id) == (200, "batch_1f_7_1")
    assert admission.last.request.seed == first.seed


@pytest.mark.parametrize("store", [None, True])
async def test_a_row_of_responses_is_answered_by_a_response_that_is_not_stored(
    rows: Any, admission: ScriptedAdmission, store: bool | None
) -> None:
    body = {"model": "valley", "input": "Speak", "instructions": "Be brief.", "store": store}
    answer = await run(rows, row(body, endpoint="/v1/responses"))
    assert (answer.status, answer.request_id) == (200, "batch_1f_7")
    response = Response.model_validate_json(answer.body, strict=True)
    assert (response.id, response.status) == ("resp_batch_1f_7", "completed")
    assert (response.output_text, response.instructions) == (SAYING, "Be brief.")
    assert response.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.output_tokens) == (
        response.usage.input_tokens,
        response.usage.output_tokens,
    )
    request = admission.last.request
    assert (request.background, request.once, request.stored_response) == (True, True, False)


@pytest.mark.parametrize("name", ["background", "conversation"])
async def test_a_row_of_responses_that_would_be_stored_is_refused(rows: Any, name: str) -> None:
    body = {"model": "valley", "input": "Speak", name: "conv_1" if name == "conversation" else True}
    answer = await run(rows, row(body, endpoint="/v1/responses"))
    assert (answer.status, answer.HasField("retry_after")) == (400, False)
    assert json.loads(answer.body)["error"]["param"] == name


async def test_prompts_of_one_row_are_requests_of_their_own(
    rows: Any, admission: ScriptedAdmission
) -> None:
    body = {"model": "valley", "prompt": ["a", "b"]}
    response = await run(rows, row(body, endpoint="/v1/completions"))
    assert (response.status, response.request_id) == (200, "batch_1f_7")
    answered = json.loads(response.body)
    assert len(answered["choices"]) == 2
    assert response.usage.output_tokens == answered["usage"]["completion_tokens"] > 0
    requests = [each.request for each in admission.generations]
    assert sorted(each.request_id for each in requests) == ["batch_1f_7-0", "batch_1f_7-1"]
    assert {(each.once, each.background) for each in requests} == {(True, False)}


async def test_models_that_a_caller_may_not_use_are_named_before_rows_run(rows: Any) -> None:
    caller = RowCaller(tenant="acme", models=["valley"])
    request = CheckModelsRequest(caller=caller, models=["valley", "asleep", "hill", "valley:poet"])
    refusals = (await rows.CheckModels(request)).refusals
    assert [bool(each) for each in refusals] == [False, True, True, False]
    assert refusals[2] == "The model `hill` does not exist; known models: valley"
