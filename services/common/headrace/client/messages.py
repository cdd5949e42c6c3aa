"""The messages that the clients send."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack
from uuid import uuid4

from headrace.client.sampling import Sampling
from headrace.v1.common_pb2 import SamplingParameters
from headrace.v1.generation_pb2 import ChatMessage, GenerateRequest
from headrace.v1.requests_pb2 import GetRequestRequest

Prompt = str | Iterable[tuple[str, str]]
"""Plain text, or a conversation as (role, content)."""


def make_request(
    prompt: Prompt, *, model: str, seed: int | None = None, **sampling: Unpack[Sampling]
) -> GenerateRequest:
    """Return the message that the clients send."""
    request = GenerateRequest(model=model, seed=seed, parameters=SamplingParameters(**sampling))
    if isinstance(prompt, str):
        request.prompt = prompt
    else:
        request.messages.extend(ChatMessage(role=role, content=text) for role, text in prompt)
    return request


def background_request(
    prompt: Prompt, model: str, seed: int | None, sampling: Sampling
) -> GenerateRequest:
    request = make_request(prompt, model=model, seed=seed, **sampling)
    # Why an id of our own: gRPC may send the call again, and the second must not start another.
    request.request_id = uuid4().hex
    return request


def get_request(request_id: str, wait_s: float) -> GetRequestRequest:
    request = GetRequestRequest(request_id=request_id)
    if wait_s:
        request.wait.FromMilliseconds(round(wait_s * 1000))
    return request
