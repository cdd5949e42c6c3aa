"""Pure: a response as OpenAI's JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from headrace.errors import Code, HeadraceError, RequestCancelled
from headrace.rpc.http_errors import http_status
from headrace.v1.common_pb2 import FinishReason, Usage
from headrace_gateway.conversations.store import RESPONSE_PREFIX, request_id_of

Json = dict[str, Any]

QUEUED, IN_PROGRESS, COMPLETED = "queued", "in_progress", "completed"
INCOMPLETE, FAILED, CANCELLED = "incomplete", "failed", "cancelled"
ENDED = (COMPLETED, INCOMPLETE, FAILED, CANCELLED)


@dataclass(frozen=True, slots=True)
class Description:
    """What a response is of: all of it but its output. As JSON it is stored."""

    response_id: str
    created_at: int
    """Unix time in seconds."""
    fields: Json
    """Members of the response that repeat the request's."""
    input: list[Json]
    """Items that the model is given: of earlier responses or the conversation, then its own."""
    own_from: int
    """Index of the first of its own."""
    background: bool = False
    conversation: str = ""
    """Id of the conversation that its items are added to; empty: none."""
    logprobs: bool = False
    """Its texts have log probabilities."""
    summarized: bool = False
    """Its reasoning is shown as a summary."""
    encrypted: bool = False
    """Its reasoning items have `encrypted_content`."""
    digest: str = ""
    """Of the body that it was created by; empty: without a key, so it is not repeated."""

    @property
    def request_id(self) -> str:
        return request_id_of(self.response_id)

    @classmethod
    def of(cls, stored: Json) -> Self:
        return cls(**stored)

    def as_json(self) -> Json:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a response ended."""

    usage: Usage
    finish_reason: FinishReason.ValueType = FinishReason.FINISH_REASON_UNSPECIFIED
    error: HeadraceError | None = None
    at_s: float = 0.0
    """Unix time."""

    @property
    def status(self) -> str:
        if isinstance(self.error, RequestCancelled):
            return CANCELLED
        if self.error is not None:
            return FAILED
        is_cut = self.finish_reason == FinishReason.FINISH_REASON_LENGTH
        return INCOMPLETE if is_cut else COMPLETED


def response_id_of(request_id: str) -> str:
    return RESPONSE_PREFIX + request_id


def response_json(
    description: Description, status: str, output: list[Json], ending: Ending | None = None
) -> Json:
    """Return the response. `ending`: None while it has not ended."""
    is_complete = ending is not None and status == COMPLETED
    return {
        "id": description.response_id,
        "object": "response",
        "created_at": description.created_at,
        "status": status,
        "background": description.background,
        "completed_at": int(ending.at_s) if ending is not None and is_complete else None,
        "error": None if ending is None else _error(ending),
        "incomplete_details": {"reason": "max_output_tokens"} if status == INCOMPLETE else None,
        "output": output,
        "usage": None if ending is None else usage_json(ending.usage),
        **description.fields,
    }


def usage_json(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_prompt_tokens,
            "cache_write_tokens": 0,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
    }


def _error(ending: Ending) -> Json | None:
    error = ending.error
    if error is None or ending.status == CANCELLED:
        return None
    code = "server_error"
    if error.code is Code.RESOURCE_EXHAUSTED:
        code = "rate_limit_exceeded"
    elif http_status(error) < 500:
        code = "invalid_prompt"
    return {"code": code, "message": error.message}
