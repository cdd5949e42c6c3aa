"""OpenAI's bodies as bytes, and what they are read as."""

from __future__ import annotations

import json
from typing import Any

from headrace.auth.caller import Caller
from headrace_gateway.api.bodies.convert import chat_request, completion_requests
from headrace_gateway.api.bodies.generation import ChatBody, CompletionBody, parse
from headrace_gateway.base.calls import Call
from headrace_gateway.request.generation_request import GenerationRequest

MB = 1024 * 1024
CALL = Call(Caller(), "id-1", None, {})
HELLO = [{"role": "user", "content": "Hello"}]


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "valley", "messages": HELLO} | fields).encode()


def completion(**fields: Any) -> bytes:
    return json.dumps({"model": "valley", "prompt": "Hello"} | fields).encode()


def requested(data: bytes) -> GenerationRequest:
    return chat_request(parse(ChatBody, data, max_bytes=MB), CALL)


def completing(data: bytes) -> GenerationRequest:
    return completion_requests(parse(CompletionBody, data, max_bytes=MB), CALL)[0]
