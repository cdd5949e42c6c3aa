"""Pure room: which parts of an answer a caller of OpenAI's API requests beside the text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """The options of the body; None for a part that was not requested."""

    chat: bool
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    """vLLM's."""
    token_ids: bool = False
    """vLLM's, too."""
    tokens_as_ids: bool = False
    """vLLM's: logprobs name tokens by their ids."""
    echo_last_message: bool = False
    """vLLM's echo of chat: the last message's text comes before each choice."""
    echo: bool = False
    """The prompt comes before each choice."""
    echo_only: bool = False
    """Only the echo was requested, and no output."""

    reasoning: bool = True
    """vLLM's: what the model wrote before its answer is sent as well."""

    @property
    def any_requested(self) -> bool:
        widths = (self.logprobs, self.prompt_logprobs)
        any_width = any(width is not None for width in widths)
        return any_width or self.echo or self.echo_last_message or self.token_ids

    @property
    def engine_prompt_logprobs(self) -> int | None:
        """Return how many likeliest tokens the engine must report for each token of the prompt."""
        widths = (self.prompt_logprobs, self.logprobs if self.echo else None)
        return max((width for width in widths if width is not None), default=None)
