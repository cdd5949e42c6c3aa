"""Pure room: members of OpenAI's JSON that chunks and whole answers have alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from headrace.v1.common_pb2 import Choice, FinishReason, Usage
from headrace_gateway.api.openai.logprobs_formatter import LogprobsFormatter
from headrace_gateway.parsers.pieces import CallPiece

_FINISH_REASONS = {
    FinishReason.FINISH_REASON_STOP: "stop",
    FinishReason.FINISH_REASON_LENGTH: "length",
}


def ids_member(token_ids: Sequence[int], name: str = "token_ids") -> str:
    """Return a further JSON member; empty if there are no ids."""
    return f',"{name}":{json.dumps(list(token_ids), separators=(",", ":"))}' if token_ids else ""


def prompt_member(formatter: LogprobsFormatter | None, choice: Choice) -> str:
    """Return a further JSON member; empty if prompt logprobs were not requested."""
    logprobs = None if formatter is None else formatter.prompt_logprobs_json(choice)
    return "" if logprobs is None else f',"prompt_logprobs":{logprobs}'


def reasoning_members(text: str) -> str:
    """Return JSON members: vLLM's name of it, before and after it was changed."""
    written = json.dumps(text)
    return f'"reasoning_content":{written},"reasoning":{written}'


def calls_member(pieces: Sequence[CallPiece]) -> str:
    """Return the JSON member `tool_calls`; pieces of one call are joined."""
    calls: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        call = calls.setdefault(piece.index, {"index": piece.index, "function": {}})
        function = call["function"]
        if piece.name is not None:
            call |= {"id": piece.call_id, "type": "function"}
            function["name"] = piece.name
        function["arguments"] = function.get("arguments", "") + piece.arguments
    return f'"tool_calls":{json.dumps(list(calls.values()))}'


def finish_reason(reason: FinishReason.ValueType, called: bool) -> str:
    if called and reason == FinishReason.FINISH_REASON_STOP:
        return "tool_calls"
    return _FINISH_REASONS[reason]


def usage_json(usage: Usage) -> dict[str, Any]:
    reasoning = {"completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens}}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
        # 0 as well if the engine does not report it: clients take it for a number.
        "prompt_tokens_details": {"cached_tokens": usage.cached_prompt_tokens},
        **(reasoning if usage.HasField("reasoning_tokens") else {}),
    }
