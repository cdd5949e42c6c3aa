"""What a gateway allows one request, as far as an operator may choose it.

Bounds that are part of the public API (choices, stop strings, ...) are not here: they
are written in proto/headrace/v1 and held in `validation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from headrace_gateway.base.keepalive import KeepAlive
from headrace_gateway.request.generation_request import GenerationRequest


@dataclass(frozen=True, slots=True)
class Limits:
    max_body_bytes: int = 8 * 1024 * 1024
    """Largest JSON body. Parsing one blocks the event loop for about 10 ms a MiB, and so
    every stream of this gateway. Too small: prompts for a long context are refused as bodies,
    not as prompts. Above 16 MiB Envoy refuses first."""
    max_prompt_characters_per_token: int = 64
    """A text longer than this times the model's context is refused without tokenising it.
    Real text has 1 to 8. Too small: long runs of spaces or equal characters are refused
    though they would fit. Too large: nonsense costs a thread a while before it is refused."""
    inline_text_characters: int = 2048
    """Texts up to this size are tokenised on the event loop, in well under a millisecond;
    longer ones in a thread, whose hand-over costs about 0.1 ms."""
    max_timeout_s: float = 600.0
    """Time for a whole generation where the caller names none, and the most one may name.
    Too small: long answers are cut. Too large: forgotten requests hold their slots."""
    max_patience_s: float = 60.0
    """Time in the lane where the caller names none, and the most one may name. Too small:
    refusals in bursts that would have passed. Too large: callers wait for nothing."""
    max_detached_s: float = 3600.0
    """In place of both for detached requests. Too small: a night's work ends unfinished. Too
    large: what is forgotten is computed, and waits in lanes until then."""
    detached_result_ttl_s: float = 3600.0
    """How long the result of a detached request is kept after its end. Too small: callers come for
    it in vain. Too large: the broker's disk, of whose 1 GiB for results the oldest go first."""
    max_prompts: int = 1024
    """Prompts in one call of /v1/completions. Too small: clients that send many at once are
    refused. Too large: one call holds many prompts and their answers in memory."""
    prompts_at_once: int = 64
    """How many of them wait in their lane or run at a time. Too small: workers with more slots
    idle. Too large: a single call fills its lane, and others are refused."""
    alive: KeepAlive = field(default_factory=KeepAlive)
    strict_fields: bool = False
    """Whether unknown fields of OpenAI's bodies are refused where the caller does not say."""

    def of(self, request: GenerationRequest) -> Limits:
        """Those of detached requests are their own."""
        if not request.background:
            return self
        return replace(self, max_timeout_s=self.max_detached_s, max_patience_s=self.max_detached_s)
