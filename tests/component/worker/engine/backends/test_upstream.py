"""A server elsewhere: what is retried, what is not, and when the circuit breaker opens."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from headrace_worker.engine.backends.openai_backend import OpenAIBackend, UpstreamProtocol
from headrace_worker.engine.backends.upstream import (
    Upstream,
    UpstreamRejected,
    UpstreamSettings,
    UpstreamUnavailable,
)
from headrace_worker.engine.base.interface import SamplingParameters, Sequence
from helpers.eventually import eventually
from helpers.http_server import HttpServer, answer, broken, http_server
from helpers.tiny_tokenizers import byte_level

GOOD = answer(body='data: {"n": 1}\n\ndata: {"n": 2}\n\ndata: [DONE]\n\n')
BUSY = answer(503, '{"error": {"message": "loading"}}', retry_after="0")


@asynccontextmanager
async def upstream(
    *answers: bytes | None, **settings: Any
) -> AsyncIterator[tuple[Upstream, HttpServer]]:
    async with http_server(*answers) as server:
        made = Upstream(UpstreamSettings(server.url, **settings))
        try:
            yield made, server
        finally:
            await made.close()


async def received(client: Upstream) -> list[dict[str, Any]]:
    return [event async for event in client.events("/completions", {"prompt": [1]})]


async def test_events_come_as_they_are_sent_whatever_ends_lines_in_their_text() -> None:
    text = "a\u2028b\x85c"
    body = f': note\r\n\r\ndata: {{"text": "{text}"}}\r\n\r\ndata:{{"n": 2}}\n\ndata: [DONE]\n\n'
    async with upstream(answer(body=body)) as (client, server):
        assert await received(client) == [{"text": text}, {"n": 2}]
    assert server.asked[0].line == "POST /v1/completions HTTP/1.1"
    assert server.asked[0].body == b'{"prompt":[1]}'


@pytest.mark.parametrize(
    "passing",
    [BUSY, answer(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), answer(500), b""],
    ids=["503", "429 until a date", "500", "no answer"],
)
async def test_a_transient_failure_is_retried(passing: bytes) -> None:
    async with upstream(passing, GOOD) as (client, server):
        assert await received(client) == [{"n": 1}, {"n": 2}]
    assert len(server.asked) == 2


async def test_after_the_last_retry_the_reason_is_raised() -> None:
    async with upstream(BUSY, retries=2) as (client, server):
        with pytest.raises(UpstreamUnavailable, match=r"answers 503: loading"):
            await received(client)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("refusal", "fact"),
    [
        (answer(401, '{"error": {"message": "no such key"}}'), "answers 401: no such key"),
        (answer(400, '{"detail": "no model"}'), "answers 400: .*no model"),
        (answer(404, "what?"), "answers 404: what"),
        (answer(body='data: {"error": {"message": "out of memory"}}\n\n'), "out of memory"),
    ],
)
async def test_what_the_server_rejects_is_not_retried(refusal: bytes, fact: str) -> None:
    async with upstream(refusal) as (client, server):
        with pytest.raises(UpstreamRejected, match=fact):
            await received(client)
        assert client.unavailable_reason == ""
    assert len(server.asked) == 1


async def test_a_retry_after_that_is_longer_than_the_timeout_is_not_waited_for() -> None:
    async with upstream(answer(429, retry_after="3600"), timeout_s=5) as (client, server):
        with pytest.raises(UpstreamUnavailable, match="429"):
            await received(client)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "breaking", [broken('data: {"n": 1}\n\n'), answer(body="data: nonsense\n\n")]
)
async def test_a_broken_stream_is_not_retried(breaking: bytes) -> None:
    async with upstream(breaking) as (client, server):
        with pytest.raises(UpstreamUnavailable):
            await received(client)
    assert len(server.asked) == 1


async def test_a_silent_server_times_out() -> None:
    async with upstream(None, timeout_s=0.05, retries=0) as (client, _):
        with pytest.raises(UpstreamUnavailable, match="unreachable: ReadTimeout"):
            await received(client)


async def test_failures_in_a_row_open_the_breaker_until_a_probe_is_answered() -> None:
    async with upstream(BUSY, retries=0, failures=2, pause_s=0.01) as (client, server):
        for _ in range(2):
            assert client.unavailable_reason == ""
            with pytest.raises(UpstreamUnavailable):
                await received(client)
        assert "is unavailable: 2 failures in a row; the last:" in client.unavailable_reason
        await eventually(lambda: len(server.asked) >= 5)
        assert client.unavailable_reason
        assert {each.line.split()[0] for each in server.asked[2:]} == {"GET"}, "callers' requests"
        server.answers = [answer()]
        await eventually(lambda: client.unavailable_reason == "")


async def test_the_key_is_sent_to_the_server_and_never_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    key = SecretStr("sk-very-secret")
    async with upstream(BUSY, GOOD, api_key=key) as (client, server):
        await received(client)
        assert "sk-very" not in repr(UpstreamSettings("http://x", key))
    assert server.asked[0].headers["authorization"] == "Bearer sk-very-secret"
    assert caplog.records
    assert not [r for r in caplog.records if "very-secret" in f"{r.getMessage()} {vars(r)}"]


async def test_arguments_of_earlier_calls_are_sent_to_a_chat_server_as_text() -> None:
    tokenizer = byte_level()
    call = {"id": "c", "type": "function", "function": {"name": "sky", "arguments": {"a": "é"}}}
    conversation = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    prompt_ids = tuple(tokenizer.encode(json.dumps(conversation)).ids)
    one = Sequence(1, prompt_ids, (), SamplingParameters(max_tokens=1, temperature=0), 0)
    async with upstream(GOOD) as (client, server):
        source = OpenAIBackend(client, "toy", UpstreamProtocol.CHAT, tokenizer, "")
        _ = [piece async for piece in source.generate(one)]
    (message,) = json.loads(server.asked[0].body)["messages"]
    assert message["tool_calls"][0]["function"] == {"name": "sky", "arguments": '{"a": "é"}'}
