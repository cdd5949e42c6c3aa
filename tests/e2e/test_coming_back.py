"""A gateway is killed under its streams; its clients resume and get the whole answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.client import AsyncClient
from helpers.eventually import eventually
from helpers.fresh_mesh import FreshMesh, fresh_mesh

TOKENS = 120
STREAMS = 12
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
NATIVE = "/v2/models/scripted:streamGenerate"
BACK_WITHIN_S = 60.0


@dataclass
class Reader:
    """One client's stream: what it has read, over all its connections."""

    method: str
    path: str
    body: dict[str, Any] | None
    events: list[Any] = field(default_factory=list)
    last_id: str = ""
    connections: int = 0
    done: bool = False

    async def read(self, http: httpx.AsyncClient) -> Reader:
        """To the end of the answer, coming back whenever it breaks off before."""
        async with asyncio.timeout(BACK_WITHIN_S):
            while not self.done:
                await self._connect(http)
        return self

    async def _connect(self, http: httpx.AsyncClient) -> None:
        self.connections += 1
        headers = {"x-headrace-resume": "true"}
        if self.last_id:
            headers = {"last-event-id": self.last_id}
        try:
            async with http.stream(
                self.method, self.path, json=self.body, headers=headers
            ) as answer:
                if answer.status_code == 503:
                    await asyncio.sleep(0.1)
                    return
                assert answer.status_code == 200, await answer.aread()
                async for line in answer.aiter_lines():
                    self._take(line)
        except httpx.TransportError:
            pass

    def _take(self, line: str) -> None:
        if line.startswith("id: "):
            self._next_id = line.removeprefix("id: ")
        elif line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            assert "error" not in {**event, **event.get("finish", {})}, event
            self.events.append(event)
            self.done |= "finish" in event
        elif not line:
            # As a browser does: an event counts, and its id with it, once it is whole.
            self.last_id = getattr(self, "_next_id", self.last_id)

    @property
    def result(self) -> dict[Any, Any]:
        """What comes of it all: text, reasons, probabilities and ids of every choice, and usage."""
        whole: dict[Any, Any] = {}
        for event in self.events:
            for choice in event.get("choices", ()):
                _add(whole, choice["index"], choice, choice.get("delta", choice))
            if "delta" in event:
                delta = event["delta"]
                _add(whole, delta["choice"], delta, delta)
            if usage := event.get("usage") or event.get("finish", {}).get("usage"):
                whole["usage"] = usage
        return whole

    @property
    def request_id(self) -> str:
        return self.last_id.partition(":")[0]


def _add(whole: dict[Any, Any], index: int, choice: dict[str, Any], delta: dict[str, Any]) -> None:
    text, ids, columns, reasons = whole.setdefault(index, ("", [], [], []))
    text += delta.get("content") or delta.get("text") or ""
    ids += choice.get("token_ids", [])
    logprobs = choice.get("logprobs") or {}
    columns += (
        logprobs.get("content") or logprobs.get("token_logprobs") or logprobs.get("logprobs", [])
    )
    reasons += [choice["finish_reason"]] if choice.get("finish_reason") else []
    whole[index] = (text, ids, columns, reasons)


def requests() -> list[tuple[str, dict[str, Any]]]:
    """Chats in two choices with log probabilities, completions to a stop string, native calls."""
    common = {"stream": True, "seed": 3, "temperature": 1.0, "ignore_eos": True}
    bodies: list[tuple[str, dict[str, Any]]] = []
    for number in range(STREAMS // 3):
        prompt = f"Tell me about number {number}."
        chat = {"messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS}
        usage = {"stream_options": {"include_usage": True}, "model": "scripted"}
        chat |= {"n": 2, "logprobs": True, "top_logprobs": 2} if number % 2 else {}
        bodies.append((CHAT, common | usage | chat))
        stop = {"stop": ["never said", " 5"], "max_tokens": TOKENS, "prompt": prompt, "n": 2}
        bodies.append(
            (COMPLETIONS, common | usage | stop | {"logprobs": 1, "return_token_ids": True})
        )
        parameters = {"max_tokens": TOKENS, "temperature": 1.0, "ignore_eos": True}
        bodies.append((NATIVE, {"prompt": prompt, "n": 2, "seed": 4, "parameters": parameters}))
    return bodies


async def read_all(http: httpx.AsyncClient) -> list[Reader]:
    readers = [Reader("POST", path, body) for path, body in requests()]
    return await asyncio.gather(*(reader.read(http) for reader in readers))


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[FreshMesh]:
    options = ("--workers", "2", "--gateways", "2", "--scripted-step-ms", "20")
    async with fresh_mesh(tmp_path, *options) as running:
        yield running


@pytest.mark.timeout(180)
async def test_streams_of_a_killed_gateway_are_resumed_without_loss(
    mesh: FreshMesh,
) -> None:
    async with (
        httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=30) as http,
        AsyncClient(mesh.url) as client,
    ):
        undisturbed = await read_all(http)
        assert {reader.connections for reader in undisturbed} == {1}
        for victim in ("gateway-0", "gateway-1"):
            reading = asyncio.create_task(read_all(http))
            await eventually(lambda: client_runs(client, STREAMS // 2), within_s=30)
            await mesh.kill(victim)
            disturbed = await reading
            assert any(reader.connections > 1 for reader in disturbed), "no stream was disturbed"
            for before, after in zip(undisturbed, disturbed, strict=True):
                assert after.result == before.result


@pytest.mark.timeout(120)
async def test_the_python_client_resumes_by_itself(mesh: FreshMesh) -> None:
    async with AsyncClient(mesh.url) as client:

        async def streamed() -> list[int]:
            ids: list[int] = []
            stream = client.stream(
                "Go on", model="scripted", seed=5, max_tokens=TOKENS, ignore_eos=True
            )
            async for event in stream:
                ids += event.delta.token_ids
                assert event.delta.first_index + len(event.delta.token_ids) in (0, len(ids))
            return ids

        undisturbed = await streamed()
        assert len(undisturbed) == TOKENS
        streams = [asyncio.create_task(streamed()) for _ in range(4)]
        await eventually(lambda: client_runs(client, 4), within_s=30)
        await asyncio.gather(mesh.kill("gateway-0"), mesh.kill("gateway-1"))
        assert await asyncio.gather(*streams) == [undisturbed] * 4


async def client_runs(client: AsyncClient, requests: int) -> bool:
    return sum([worker.running for worker in await client.workers()]) >= requests


@pytest.mark.timeout(120)
async def test_many_clients_may_read_a_request_at_any_gateway_also_after_its_end(
    mesh: FreshMesh,
) -> None:
    path, body = requests()[4]
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=30) as http:
        first = Reader("POST", path, body)
        reading = asyncio.create_task(first.read(http))
        await eventually(lambda: len(first.events) > 20, within_s=30)
        stream = f"/v2/requests/{first.request_id}:stream"
        others = [Reader("GET", stream, None) for _ in range(4)]
        await asyncio.gather(reading, *(other.read(http) for other in others))
        late = await Reader("GET", stream, None).read(http)
        again = await Reader("POST", path, body, last_id=f"{first.request_id}:.").read(http)
        for other in (*others, late):
            for choice in (0, 1):
                assert other.result[choice][:2] == first.result[choice][:2]
        assert again.result == first.result
        rest = Reader("GET", f"{stream}?after=20.10", None)
        await rest.read(http)
        for choice, seen in ((0, 20), (1, 10)):
            assert rest.result[choice][1] == first.result[choice][1][seen:]


@pytest.mark.timeout(120)
async def test_an_impossible_resume_is_rejected_with_the_reason(mesh: FreshMesh) -> None:
    path, body = requests()[0]
    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=60) as http:
        first = await Reader("POST", path, body).read(http)

        async def refusal(last_id: str, changed: dict[str, Any]) -> tuple[int, str]:
            headers = {"last-event-id": last_id}
            answer = await http.post(path, json=body | changed, headers=headers)
            return answer.status_code, answer.json()["error"]["message"]

        status, message = await refusal(first.last_id, {"max_tokens": 7})
        assert (status, "other parameters" in message) == (400, True)
        status, message = await refusal(first.last_id, {"seed": 99})
        assert status == 400
        status, message = await refusal(first.last_id, {"stream": False, "stream_options": None})
        assert (status, "is for streams" in message) == (400, True)
        status, message = await refusal(f"{first.request_id}:9999", {})
        assert (status, "9999 tokens" in message) == (400, True)
        status, message = await refusal("missing:3", {})
        assert (status, "missing" in message) == (404, True)
        native = await http.get("/v2/requests/missing:stream")
        assert (native.status_code, native.json()["code"]) == (404, 5)
