"""OpenAI's bodies as bytes, and what they are read as."""

from __future__ import annotations

import json
from typing import Any

from headrace_gateway.api.bodies.convert import wanted_chat, wanted_completion
from headrace_gateway.api.bodies.generation import ChatBody, CompletionBody, parse
from headrace_gateway.base.calls import Call
from headrace_gateway.request.generation_request import GenerationRequest

MB = 1024 * 1024
CALL = Call("id-1", None, {})
HELLO = [{"role": "user", "content": "Hello"}]


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "valley", "messages": HELLO} | fields).encode()


def completion(**fields: Any) -> bytes:
    return json.dumps({"model": "valley", "prompt": "Hello"} | fields).encode()


def wanted(data: bytes) -> GenerationRequest:
    return wanted_chat(parse(ChatBody, data, max_bytes=MB), CALL)


def completing(data: bytes) -> GenerationRequest:
    return wanted_completion(parse(CompletionBody, data, max_bytes=MB), CALL)
