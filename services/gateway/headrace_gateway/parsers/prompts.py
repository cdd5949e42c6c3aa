"""Pure: whether a prompt ends within the model's reasoning."""

from __future__ import annotations

from headrace_gateway.parsers.registry import THINK
from headrace_gateway.request.generation_request import (
    Conversation,
    Text,
    TokenIds,
    last_answer,
)

TAIL_TOKENS = 32
"""Of a prompt; its last mark is among them."""


def opens_reasoning(parser: str, tail: str, prompt: Text | Conversation | TokenIds) -> bool:
    """Return whether the output begins within reasoning.

    Args:
        tail: the end of the prompt as the model reads it, special tokens included.
        prompt: what it was made of. Of one that continues a message, that message decides.
    """
    marks = THINK.get(parser)
    if marks is None:
        return False
    if isinstance(prompt, Conversation) and prompt.continues:
        answer = last_answer(prompt)
        return answer.rfind(marks.begin) > answer.rfind(marks.end)
    end = tail.rstrip()
    return end.endswith(marks.begin.rstrip()) or (marks.assumed and not end.endswith(marks.end))


def closes_reasoning(parser: str, tail: str, prompt: Text | Conversation | TokenIds) -> bool:
    """Return whether the prompt says that there is no reasoning, or no more of it; as before."""
    marks = THINK.get(parser)
    if marks is None:
        return False
    continues = isinstance(prompt, Conversation) and prompt.continues
    return continues or tail.rstrip().endswith(marks.end)
