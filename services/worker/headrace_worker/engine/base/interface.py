"""The interface of an engine: admit, step, park, cancel, statistics.

An engine turns token sequences into tokens; it knows no text, no requests and no network.
`core.slot_engine`, `backends.scripted` and `backends.remote_engine` implement it and pass one
contract suite; `encoder` makes vectors instead of tokens. This module imports nothing that
computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from headrace.logprobs import Logprobs
from headrace.sampling import SamplingNumbers


class FinishReason(StrEnum):
    """Why an engine ended a sequence. Stop strings are the gateway's."""

    STOP = "stop"
    """An end-of-sequence token or one of `stop_token_ids` was sampled; it is the last token, unless
    a remote server gives text only. For an input: its vector is made."""
    LENGTH = "length"
    """`max_tokens` were generated, or the context is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParameters(SamplingNumbers):
    """How the next token is drawn. Ranges are checked by the gateway."""

    max_tokens: int
    """Output tokens in all, those made by earlier attempts included."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    """End-of-sequence tokens of the model do not end the sequence; `stop_token_ids` still do."""
    logprobs: int | None = None
    """How many of the likeliest tokens are returned beside each output token; None: no logprobs."""
    prompt_logprobs: int | None = None
    """The same for prompt tokens, unless there is output already: then they are known."""
    min_tokens: int = 0
    """Output tokens before one that ends the sequence, those of earlier attempts included."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Sequences of tokens, none empty, that the output must not contain."""
    allowed_token_ids: frozenset[int] = frozenset()
    """The only tokens that may be sampled; empty: all."""

    @property
    def masks_tokens(self) -> bool:
        """Whether any of the last three is set."""
        return bool(self.min_tokens or self.bad_words or self.allowed_token_ids)


class GrammarKind(StrEnum):
    """The language in which a grammar is written."""

    JSON_OBJECT = "json_object"
    """Any JSON object; no source."""
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    """The whole output matches; no look-around, no back-references."""
    EBNF = "ebnf"
    """GBNF, as in llama.cpp; begins at `root`."""
    STRUCTURAL_TAG = "structural_tag"
    """xgrammar's JSON: text with tagged parts that follow schemas."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar for the whole output of a sequence, that of earlier attempts included."""

    kind: GrammarKind
    source: str = ""
    mark_ids: frozenset[int] = frozenset()
    """Special tokens that may stand for their texts; others may not."""


@dataclass(frozen=True, slots=True)
class ReasoningRule:
    """The part of an output before its answer, which no grammar binds."""

    end_ids: tuple[int, ...]
    """The run of tokens that ends it; not empty."""
    begin_ids: tuple[int, ...] = ()
    """It begins with these, if it does; empty: the prompt ends within it."""
    budget: int | None = None
    """Most tokens of it; then `forced_ids` follow."""
    forced_ids: tuple[int, ...] = ()
    """They end with `end_ids`."""
    barred_ids: frozenset[int] = frozenset()
    """No tokens of it."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """All that is needed to generate, or to continue, a sequence.

    The randomness of output index i depends on (seed, i) only, so the tokens that follow
    `output_ids` are the same on every worker and in every batch.
    """

    sequence_id: int
    """Unique among the sequences an engine holds."""
    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    """Output of earlier attempts; empty for a new sequence. Never emitted again."""
    parameters: SamplingParameters
    seed: int
    """Any 64-bit unsigned integer."""
    grammar: Grammar | None = None
    reasoning: ReasoningRule | None = None
    """What precedes the part that the grammar binds. Unset: nothing does."""
    adapter: str = ""
    """Digest of the LoRA adapter; empty for the base model."""
    second_begins: int = 0
    """For a pair of texts: the index of the first token of the second; 0 for one text."""
    cache_salt: str = ""
    """Cached prefixes are shared with sequences of the same salt only."""
    priority: int = 2
    """Lower is more urgent; if the cache is full, the newest of the least urgent is parked."""

    @property
    def prompt_logprobs_width(self) -> int | None:
        """How many prompt logprobs to return for each token; None for none."""
        return None if self.output_ids else self.parameters.prompt_logprobs


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The results of one step, in columns: row i of `sequence_ids` got `token_ids[i]`.

    At most one token per sequence. The engine no longer holds a sequence in `finished`, `failed`,
    `refused` or `parked`; a finished one may have its last token in the same step.
    """

    sequence_ids: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finished: list[tuple[int, FinishReason]] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)
    """Sequences that cannot continue, with the reason; other sequences of the batch are
    unaffected."""
    logprobs: dict[int, Logprobs] = field(default_factory=dict)
    """By sequence, of its token in this step, if it wants logprobs."""
    prompt_logprobs: dict[int, Logprobs] = field(default_factory=dict)
    """By sequence, of prompt tokens from the second on, in order. The last come with the first
    output token at the latest."""
    cached_prompts: dict[int, int] = field(default_factory=dict)
    """By sequence, with its first token: how many prompt tokens were cached. Absent if the engine
    does not know."""
    parked: list[int] = field(default_factory=list)
    """Sequences parked because the cache is full, to be resumed elsewhere or later. Never the only
    one."""
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Sequences whose grammar is invalid, or that may get no token, with the reason; no engine
    would accept them."""
    vectors: dict[int, bytes] = field(default_factory=dict)
    """Of those in `finished`, if the engine makes vectors: float32, little-endian."""

    @property
    def has_content(self) -> bool:
        ends = self.finished or self.failed or self.refused or self.parked
        return bool(self.sequence_ids or ends or self.prompt_logprobs)


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """What an engine holds at this moment, and what it has done."""

    running: int
    """Sequences in a slot, prefilling ones included."""
    free_slots: int
    cache_tokens_used: int
    cache_tokens_total: int
    steps: int
    """Since start, as the following three."""
    prompt_tokens: int
    output_tokens: int
    busy_s: float
    """Time spent in `step`."""
    prefix_queries: int = 0
    """Tokens of contexts looked up in the prefix cache; 0 without one."""
    prefix_hits: int = 0
    """Of these, those that were cached; they are not computed, and not in `prompt_tokens`."""
    adapter_bytes: int = 0
    """Memory of the loaded adapters."""
    unavailable_reason: str = ""
    """Why the engine admits nothing now, however many slots are free; empty if it does."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Optional features of an engine."""

    resume: bool = True
    """Continues output of earlier attempts."""
    park: bool = True
    """Gives up a running sequence and returns its output."""
    logprobs: bool = False
    grammar: bool = False
    token_masks: bool = False
    """Applies `min_tokens`, `bad_words` and `allowed_token_ids`."""
    cache_salt: bool = False
    """Shares nothing between sequences of different salts."""
    sampling: Set[str] = frozenset()
    """Names of the sampling parameters that it applies."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Constants of an engine; they go into the model card."""

    name: str
    """`packed` or `stepwise`, as the check at load decided; else the kind of engine."""
    dtype: str
    max_slots: int
    """Sequences held at once."""
    context_tokens: int
    """Prompt and output together, at most."""
    vocabulary_size: int
    eos_token_ids: tuple[int, ...]
    weights_digest: str
    """Equal for equal weights; continuation across workers relies on it."""
    batch_invariant: bool
    """Whether a sequence's output does not depend on other sequences of the batch."""
    capabilities: Capabilities = Capabilities()
    makes_vectors: bool = False
    """Whether sequences are inputs: each gets one vector, and no token."""


class SequenceRefused(Exception):
    """The engine cannot take this sequence; nothing is held. The text says why."""


class NoFreeSlot(SequenceRefused):
    """Every slot is in use now; the sequence itself is valid."""


class Engine(Protocol):
    """An engine. Not thread-safe: all calls come from the pump's thread."""

    @property
    def facts(self) -> EngineFacts: ...

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        ...

    def admit(self, sequence: Sequence) -> None:
        """Take a sequence; its prefill begins with the next step.

        A sequence that earlier attempts completed is taken too; the next step finishes it without a
        token, because its finish was lost.

        Raises:
            NoFreeSlot: every slot is in use.
            SequenceRefused: prompt and output leave no room, a token id is outside the
                vocabulary, its adapter is not loaded, its id is in use, it needs a feature that
                the engine lacks, or the engine is unavailable.
        """
        ...

    def step(self) -> StepOutput:
        """Run one forward pass over all held sequences; return nothing if there is nothing to do.

        A prefill longer than the chunk takes several steps, without a token.
        """
        ...

    def park(self, sequence_id: int) -> tuple[int, ...]:
        """Release a sequence and return its whole output so far, that of earlier attempts included.

        Raises:
            KeyError: the engine does not hold it.
        """
        ...

    def cancel(self, sequence_id: int) -> None:
        """Release a sequence; an unknown id is ignored."""
        ...

    def statistics(self) -> EngineStatistics: ...

    def check_integrity(self) -> None:
        """Raise AssertionError if a slot or cache is lost, or held twice."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter that an engine has read and can run; another engine cannot."""

    digest: str
    """Equal for equal adapters."""
    rank: int
    bytes: int


class AdapterRefused(Exception):
    """An adapter cannot be run here; the text says why."""


class AdapterStore(Protocol):
    """The adapters of an engine whose sequences may each run with one of several."""

    def load(self, folder: Path) -> LoadedAdapter:
        """Read an adapter in peft's format; blocks, and may be called from any thread.

        Raises:
            AdapterRefused: with the reason.
        """
        ...

    def add(self, fitted: LoadedAdapter) -> None:
        """Admit sequences with it from now on; adding it twice is fine.

        Raises:
            AdapterRefused: the maximum number of adapters is loaded.
        """
        ...

    def remove(self, digest: str) -> None:
        """Admit no new sequence with it; running ones continue to their end."""
        ...
