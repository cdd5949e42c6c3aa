"""What the lines of a stream are: for clients that read all of server-sent events, and for those
that read `data:` lines and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.request.generation import Event, Failed, Queued, ValidRequest
from helpers.api_scripts import FAILURE, SAYING, says
from helpers.running_api import running_api
from helpers.running_edge import running_edge, until
from helpers.scripted_admission import Gate, GatedScript, ScriptedAdmission

HELLO: Any = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "valley", "messages": HELLO, "stream": True}
COMPLETION = {"model": "valley", "prompt": "Hello", "stream": True}
OPENAI = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", CHAT | {"n": 2, "logprobs": True, "return_token_ids": True}),
    ("/v1/completions", COMPLETION),
    ("/v1/completions", COMPLETION | {"stream_options": {"include_usage": True}, "echo": True}),
]
NATIVE = "/v2/models/valley:streamGenerate"
RESUME = {"x-headrace-resume": "true"}
WAITS: list[list[Event]] = [[Queued(12, 3.44)], [Queued(3)], [Queued()]]


class Silence:
    """Scripts that stop at a gate: before all else, in the midst, or while it waits."""

    def __init__(self) -> None:
        self.gate = Gate()

    def first(self, request: ValidRequest) -> GatedScript:
        return [self.gate, *says(request)]

    def midst(self, request: ValidRequest) -> GatedScript:
        begin, *rest = says(request)
        return [begin, self.gate, *rest]

    def waiting(self, request: ValidRequest) -> GatedScript:
        return [[Queued(7)], self.gate, *says(request)]

    def lost_its_worker(self, request: ValidRequest) -> GatedScript:
        begin, *rest = says(request)
        return [begin, [Queued(0, 1.0)], self.gate, *rest]

    def fails(self, request: ValidRequest) -> GatedScript:
        return [self.gate, [Failed(FAILURE)]]


@pytest.fixture
def silence() -> Silence:
    return Silence()


@pytest.fixture
async def api(admission: ScriptedAdmission) -> AsyncIterator[Any]:
    async with running_api(
        admission, limits=GatewaySettings(stream_head_after_s=0.05, stream_keepalive_s=0.1)
    ) as running:
        yield running


def data_of_lines(text: str) -> Iterator[Any]:
    """As SGLang's benchmark reads it: each line that is not empty is data."""
    for line in text.splitlines():
        if line.strip() and (data := line.strip().removeprefix("data: ")) != "[DONE]":
            yield json.loads(data)


def data_of_blocks(text: str) -> Iterator[Any]:
    """As vLLM's benchmark reads it: what is between empty lines is a comment, or data."""
    blocks = [block.strip() for block in text.split("\n\n")]
    for block in blocks:
        if block and not block.startswith(":") and block != "data: [DONE]":
            yield json.loads(block.removeprefix("data: "))


def text_of(chunks: Iterator[Any]) -> str:
    return "".join(
        choice.get("text") or choice.get("delta", {}).get("content") or ""
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["index"] == 0
    ).removeprefix("Hello")


async def read_through(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], silence: Silence, comments: int = 2
) -> list[str]:
    """Every line; the silence ends once so many comments have come."""
    lines: list[str] = []
    async with http.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        async for line in answer.aiter_lines():
            lines.append(line)
            if sum(line.startswith(":") for line in lines) == comments:
                silence.gate.set()
    return lines


@pytest.mark.parametrize(("path", "body"), OPENAI)
async def test_openai_streams_have_data_lines_alone(
    http: httpx.AsyncClient, admission: ScriptedAdmission, path: str, body: dict[str, Any]
) -> None:
    admission.script = lambda request: [*WAITS, *says(request)]
    text = (await http.post(path, json=body)).text
    assert text_of(data_of_lines(text)) == SAYING
    assert text_of(data_of_blocks(text)) == SAYING


@pytest.mark.parametrize(("path", "body"), OPENAI)
async def test_every_event_of_a_choice_has_an_id_where_ids_are_requested(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    answer = await http.post(path, json=body, headers=RESUME)
    blocks = [block.split("\n") for block in answer.text.split("\n\n") if block]
    named = [block for block in blocks if '"choices":[{' in block[-1]]
    request_id = answer.headers["x-request-id"]
    assert named
    assert all(block[0].startswith(f"id: {request_id}:") for block in named)
    asked_not = await http.post(path, json=body, headers={"x-headrace-resume": "false"})
    assert "id: " not in asked_not.text


async def test_a_header_that_is_neither_true_nor_false_is_refused(http: httpx.AsyncClient) -> None:
    path, body = OPENAI[0]
    answer = await http.post(path, json=body, headers={"x-headrace-resume": "maybe"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-Headrace-Resume")


@pytest.mark.parametrize("script", ["first", "midst", "waiting", "lost_its_worker"])
async def test_silent_openai_streams_are_kept_alive_by_comments_of_their_own(
    http: httpx.AsyncClient, admission: ScriptedAdmission, silence: Silence, script: str
) -> None:
    admission.script = getattr(silence, script)
    lines = await read_through(http, "/v1/completions", COMPLETION, silence)
    comments = [line for line in lines if line.startswith(":")]
    waits = {"waiting": ": queue position=7"}
    waits["lost_its_worker"] = ": queue position=0 estimated_wait=1.0s"
    assert set(comments) == {waits.get(script, ": keep-alive")}
    text = "\n".join(lines)
    assert text_of(data_of_blocks(text)) == SAYING
    assert text_of(data_of_lines("\n".join(set_apart(lines)))) == SAYING


def set_apart(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith(":")]


@pytest.mark.parametrize("headers", [{}, RESUME])
@pytest.mark.parametrize("script", ["first", "midst", "waiting", "lost_its_worker"])
async def test_openais_client_reads_streams_that_are_kept_alive(
    client: openai.AsyncOpenAI,
    admission: ScriptedAdmission,
    silence: Silence,
    script: str,
    headers: dict[str, str],
) -> None:
    admission.script = getattr(silence, script)
    stream = await client.chat.completions.create(
        model="valley", messages=HELLO, stream=True, extra_headers=headers
    )
    said = ""
    async for chunk in kept_waiting(stream, silence):
        said += chunk.choices[0].delta.content or ""
    assert said == SAYING


async def kept_waiting(stream: Any, silence: Silence) -> AsyncIterator[Any]:
    """The stream's chunks; the silence ends after some comments."""
    seen = 0
    raw = stream.response.aiter_bytes

    async def counted() -> AsyncIterator[bytes]:
        nonlocal seen
        async for piece in raw():
            seen += piece.count(b":") if piece.startswith(b":") else 0
            if seen >= 2:
                silence.gate.set()
            yield piece

    stream.response.aiter_bytes = counted
    async for chunk in stream:
        yield chunk


@pytest.mark.parametrize("script", ["first", "midst", "waiting", "lost_its_worker"])
async def test_silent_native_streams_are_kept_alive_and_have_no_event_without_data(
    http: httpx.AsyncClient, admission: ScriptedAdmission, silence: Silence, script: str
) -> None:
    admission.script = getattr(silence, script)
    lines = await read_through(http, NATIVE, {"prompt": "Hello"}, silence)
    assert lines[0].startswith("id: "), "the opening comes at once"
    assert not any(line.startswith(":") and not after for line, after in pairwise(lines))
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert "".join(e["delta"]["text"] for e in events if "delta" in e) == SAYING
    assert "finish" in events[-1]


async def test_what_fails_after_its_head_fails_by_an_event(
    http: httpx.AsyncClient,
    client: openai.AsyncOpenAI,
    admission: ScriptedAdmission,
    silence: Silence,
) -> None:
    admission.script = silence.fails
    lines = await read_through(http, "/v1/completions", COMPLETION, silence, comments=1)
    (failure,) = data_of_blocks("\n".join(lines))
    assert failure["error"]["code"] == "attempts_exhausted"
    silence.gate.clear()
    stream = await client.completions.create(model="valley", prompt="Hello", stream=True)
    silence.gate.set()
    with pytest.raises(openai.APIError, match="failed on 3 attempts"):
        async for _ in stream:
            pass


async def test_the_head_is_sent_before_there_is_anything_to_send(
    tmp_path: Path, admission: ScriptedAdmission, silence: Silence
) -> None:
    admission.script = silence.first
    soon = GatewaySettings(stream_head_after_s=0.05, stream_keepalive_s=600)
    async with (
        running_api(admission, limits=soon) as api,
        running_edge(tmp_path) as running,
        httpx.AsyncClient(base_url=running.url, trust_env=False, timeout=20) as http,
    ):
        running.edge.set_gateways([("127.0.0.1", api.port)])
        await until(f"{running.url}/v1/models")
        async with http.stream("POST", "/v1/completions", json=COMPLETION) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.headers["x-request-id"]
            silence.gate.set()
            text = (await answer.aread()).decode()
        assert text.startswith("data: ")
        assert text_of(data_of_lines(text)) == SAYING


async def test_an_answer_in_one_piece_has_no_comments(
    http: httpx.AsyncClient, admission: ScriptedAdmission
) -> None:
    admission.script = lambda request: [*WAITS, *says(request)]
    whole = await http.post("/v1/completions", json=COMPLETION | {"stream": False})
    assert whole.json()["choices"][0]["text"] == SAYING
