"""Pure: what clients that choose a model are shown of it.

`supported_parameters` has OpenRouter's meaning, `capabilities` Ollama's; both name only what this
model does, because a request for more is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.sampling import PARAMETERS
from headrace.v1.common_pb2 import ModelTask
from headrace_gateway.checks.validation import is_applied
from headrace_gateway.request.tasks import task_of

_BY_TASK = {
    ModelTask.MODEL_TASK_EMBED: "embedding",
    ModelTask.MODEL_TASK_SCORE: "rerank",
    ModelTask.MODEL_TASK_CLASSIFY: "classify",
}


def capabilities(card: ModelCard, *, chats: bool) -> list[str]:
    """Return what the model can do, in a few words; `chats`: it has a chat template."""
    if (other := _BY_TASK.get(task_of(card))) is not None:
        return [other]
    found = {
        "completion": True,
        "chat": chats,
        "tools": chats and bool(card.tool_parser),
        "thinking": chats and bool(card.reasoning_parser),
        "structured_outputs": card.capabilities.grammar,
        "logprobs": card.capabilities.logprobs,
    }
    return [name for name, does in found.items() if does]


def supported_parameters(card: ModelCard, *, chats: bool) -> list[str]:
    """Return the fields of a generation's body that the model follows, sorted."""
    if task_of(card) != ModelTask.MODEL_TASK_GENERATE:
        return []
    return sorted(_parameters(card, chats))


def _parameters(card: ModelCard, chats: bool) -> Iterator[str]:
    yield from ("max_tokens", "n", "seed", "stop", "stop_token_ids", "logit_bias")
    yield from (each.name for each in PARAMETERS.values() if is_applied(card, each))
    if card.capabilities.logprobs:
        yield from ("logprobs", "top_logprobs")
    if card.capabilities.grammar:
        yield from ("response_format", "structured_outputs")
    if card.capabilities.token_masks:
        yield from ("min_tokens", "bad_words", "allowed_token_ids")
    if card.capabilities.cache_salt:
        yield "cache_salt"
    if chats and card.tool_parser:
        yield from ("tools", "tool_choice", "parallel_tool_calls")
    if chats and card.reasoning_parser:
        yield from ("reasoning_effort", "include_reasoning")
