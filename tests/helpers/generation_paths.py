"""One greedy request over each path that generates text, by the path's own client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
from anthropic.types import Message, TextBlock

from headrace.client import AsyncClient
from headrace.v1.common_pb2 import FinishReason
from helpers.oracle import Answer, Asked, function

_ENDS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}


@dataclass(frozen=True)
class Clients:
    """All of one mesh that serves `model`."""

    model: str
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic
    http: httpx.AsyncClient
    native: AsyncClient

    async def send(self, asked: Asked) -> Answer:
        return await _PATHS[asked.path](self, asked)


def _chat_messages(asked: Asked) -> list[dict[str, str]]:
    system = [{"role": "system", "content": asked.system}] if asked.system else []
    return [*system, {"role": "user", "content": asked.prompt}]


def _openai_body(clients: Clients, asked: Asked) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": clients.model,
        "max_tokens": asked.max_tokens,
        "temperature": 0,
        "extra_body": {"return_token_ids": True},
    }
    if asked.stop:
        body["stop"] = asked.stop
    if asked.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


async def _chat(clients: Clients, asked: Asked) -> Answer:
    body = _openai_body(clients, asked) | {"messages": _chat_messages(asked)}
    if asked.tools:
        body["tools"] = [function(name) for name in asked.tools]
    made = await clients.openai.chat.completions.create(**body)
    if asked.stream:
        return await _read_chunks(made, lambda choice: choice.delta.content or "")
    (choice,) = made.choices
    assert choice.message.tool_calls is None
    return _whole(made, choice, choice.message.content or "")


async def _completions(clients: Clients, asked: Asked) -> Answer:
    body = _openai_body(clients, asked) | {"prompt": asked.prompt}
    made = await clients.openai.completions.create(**body)
    if asked.stream:
        return await _read_chunks(made, lambda choice: choice.text)
    (choice,) = made.choices
    return _whole(made, choice, choice.text)


def _whole(made: Any, choice: Any, text: str) -> Answer:
    used, ids = made.usage, tuple(choice.token_ids)
    return Answer(text, choice.finish_reason, used.prompt_tokens, used.completion_tokens, ids)


async def _read_chunks(chunks: Any, text_of: Callable[[Any], str]) -> Answer:
    text, finish, used = "", "", None
    ids: list[int] = []
    async for chunk in chunks:
        for choice in chunk.choices:
            text += text_of(choice)
            finish = choice.finish_reason or finish
            ids += getattr(choice, "token_ids", None) or []
        used = chunk.usage or used
    assert used is not None
    return Answer(text, finish, used.prompt_tokens, used.completion_tokens, tuple(ids))


async def _responses(clients: Clients, asked: Asked) -> Answer:
    body: dict[str, Any] = {
        "model": clients.model,
        "input": asked.prompt,
        "max_output_tokens": asked.max_tokens,
        "temperature": 0,
        "store": False,
        "tools": [{"type": "function", **function(name)["function"]} for name in asked.tools],
    }
    if asked.system:
        body["instructions"] = asked.system
    made: Any = await clients.openai.responses.create(**body, stream=asked.stream)
    if asked.stream:
        pieces: list[str] = []
        last: Any = None
        async for event in made:
            if event.type == "response.output_text.delta":
                pieces.append(event.delta)
            last = event
        made = last.response
        assert "".join(pieces) == made.output_text
    used = made.usage
    finish = "length" if made.status == "incomplete" else "stop"
    return Answer(made.output_text, finish, used.input_tokens, used.output_tokens)


async def _messages(clients: Clients, asked: Asked) -> Answer:
    body: dict[str, Any] = {
        "model": clients.model,
        "messages": [{"role": "user", "content": asked.prompt}],
        "max_tokens": asked.max_tokens,
        "extra_body": {"temperature": 0},
    }
    if asked.system:
        body["system"] = asked.system
    if asked.stop:
        body["stop_sequences"] = [asked.stop]
    if asked.tools:
        functions = [function(name)["function"] for name in asked.tools]
        body["tools"] = [
            {"name": f["name"], "description": f["description"], "input_schema": f["parameters"]}
            for f in functions
        ]
    made: Message
    if asked.stream:
        async with clients.anthropic.messages.stream(**body) as stream:
            pieces = [piece async for piece in stream.text_stream]
            made = await stream.get_final_message()
        assert "".join(pieces) == _text_of(made)
    else:
        made = await clients.anthropic.messages.create(**body)
    text = _text_of(made)
    read = made.usage.input_tokens + (made.usage.cache_read_input_tokens or 0)
    return Answer(text, _ENDS[str(made.stop_reason)], read, made.usage.output_tokens)


def _text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


async def _native(clients: Clients, asked: Asked) -> Answer:
    prompt: Any = asked.prompt
    if asked.path == "native":
        prompt = [(each["role"], each["content"]) for each in _chat_messages(asked)]
    if not asked.stream:
        return await _native_json(clients, asked)
    text, finish, used = "", "", None
    ids: list[int] = []
    stop = [asked.stop] if asked.stop else []
    async for event in clients.native.stream(
        prompt, model=clients.model, max_tokens=asked.max_tokens, temperature=0, stop=stop
    ):
        text += event.delta.text
        ids += event.delta.token_ids
        if event.delta.finish_reason:
            finish = _native_finish(FinishReason.Name(event.delta.finish_reason))
        if event.HasField("finish"):
            used = event.finish.usage
    assert used is not None
    return Answer(text, finish, used.prompt_tokens, used.output_tokens, tuple(ids))


async def _native_json(clients: Clients, asked: Asked) -> Answer:
    parameters: dict[str, Any] = {"max_tokens": asked.max_tokens, "temperature": 0}
    if asked.stop:
        parameters["stop"] = [asked.stop]
    shape = {"prompt": asked.prompt}
    body: dict[str, Any] = shape if asked.path == "native_prompt" else {}
    if asked.path == "native":
        body["messages"] = _chat_messages(asked)
    reply = await clients.http.post(
        f"/v2/models/{clients.model}:generate", json=body | {"parameters": parameters}
    )
    assert reply.status_code == 200, reply.text
    made = reply.json()
    (choice,) = made["choices"]
    used = made["usage"]
    finish = _native_finish(choice["finish_reason"])
    return Answer(
        choice["text"], finish, used["prompt_tokens"], used["output_tokens"],
        tuple(choice["token_ids"]),
    )  # fmt: skip


def _native_finish(name: str) -> str:
    return name.removeprefix("FINISH_REASON_").lower()


_PATHS: dict[str, Callable[[Clients, Asked], Awaitable[Answer]]] = {
    "chat": _chat,
    "completions": _completions,
    "responses": _responses,
    "messages": _messages,
    "native": _native,
    "native_prompt": _native,
}
