"""What a client receives while its request waits, and how soon it is refused."""

from __future__ import annotations

import json

import grpc
import httpx
import openai
import pytest

from headrace.errors import AttemptsExhausted, LaneFull
from headrace.v1 import generation_pb2, generation_pb2_grpc
from headrace_gateway.models.tokenizer import Tokenizer
from headrace_gateway.request.generation import Event, Failed, Queued, ValidRequest
from helpers.api_scripts import SAYING, says
from helpers.scripted_admission import Script, ScriptedAdmission

NEWS = [Queued(12, 3.44), Queued(3), Queued()]
COMMENTS = [": queue position=12 estimated_wait=3.4s", ": queue position=3", ": waiting"]


def waits_then_says(request: ValidRequest) -> Script:
    waits: list[list[Event]] = [[news] for news in NEWS]
    return [*waits, *says(request)]


def waits_in_the_midst(request: ValidRequest) -> Script:
    """As after the loss of its worker."""
    first, *rest = says(request)
    waits: list[list[Event]] = [[news] for news in NEWS]
    return [first, *waits, *rest]


def waits_then_fails(request: ValidRequest) -> Script:
    return [[Queued(1)], [Failed(AttemptsExhausted("failed on 3 attempts"))]]


def comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(":")]


RESUME = {"x-headrace-resume": "true"}


async def test_openai_streams_with_ids_have_the_queue_position_in_comments_that_clients_ignore(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    admission.script = waits_then_says
    body = {"model": "valley", "prompt": "Hello", "stream": True}
    answer = await http.post("/v1/completions", json=body, headers=RESUME)
    assert comments(answer.text) == COMMENTS
    assert answer.text.startswith(COMMENTS[0]), "a comment opens the stream, and no choice"
    stream = await client.completions.create(
        model="valley", prompt="Hello", stream=True, extra_headers=RESUME
    )
    assert "".join([chunk.choices[0].text async for chunk in stream if chunk.choices]) == SAYING


async def test_openai_clients_ignore_comments_after_events_that_have_ids(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, admission: ScriptedAdmission
) -> None:
    admission.script = waits_in_the_midst
    body = {"model": "valley", "prompt": "Hello", "stream": True}
    answer = await http.post("/v1/completions", json=body, headers=RESUME)
    lines = answer.text.splitlines()
    assert any(line.startswith("id: ") for line in lines[: lines.index(COMMENTS[0])])
    stream = await client.completions.create(
        model="valley", prompt="Hello", stream=True, extra_headers=RESUME
    )
    assert "".join([chunk.choices[0].text async for chunk in stream if chunk.choices]) == SAYING


async def test_answers_in_one_piece_have_no_queue_position(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    admission.script = waits_then_says
    answer = await http.post("/v1/completions", json={"model": "valley", "prompt": "Hello"})
    assert answer.json()["choices"][0]["text"] == SAYING


async def test_native_json_streams_have_the_queue_position_in_comments_and_events(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    admission.script = waits_then_says
    answer = await http.post("/v2/models/valley:streamGenerate", json={"prompt": "Hello"})
    assert comments(answer.text) == COMMENTS
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line[:6] == "data: "]
    queued = [event["queued"] for event in events if "queued" in event]
    assert queued == [{"position": 12, "estimated_wait": "3.440s"}, {"position": 3}]
    assert "".join(event["delta"]["text"] for event in events if "delta" in event) == SAYING


async def test_typed_streams_have_an_event_of_their_own(
    channel: grpc.aio.Channel, admission: ScriptedAdmission
) -> None:
    admission.script = waits_then_says
    stub = generation_pb2_grpc.GenerationServiceStub(channel)
    request = generation_pb2.GenerateRequest(model="valley", prompt="Hello")
    events = [event async for event in stub.StreamGenerate(request)]
    first, second = (event.queued for event in events if event.HasField("queued"))
    assert (first.position, first.estimated_wait.ToMilliseconds()) == (12, 3440)
    assert second.position == 3
    assert not second.HasField("estimated_wait")
    assert "".join(event.delta.text for event in events) == SAYING


async def test_a_stream_that_has_sent_its_queue_position_sends_a_failure_as_an_event(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    admission.script = waits_then_fails
    body = {"model": "valley", "prompt": "Hello", "stream": True}
    answer = await http.post("/v1/completions", json=body, headers=RESUME)
    assert answer.status_code == 200
    last = json.loads(answer.text.splitlines()[-2].removeprefix("data: "))
    assert last["error"]["code"] == "attempts_exhausted"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_a_refused_request_has_not_been_tokenized(
    http: httpx.AsyncClient,
    admission: ScriptedAdmission,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    touched: list[object] = []

    async def encode(_: Tokenizer, prompt: object, **how: object) -> list[int]:
        touched.append(prompt)
        return [1]

    monkeypatch.setattr(Tokenizer, "encode", encode)
    admission.refusal = LaneFull("lane valley/standard is full", retry_after_s=0.25)
    body = {"model": "valley"}
    asked = {"prompt": "Hello"} if path == "/v1/completions" else {"messages": _HELLO}
    answer = await http.post(path, json=body | asked)
    assert answer.status_code == 429
    assert answer.headers["retry-after-ms"] == "250"
    assert touched == []
    admission.refusal = None
    await http.post(path, json=body | asked)
    assert len(touched) == 1, "or the test would not have noticed"


_HELLO = [{"role": "user", "content": "Hello"}]
