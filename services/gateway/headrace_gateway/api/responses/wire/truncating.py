"""Leaves out the oldest messages of a conversation that is too long for its model.

OpenAI's `truncation` "auto". System messages stay, and so does the last message; a tool's result
goes with the call that it is of.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from headrace.errors import ContextLengthExceeded
from headrace_gateway.models.catalog import ServedModel
from headrace_gateway.request.generation_request import Conversation, GenerationRequest, Message

_USUAL_OUTPUT = 4096
"""Tokens that are left to the output if its length is not given, of a quarter of the context."""
_EXACT_ROUNDS = 3


class Encoder(Protocol):
    async def encoded(self, requested: GenerationRequest) -> tuple[ServedModel, list[int]]: ...


async def truncated(encoder: Encoder, requested: GenerationRequest) -> GenerationRequest:
    """Return the request with as many of its newest messages as its model has room for.

    It is returned as it is where even the last message alone is too long: it is refused for that.
    """
    for done in itertools.count():
        conversation = requested.prompt
        assert isinstance(conversation, Conversation)
        try:
            served, token_ids = await encoder.encoded(requested)
            context = served.card.context_tokens
            excess = len(token_ids) + _reserved(requested, context) - context
            if excess <= 0:
                return requested
            share = excess / len(token_ids)
        except ContextLengthExceeded:
            share = 0.5  # There are more characters than are tokenized at all.
        left = without_oldest(conversation.messages, max(share, _least_share(done)))
        if len(left) == len(conversation.messages):
            return requested
        requested = replace(requested, prompt=replace(conversation, messages=left))
    raise AssertionError("there is always a next round")


def _reserved(requested: GenerationRequest, context_tokens: int) -> int:
    """Return how many tokens are left to the output."""
    parameters = requested.parameters
    if parameters.HasField("max_tokens"):
        return max(1, parameters.max_tokens)
    return max(1, min(context_tokens // 4, _USUAL_OUTPUT))


def _least_share(done: int) -> float:
    """Return which share of the text is left out at least, after so many rounds.

    Texts have unlike numbers of tokens a character; each round tokenises all that is left.
    """
    return 0.0 if done < _EXACT_ROUNDS else float(min(1.0, 2.0 ** (done - _EXACT_ROUNDS) / 8))


def without_oldest(messages: Sequence[Message], share: float) -> list[Message]:
    """Return the messages without the oldest that have this share of the text, or one at least."""
    sizes = [Conversation([message]).characters for message in messages]
    to_drop, left = share * sum(sizes), list[Message]()
    dropped, is_dropping = 0.0, True
    for at, (message, size) in enumerate(zip(messages, sizes, strict=True)):
        if at == len(messages) - 1 or message["role"] in ("system", "developer"):
            left.append(message)
        elif is_dropping or (message["role"] == "tool" and not _has_calls(left)):
            dropped += size
            is_dropping = is_dropping and dropped < to_drop
        else:
            left.append(message)
    return left


def _has_calls(messages: Sequence[Message]) -> bool:
    return any(message.get("tool_calls") for message in messages)
