"""Bodies that nobody should send, to a whole mesh through Envoy: what comes back, what breaks."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx

from helpers.fuzzed import VALID, changed, damaged, written

AT_ONCE = 8
GOOD_EVERY = 100
ROW = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/completions",
    "body": {"model": "valley", "prompt": "Hello", "max_tokens": 1},
}
ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
RESPONSES = [
    {
        "model": "valley",
        "input": [ITEM],
        "instructions": "Be short.",
        "max_output_tokens": 3,
        "metadata": {"a": "b"},
        "tools": [{"type": "function", "name": "look", "parameters": {"type": "object"}}],
        "tool_choice": "auto",
        "stream": True,
    },
    {
        "model": "valley",
        "input": "Hello",
        "max_output_tokens": 3,
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "text"}},
        "include": ["message.output_text.logprobs"],
        "truncation": "auto",
        "store": False,
    },
    {
        "model": "valley",
        "input": "Hello",
        "max_output_tokens": 3,
        "conversation": "$conversation",
        "background": True,
    },
    {
        "model": "valley",
        "input": [
            ITEM,
            {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "d"},
        ],
        "previous_response_id": "$response",
        "max_output_tokens": 3,
    },
]
STORED: dict[str, list[dict[str, Any]]] = {
    "/v1/responses": RESPONSES,
    "/v1/responses/input_tokens": [{"model": "valley", "input": [ITEM]}],
    "/v1/responses/compact": [{"model": "valley", "input": "Hello"}],
    "/v1/responses/$response/cancel": [{}],
    "/v1/conversations": [{"items": [ITEM], "metadata": {"a": "b"}}],
    "/v1/conversations/$conversation": [{"metadata": {"a": "b"}}],
    "/v1/conversations/$conversation/items": [{"items": [ITEM]}],
    "/v1/batches": [
        {
            "input_file_id": "$file",
            "endpoint": "/v1/completions",
            "completion_window": "24h",
            "metadata": {"a": "b"},
            "output_expires_after": {"anchor": "created_at", "seconds": 3600},
        },
    ],
}
"""Paths whose bodies refer to what is stored: names that begin with a dollar sign."""
COMPUTED = (
    *("/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions", "/v1/completions"),
    *("/v1/embeddings", "/v1/rerank", "/v2/rerank", "/v1/score", "/v1/classify", "/v1/pooling"),
    *("/v1/moderations", "/embed", "/predict", "/similarity", "/tokenize", "/detokenize"),
)
FILES = "/v1/files"
PATHS = (*STORED, *COMPUTED, FILES)
_FORM = (
    b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--x\r\ncontent-disposition: form-data; name="expires_after[anchor]"\r\n\r\ncreated_at\r\n'
    b'--x\r\ncontent-disposition: form-data; name="expires_after[seconds]"\r\n\r\n3600\r\n'
    b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    + json.dumps(ROW).encode()
    + b"\r\n--x--\r\n"
)
GOOD: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "valley", "prompt": "Hello", "max_tokens": 1},
    "/v1/responses": {"model": "valley", "input": "Hello", "max_output_tokens": 1},
    "/v1/messages": {
        "model": "valley",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "Hello"}],
    },
    "/v1/embeddings": {"model": "sense", "input": "a"},
    "/v1/moderations": {"model": "sorts", "input": "a"},
}
BROKEN_STREAM = ("server_error", "api_error", "internal_error")
"""Types of errors in a stream's events that are ours."""


@dataclass
class Heard:
    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    good: int = 0
    """Good requests in between that were answered."""


async def stored_names(http: httpx.AsyncClient) -> dict[str, str]:
    """Store a response, a conversation and a file; return what stands for each name."""
    response = await http.post("/v1/responses", json=GOOD["/v1/responses"])
    conversation = await http.post("/v1/conversations", json={"items": [ITEM]})
    file = await http.post(
        FILES, data={"purpose": "batch"}, files={"file": ("a.jsonl", json.dumps(ROW))}
    )
    made = {"$response": response, "$conversation": conversation, "$file": file}
    return {name: answer.raise_for_status().json()["id"] for name, answer in made.items()}


async def fuzz(http: httpx.AsyncClient, names: dict[str, str], first: int, count: int) -> Heard:
    """Send bodies by their numbers, over all paths in turn, some at once."""
    heard, numbers = Heard(), iter(range(first, first + count))

    async def send_all() -> None:
        for number in numbers:
            path = PATHS[number % len(PATHS)]
            await _send(http, names, path, number, heard)
            if number % GOOD_EVERY == 0:
                await _send_good(http, number, heard)

    await asyncio.gather(*(send_all() for _ in range(AT_ONCE)))
    return heard


async def _send(
    http: httpx.AsyncClient, names: dict[str, str], path: str, number: int, heard: Heard
) -> None:
    luck = Random(f"{path} {number}")
    kind, data = _body(path, luck, names)
    place = path
    for name, value in names.items():
        place = place.replace(name, value)
    try:
        answer = await http.post(place, content=data, headers={"content-type": kind})
    except httpx.HTTPError as error:
        heard.answers["broken"] += 1
        heard.faults.append(f"{path} {number}: {type(error).__name__} {error}")
        return
    heard.answers[str(answer.status_code)] += 1
    if fault := find_fault(path, answer):
        heard.faults.append(f"{path} {number}: {answer.status_code} {fault}: {answer.text[:300]}")


async def _send_good(http: httpx.AsyncClient, number: int, heard: Heard) -> None:
    path, body = list(GOOD.items())[number // GOOD_EVERY % len(GOOD)]
    answer = await http.post(path, json=body)
    heard.good += answer.status_code == 200
    if answer.status_code != 200:
        text = f"{answer.status_code} {answer.text[:300]}"
        heard.faults.append(f"a good one after {number}: {path} {text}")


def _body(path: str, luck: Random, names: dict[str, str]) -> tuple[str, bytes]:
    if path == FILES:
        return "multipart/form-data; boundary=x", damaged(_FORM, luck)
    valid = STORED.get(path) or VALID[path]
    data = changed(valid, luck)
    for name, value in names.items():
        data = data.replace(written(name), written(value))
    return "application/json", data


def find_fault(path: str, answer: httpx.Response) -> str:
    """Return what is wrong with an answer to a body that may be wrong; empty: nothing."""
    if answer.status_code // 100 == 2:
        events = answer.headers.get("content-type", "").startswith("text/event-stream")
        return next(_faults_in_events(answer.text), "") if events else ""
    if answer.status_code // 100 != 4:
        return "is neither 2xx nor 4xx"
    try:
        return _fault_of_shape(path, answer.json())
    except ValueError:
        return "is no JSON"


def _faults_in_events(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if '"error"' in line and any(f'"{kind}"' in line for kind in BROKEN_STREAM):
            yield f"has the event {line[:300]}"


def _fault_of_shape(path: str, body: Any) -> str:
    is_tei = path in ("/embed", "/predict", "/similarity")
    if path == "/v2/rerank":
        fits = set(body) == {"message"}
    elif is_tei or (path == "/v1/rerank" and "error_type" in body):
        fits = set(body) == {"error", "error_type"}
    elif path.startswith("/v1/messages"):
        fits = set(body) == {"type", "error", "request_id"} and set(body["error"]) == {
            *("type", "message")
        }
    else:
        fits = set(body) == {"error"} and set(body["error"]) == {
            *("message", "type", "param", "code")
        }
    return "" if fits else "has another shape than its path's errors"


def numbered(first: int, count: int, portion: int) -> Iterator[tuple[int, int]]:
    """Yield the numbers of bodies in portions: the first of each, and how many."""
    for begin in itertools.count(first, portion):
        if (left := first + count - begin) <= 0:
            return
        yield begin, min(portion, left)
