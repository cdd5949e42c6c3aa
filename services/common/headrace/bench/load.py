"""Keeps a number of requests in flight at an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headrace.bench.figures import Outcome
from headrace.bench.http1 import Answer, Connection, ConnectionLost, server_sent_events
from headrace.rpc.tls import Trust

_WORDS = "the of to and in is for that with as on be are not from this by or if it all we you"


@dataclass(frozen=True, slots=True)
class Load:
    """The requests of a run."""

    url: str
    model: str
    chat: bool = True
    stream: bool = True
    prompt_words: int = 32
    max_tokens: int = 32
    temperature: float = 0.0
    ignore_eos: bool = False
    done_mark: bool = True
    """Whether a stream without [DONE] at its end is an error; some servers send none."""
    request_timeout_s: float = 300.0

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat else "/v1/completions"

    def body(self, number: int) -> bytes:
        """Return the body of a request: always the same for a number, and no two alike."""
        words = random.Random(number).choices(_WORDS.split(), k=self.prompt_words)
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "stream": self.stream,
        }
        if self.chat:
            body["messages"] = [{"role": "user", "content": " ".join(words)}]
        else:
            body["prompt"] = " ".join(words)
        if self.stream:
            body["stream_options"] = {"include_usage": True}
        if self.ignore_eos:
            body["ignore_eos"] = True
        return json.dumps(body).encode()


async def run(
    load: Load,
    *,
    concurrency: int,
    requests: int,
    api_key: str | None = None,
    trust: Trust | None = None,
) -> list[Outcome]:
    """Send `requests` requests, `concurrency` of them open at any time."""
    numbers = iter(range(requests))
    outcomes: list[Outcome] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, requests)):
            connection = Connection(load.url, api_key=api_key, trust=trust)
            group.create_task(_one_after_another(load, connection, numbers, outcomes))
    return outcomes


async def _one_after_another(
    load: Load, connection: Connection, numbers: Iterator[int], outcomes: list[Outcome]
) -> None:
    try:
        for number in numbers:
            outcomes.append(await _one(load, connection, number))
    finally:
        await connection.close()


async def _one(load: Load, connection: Connection, number: int) -> Outcome:
    body = load.body(number)
    outcome = Outcome(time.perf_counter())
    try:
        async with asyncio.timeout(load.request_timeout_s):
            await _read(load, await connection.post(load.path, body), outcome)
    except (OSError, ConnectionLost, TimeoutError, ValueError) as error:
        outcome.error = f"{type(error).__name__}: {error}"
        await connection.close()
    outcome.ended_s = time.perf_counter()
    return outcome


async def _read(load: Load, answer: Answer, outcome: Outcome) -> None:
    if answer.status == 200 and load.stream:
        done = await _read_stream(answer, outcome)
        if not done and load.done_mark and outcome.error is None:
            outcome.error = "the stream ended without [DONE]"
        return
    whole = b"".join([piece async for piece in answer.body])
    if answer.status != 200:
        outcome.error = f"{answer.status} {whole[:300].decode(errors='replace')}"
        return
    outcome.text_times_s.append(time.perf_counter())
    outcome.output_tokens = json.loads(whole)["usage"]["completion_tokens"]


async def _read_stream(answer: Answer, outcome: Outcome) -> bool:
    """Return whether [DONE] came."""
    done = False
    async for _, data in server_sent_events(answer):
        if data == b"[DONE]":
            done = True
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            outcome.error = f"in the stream: {chunk['error'].get('message')}"
        for choice in chunk.get("choices", ()):
            if choice.get("text") or choice.get("delta", {}).get("content"):
                outcome.text_times_s.append(time.perf_counter())
        if usage := chunk.get("usage"):
            outcome.output_tokens = usage["completion_tokens"]
    return done
