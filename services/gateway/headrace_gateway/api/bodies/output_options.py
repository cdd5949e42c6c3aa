"""Pure room: what a caller of OpenAI's API wants to read beside the text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asked:
    """As the caller wrote it; None for what is not to be told."""

    chat: bool
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    """vLLM's."""
    token_ids: bool = False
    """vLLM's, too."""
    by_id: bool = False
    """vLLM's: logprobs name tokens by their ids."""
    repeats: bool = False
    """vLLM's echo of chat: the last message's text stands before each choice."""
    echo: bool = False
    """The prompt stands before each choice."""
    mute: bool = False
    """No output was asked for, only the echo."""

    @property
    def anything(self) -> bool:
        widths = (self.logprobs, self.prompt_logprobs)
        return (
            self.echo
            or self.repeats
            or self.token_ids
            or any(width is not None for width in widths)
        )

    @property
    def of_prompt(self) -> int | None:
        """How many of the likeliest the engine is to tell beside each of the prompt's tokens."""
        widths = (self.prompt_logprobs, self.logprobs if self.echo else None)
        return max((width for width in widths if width is not None), default=None)
