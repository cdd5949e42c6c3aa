"""Read streams as a client does, and keep what was read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import openai
from openai.types.chat import ChatCompletionTokenLogprob


@dataclass
class Seen:
    """One stream of chat chunks."""

    text: str = ""
    finish_reasons: list[str] = field(default_factory=list)
    completion_tokens: int | None = None
    after_finish: int = 0
    """Pieces of text that came after the finish reason."""
    longest_gap_s: float = 0.0
    logprobs: list[ChatCompletionTokenLogprob] = field(default_factory=list)
    """Log probabilities, of every token."""


async def chat(
    client: openai.AsyncOpenAI,
    model: str,
    prompt: str,
    *,
    on_chunk: Callable[[Seen], None] = lambda _: None,
    **options: Any,
) -> Seen:
    """Stream one answer to its end; `on_chunk` is called after each chunk with what has been read.

    Raises:
        openai.APIError: the stream carried an error.
    """
    seen, last_s = Seen(), time.monotonic()
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        stream=True,
        stream_options={"include_usage": True},
        **options,
    )
    async for chunk in stream:
        now_s = time.monotonic()
        seen.longest_gap_s, last_s = max(seen.longest_gap_s, now_s - last_s), now_s
        for choice in chunk.choices:
            if choice.delta.content:
                seen.text += choice.delta.content
                seen.after_finish += len(seen.finish_reasons)
            if choice.logprobs:
                seen.logprobs += choice.logprobs.content or []
            if choice.finish_reason:
                seen.finish_reasons.append(choice.finish_reason)
        if chunk.usage:
            seen.completion_tokens = chunk.usage.completion_tokens
        on_chunk(seen)
    return seen
