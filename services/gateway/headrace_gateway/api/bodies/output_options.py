"""Pure room: what a caller of OpenAI's API wants to read beside the text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """As the caller wrote it; None for what is not to be told."""

    chat: bool
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    """vLLM's."""
    token_ids: bool = False
    """vLLM's, too."""
    tokens_as_ids: bool = False
    """vLLM's: logprobs name tokens by their ids."""
    echo_last_message: bool = False
    """vLLM's echo of chat: the last message's text stands before each choice."""
    echo: bool = False
    """The prompt stands before each choice."""
    echo_only: bool = False
    """No output was asked for, only the echo."""

    @property
    def any_requested(self) -> bool:
        widths = (self.logprobs, self.prompt_logprobs)
        return (
            self.echo
            or self.echo_last_message
            or self.token_ids
            or any(width is not None for width in widths)
        )

    @property
    def engine_prompt_logprobs(self) -> int | None:
        """How many of the likeliest the engine is to tell beside each of the prompt's tokens."""
        widths = (self.prompt_logprobs, self.logprobs if self.echo else None)
        return max((width for width in widths if width is not None), default=None)
