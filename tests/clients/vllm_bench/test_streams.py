"""Streams as `vllm bench serve` reads them, by a reader of ours that takes what its parser takes.

The package itself is too large for a test. Its parser cuts what arrives at empty lines, takes an
unfinished event early if it is whole JSON, skips comments, counts a chunk with a choice as a token
(in chats only where the delta has output) and reads usage from a chunk without choices.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

ROOT, MODEL = os.environ["HEADRACE_BASE_URL"], os.environ["HEADRACE_MODEL"]
HEADERS = {"Authorization": f"Bearer {os.environ['HEADRACE_API_KEY']}"}
TOKENS = 24


@dataclass
class Measured:
    """What the benchmark keeps of one request."""

    text: str = ""
    chunks: int = 0
    output_tokens: int = 0
    input_tokens: int = 0
    ended: bool = False


async def messages(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """Cut the body as it arrives; an event whose JSON is whole needs no empty line behind it."""
    decoder, waiting = codecs.getincrementaldecoder("utf-8")(), ""
    async for piece in response.content.iter_any():
        waiting += decoder.decode(piece)
        while "\n\n" in waiting:
            message, waiting = waiting.split("\n\n", 1)
            if message.strip():
                yield message.strip()
        if waiting.startswith("data: ") and is_whole(waiting.removeprefix("data: ").strip()):
            yield waiting.strip()
            waiting = ""
    assert not waiting.strip(), "a stream ends with an empty line"


def is_whole(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return text == "[DONE]"
    return True


def is_output(choice: dict[str, Any]) -> bool:
    if "text" in choice:
        return True
    delta = choice["delta"]
    spoken = any(delta.get(name) for name in ("content", "reasoning", "tool_calls"))
    return spoken or (delta.get("content") == "" and "role" not in delta)


async def measure(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> Measured:
    sent = {"model": MODEL, "stream": True, "stream_options": {"include_usage": True}, **body}
    measured = Measured()
    async with session.post(f"{ROOT}{path}", json=sent, headers=HEADERS) as response:
        assert response.status == 200, await response.text()
        async for message in messages(response):
            if message.startswith(":"):
                continue
            assert not measured.ended, "nothing follows [DONE]"
            text = message.removeprefix("data: ")
            if text == "[DONE]":
                measured.ended = True
                continue
            data = json.loads(text)
            if (choices := data.get("choices")) and is_output(choices[0]):
                made = choices[0].get("text") or choices[0].get("delta", {}).get("content")
                measured.text += made or ""
                measured.chunks += 1
            elif usage := data.get("usage"):
                measured.output_tokens = usage["completion_tokens"]
                measured.input_tokens = usage["prompt_tokens"]
    return measured


COMPLETION: dict[str, Any] = {
    "prompt": "Once upon a time",
    "max_tokens": TOKENS,
    "repetition_penalty": 1.0,
    "logprobs": None,
    "ignore_eos": True,
}
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Count from 3 to 9."}]}],
    "max_completion_tokens": TOKENS,
    "ignore_eos": True,
}


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)]
)
async def test_every_token_asked_for_is_made_and_counted(path: str, body: dict[str, Any]) -> None:
    """`--ignore-eos` makes outputs of one length, which its throughput is reckoned from."""
    async with aiohttp.ClientSession() as session:
        (one, *others) = await asyncio.gather(*(measure(session, path, body) for _ in range(8)))
    for each in (one, *others):
        assert each.ended
        assert each.text
        assert each.output_tokens == TOKENS
        assert each.input_tokens > 2
        assert 1 < each.chunks <= TOKENS + 1


async def test_a_prompt_of_token_ids_keeps_its_length() -> None:
    """The random data set is sent as ids where its length must be exact."""
    async with aiohttp.ClientSession() as session:
        made = await measure(session, "/v1/completions", {**COMPLETION, "prompt": [[300] * 40]})
    assert made.input_tokens == 40


async def test_a_benchmark_finds_the_models_and_what_they_were_loaded_from() -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{ROOT}/v1/models", headers=HEADERS) as response,
    ):
        models = (await response.json())["data"]
    assert MODEL in [model["id"] for model in models]
    assert all(model["root"] for model in models)


async def test_embeddings_and_rankings_say_how_long_their_inputs_were() -> None:
    """Inputs are cut to what the model holds, as the benchmark asks by -1."""
    texts = ["a river " * 200, "a mill"]
    bodies: dict[str, dict[str, Any]] = {
        "/v1/embeddings": {"model": os.environ["HEADRACE_EMBEDDING_MODEL"], "input": texts},
        "/v1/rerank": {
            "model": os.environ["HEADRACE_RERANK_MODEL"],
            "query": "a river",
            "documents": texts,
        },
    }
    async with aiohttp.ClientSession() as session:
        for path, body in bodies.items():
            sent = {**body, "truncate_prompt_tokens": -1}
            async with session.post(f"{ROOT}{path}", json=sent, headers=HEADERS) as response:
                assert response.status == 200, await response.text()
                assert (await response.json())["usage"]["prompt_tokens"] > 2
