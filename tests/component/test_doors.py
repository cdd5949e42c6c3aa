"""Both doors over real gRPC and, through the shipped configuration, real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest
from google.api.httpbody_pb2 import HttpBody
from openai.types.chat import ChatCompletionMessageParam

from headrace.errors import (
    AttemptsExhausted,
    ContextLengthExceeded,
    HeadraceError,
    InvalidRequest,
    LaneFull,
    ModelNotFound,
    PatienceExhausted,
    RequestNotFound,
)
from headrace.rpc.status import from_rpc_error, from_status
from headrace.v1 import (
    common_pb2,
    fleet_pb2,
    fleet_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    openai_pb2_grpc,
    requests_pb2,
    requests_pb2_grpc,
)
from headrace_gateway.generation import ChoiceEnded, Event, Failed, Tokens, ValidRequest
from helpers.running_doors import RunningDoors, running_doors
from helpers.running_edge import RunningEdge, running_edge, until
from helpers.scripted_admission import (
    LENGTH,
    STOP,
    Script,
    ScriptedAdmission,
    ScriptedGeneration,
    one_by_one,
)
from helpers.tiny_tokenizers import byte_level

SAYING = "the mill 水 🌊!"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
FAILURE = AttemptsExhausted("it failed on 3 attempts")


def ids_of(text: str) -> list[int]:
    return list(byte_level().encode(text).ids)


def says(request: ValidRequest) -> Script:
    """Every choice says the same, a token at a time; token 1 ends it."""
    scripts = [one_by_one(choice, [*ids_of(SAYING), 1]) for choice in range(request.n)]
    return [[event for part in step for event in part] for step in zip(*scripts, strict=True)]


def fails_midway(request: ValidRequest) -> Script:
    return [[Tokens(0, 0, ids_of("the mill"))], [Failed(FAILURE)]]


def fails_at_once(request: ValidRequest) -> Script:
    return [[Failed(PatienceExhausted("it waited 5 s", retry_after_s=2.5))]]


def hangs_after_a_word(request: ValidRequest) -> Script:
    return [[Tokens(0, 0, ids_of("the mill"))]]


def hangs(request: ValidRequest) -> Script:
    return []


@pytest.fixture
def admission() -> ScriptedAdmission:
    return ScriptedAdmission(says)


@pytest.fixture
async def doors(admission: ScriptedAdmission) -> AsyncIterator[RunningDoors]:
    async with running_doors(admission) as running:
        yield running


@pytest.fixture
async def channel(doors: RunningDoors) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(doors.address) as channel:
        yield channel


@pytest.fixture
async def edge(tmp_path: Path, doors: RunningDoors) -> AsyncIterator[RunningEdge]:
    async with running_edge(tmp_path) as running:
        running.edge.set_gateways([("127.0.0.1", doors.port)])
        await until(f"{running.url}/v1/models")
        yield running


@pytest.fixture
async def http(edge: RunningEdge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=edge.url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
async def client(edge: RunningEdge) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{edge.url}/v1", api_key="none", max_retries=0
    ) as client:
        yield client


async def ended(generation: ScriptedGeneration) -> None:
    """Wait for a settle or abandon, and that there is but one."""
    async with asyncio.timeout(5):
        while not generation.ends:
            await asyncio.sleep(0.01)
    assert generation.ends == 1


# --- OpenAI, through Envoy, by its unchanged client


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


async def test_a_chat_answer_comes_in_pieces_with_usage_last(
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


async def test_models_are_listed_and_found(client: openai.AsyncOpenAI) -> None:
    assert [model.id for model in (await client.models.list()).data] == ["valley"]
    assert (await client.models.retrieve("valley")).owned_by == "headrace"
    with pytest.raises(openai.NotFoundError, match="known models: valley"):
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
    stream = await client.chat.completions.create(
        model="valley",
        messages=HELLO,
        stream=True,
    )
    with pytest.raises(openai.APIError, match="failed on 3 attempts"):
        _ = [chunk async for chunk in stream]
    await ended(admission.last)
    assert admission.last.settled


async def test_a_full_lane_is_refused_before_tokenising(
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


async def test_a_client_that_leaves_while_we_wait_for_it_to_read_abandons_its_generation(
    doors: RunningDoors, admission: ScriptedAdmission
) -> None:
    def floods(request: ValidRequest) -> Script:
        ids = ids_of(SAYING) * 50
        return ([Tokens(0, step * len(ids), ids)] for step in range(10**9))

    admission.script = floods
    async with grpc.aio.insecure_channel(doors.address) as channel:
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
    assert {g.request_id for g in admission.generations} <= {head["x-request-id"]}


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
    (chat(foo=1), 400, "foo"),
    (chat(temperature=9), 400, "temperature"),
    (chat(max_tokens=500), 400, "max_tokens"),
    (chat(max_tokens=10**100), 400, "max_tokens"),
    (chat("x" * 10**6), 400, "messages"),
    (chat("a1" * 250), 400, "messages"),
    (chat("x" * 9 * 1024 * 1024), 400, None),
    (chat("x" * 20 * 1024 * 1024), 413, None),
]


async def test_bad_bodies_get_a_4xx_that_names_the_field_and_harm_nobody(
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


# --- native, typed


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


async def test_models_and_their_tokenizers_are_told(channel: grpc.aio.Channel) -> None:
    stub = models_pb2_grpc.ModelServiceStub(channel)
    (model,) = (await stub.ListModels(models_pb2.ListModelsRequest())).models
    assert (model.name, model.workers, model.max_choices, model.chat) == ("valley", 1, 4, True)
    assert await stub.GetModel(models_pb2.GetModelRequest(model="valley")) == model
    said = await stub.Tokenize(models_pb2.TokenizeRequest(model="valley", text="the 水"))
    assert list(said.token_ids) == ids_of("the 水")
    assert byte_level().decode(list(said.token_ids)) == "the 水"
    assert len(said.tokens) == len(said.token_ids)


async def test_fleet_and_requests_are_handed_on(channel: grpc.aio.Channel) -> None:
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


# --- native, as JSON through Envoy


async def test_the_native_api_speaks_json(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v2/models/valley:generate", json={"prompt": "Hello", "seed": 7})
    body = answer.json()
    assert (body["choices"][0]["text"], body["seed"], body["model"]) == (SAYING, "7", "valley")
    tokens = await http.post("/v2/models/valley:tokenize", json={"text": "the"})
    assert tokens.json()["token_ids"] == ids_of("the")
    assert (await http.get("/v2/models/valley")).json()["engine"] == "scripted"
    assert (await http.get("/v2/workers")).json()["workers"][0]["name"] == "one"


async def test_a_native_stream_of_json_events_ends_in_a_finish(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    path = "/v2/models/valley:streamGenerate"
    answer = await http.post(path, json={"prompt": "Hello", "request_id": "mine"})
    assert answer.headers["content-type"] == "text/event-stream"
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert events[0]["started"]["request_id"] == "mine"
    assert "".join(event["delta"]["text"] for event in events[1:-1]) == SAYING
    assert events[-1]["finish"]["usage"]["output_tokens"] == len(ids_of(SAYING)) + 1
    admission.script = fails_midway
    answer = await http.post(path, json={"prompt": "Hello"})
    last = json.loads(answer.text.splitlines()[-2][6:])
    assert last["finish"]["error"]["details"][0]["reason"] == "ATTEMPTS_EXHAUSTED"
    await ended(admission.last)


@pytest.mark.parametrize(
    ("path", "body", "status", "reason", "field"),
    [
        ("valley:generate", b"{", 400, "INVALID_REQUEST", None),
        ("valley:generate", b'{"foo": 1}', 400, "INVALID_REQUEST", "foo"),
        ("valley:generate", b'{"model": "x"}', 400, "INVALID_REQUEST", "model"),
        ("nobody:generate", b'{"prompt": "a"}', 404, "MODEL_NOT_FOUND", "model"),
        ("valley:streamGenerate", b'{"prompt": "a", "n": 9}', 400, "INVALID_REQUEST", "n"),
        ("valley:tokenize", b'{"text": 1}', 400, "INVALID_REQUEST", "text"),
    ],
)
async def test_native_refusals_are_statuses_in_json(
    http: httpx.AsyncClient, path: str, body: bytes, status: int, reason: str, field: str | None
) -> None:
    answer = await http.post(f"/v2/models/{path}", content=body)
    assert answer.status_code == status, answer.text
    details = answer.json()["details"]
    assert details[0]["reason"] == reason
    fields = [v["field"] for d in details for v in d.get("field_violations", [])]
    assert fields == ([field] if field else [])


async def test_a_choice_may_end_for_length(
    client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    def short(request: ValidRequest) -> Script:
        events: list[Event] = [Tokens(0, 0, ids_of("车")[:1]), ChoiceEnded(0, LENGTH)]
        return [events]

    admission.script = short
    answer = await client.completions.create(model="valley", prompt="Hello", max_tokens=1)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("�", "length")
