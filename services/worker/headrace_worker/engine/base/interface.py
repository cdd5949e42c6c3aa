"""What a worker asks of an engine: admit, step, park, cancel, statistics.

An engine turns sequences into tokens and knows nothing else: no text, no
requests, no network. This module has the nouns and the protocol, and imports
nothing that computes; `headrace_worker.engine.core.slot_engine`, `.scripted` and `.following`
are the implementations, held to one contract suite; `.encoder` makes vectors instead of
tokens.
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
    """Why an engine ended a sequence of itself. Stop strings are the gateway's."""

    STOP = "stop"
    """An end-of-sequence token or one of `stop_token_ids` was sampled; it is the last token,
    unless the engine gets text alone from where it really runs. Of an input: its vector is
    made."""
    LENGTH = "length"
    """`max_tokens` were made, or the context is full."""


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
    """How many of the likeliest are told beside each output token's own; None tells nothing."""
    prompt_logprobs: int | None = None
    """The same of the prompt's tokens, unless there is output already: then they are known."""
    min_tokens: int = 0
    """Output tokens before one that ends the sequence, those of earlier attempts included."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Runs of tokens, none of them empty, that the output does not have."""
    allowed_token_ids: frozenset[int] = frozenset()
    """The only tokens that are drawn; empty: all."""

    @property
    def forbids_tokens(self) -> bool:
        """Whether any of the last three asks for something."""
        return bool(self.min_tokens or self.bad_words or self.allowed_token_ids)


class GrammarKind(StrEnum):
    """In what language a grammar is written."""

    JSON_OBJECT = "json_object"
    """Any JSON object; no source."""
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    """The whole output matches; no look-around, no references back."""
    EBNF = "ebnf"
    """GBNF, as llama.cpp has it; begins at `root`."""
    STRUCTURAL_TAG = "structural_tag"
    """xgrammar's JSON: text with tagged parts that follow schemas."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the whole output of a sequence must follow, that of earlier attempts included."""

    kind: GrammarKind
    source: str = ""


@dataclass(frozen=True, slots=True)
class Sequence:
    """All there is to a generation; whoever holds it can continue it.

    The randomness of output index i comes from (seed, i) alone, so the tokens
    that follow `output_ids` are the same wherever and beside whatever it runs.
    """

    sequence_id: int
    """Unique among the sequences an engine holds."""
    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    """What earlier attempts made; empty for a new one. Never re-emitted."""
    parameters: SamplingParameters
    seed: int
    """Any 64-bit unsigned integer."""
    grammar: Grammar | None = None
    adapter: str = ""
    """Digest of the adapter that it runs with; empty for the model itself."""
    second_begins: int = 0
    """Of an input that is a pair of texts: where the second begins; 0 for one text."""
    cache_salt: str = ""
    """What is cached of it is shared with sequences of equal salt alone."""
    priority: int = 2
    """Lower is more urgent; of the least urgent, the newest is parked when the cache is full."""

    @property
    def prompt_width(self) -> int | None:
        """Of the logprobs to tell of its prompt; None for none."""
        return None if self.output_ids else self.parameters.prompt_logprobs


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What one step made, in columns: row i of `sequence_ids` got `token_ids[i]`.

    At most one token per sequence. A sequence in `finished`, `failed`, `refused` or `parked`
    is no longer held by the engine; a finished one may have its last token in the
    same step.
    """

    sequence_ids: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finished: list[tuple[int, FinishReason]] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)
    """Sequences that could not go on, with the fact: the culprits alone, never their neighbours."""
    logprobs: dict[int, Logprobs] = field(default_factory=dict)
    """By sequence, a run of one: of every token here whose sequence wants them."""
    prompt_logprobs: dict[int, Logprobs] = field(default_factory=dict)
    """By sequence, what has become known of its prompt, from the second token on and in order.
    The last of it comes with the first token, if not before."""
    cached_prompts: dict[int, int] = field(default_factory=dict)
    """By sequence, with the first token that it gets here: how many tokens of its prompt did not
    have to be computed. Of no sequence where the engine cannot tell."""
    parked: list[int] = field(default_factory=list)
    """Sequences let go because the cache is full, to be continued elsewhere or later. Never the
    only one."""
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Sequences whose grammar is none, or that have no token left which they may get, with the
    fact: no engine would."""
    vectors: dict[int, bytes] = field(default_factory=dict)
    """Of those in `finished`, where the engine makes vectors: float32, little-endian."""

    @property
    def says_anything(self) -> bool:
        ends = self.finished or self.failed or self.refused or self.parked
        return bool(self.sequence_ids or ends or self.prompt_logprobs)


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """What an engine holds at this moment."""

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
    """Tokens of contexts for which the cache was asked for a beginning; 0 without one."""
    prefix_hits: int = 0
    """Of these, those that it had: they are not computed, and no `prompt_tokens`."""
    adapter_bytes: int = 0
    """Memory of the adapters held."""
    refusing: str = ""
    """Why it would take nothing now, however many slots are free; empty where it would."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do beyond running a prompt to its end."""

    resume: bool = True
    """Goes on from output made elsewhere."""
    park: bool = True
    """Lets go of a running sequence and hands over its output."""
    logprobs: bool = False
    grammar: bool = False
    token_masks: bool = False
    """Keeps to `min_tokens`, `bad_words` and `allowed_token_ids`."""
    cache_salt: bool = False
    """Shares nothing between sequences of different salts."""
    sampling: Set[str] = frozenset()
    """Names of the sampling parameters that it applies."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What does not change while the engine lives; goes into the model card."""

    name: str
    """How it computes: `packed` or `stepwise`, as its check at load found right; else its kind."""
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
    """Whether a sequence's output does not depend on its neighbours."""
    capabilities: Capabilities = Capabilities()
    makes_vectors: bool = False
    """Whether sequences are inputs: each gets one vector, and no token."""


class SequenceRefused(Exception):
    """The engine cannot take this sequence; nothing is held for it. The text says why."""


class NoFreeSlot(SequenceRefused):
    """Every slot is taken at this moment; the sequence itself is fine."""


class Engine(Protocol):
    """Not thread-safe: all calls come from one thread, the pump's."""

    @property
    def facts(self) -> EngineFacts: ...

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        ...

    def admit(self, sequence: Sequence) -> None:
        """Take a sequence; its prefill begins with the next step.

        One that earlier attempts brought to its end is taken too, and its next
        step finishes it without a token: its finish was lost on the way.

        Raises:
            NoFreeSlot: every slot is taken.
            SequenceRefused: prompt and output so far leave no room, a token id is
                outside the vocabulary, its adapter is not held, it is held itself, it
                has a grammar or output and this engine takes none, or it is `refusing`.
        """
        ...

    def step(self) -> StepOutput:
        """One forward pass over what is held; empty where there is nothing to do.

        Prefill longer than the chunk takes several steps, during which the
        sequence gets no token.
        """
        ...

    def park(self, sequence_id: int) -> tuple[int, ...]:
        """Let go of a sequence and return its whole output so far, earlier attempts' included.

        Raises:
            KeyError: it is not held.
        """
        ...

    def cancel(self, sequence_id: int) -> None:
        """Let go of a sequence; one that is not held is fine."""
        ...

    def statistics(self) -> EngineStatistics: ...

    def check_integrity(self) -> None:
        """Raise AssertionError if slots or cache are held by nobody, or twice."""
        ...


class PrefixEngine(Protocol):
    """An engine that computes what texts begin with once."""

    def known_blocks(self) -> list[bytes]:
        """Names of all blocks that a text may begin with, as `headrace.prefixes` makes them;
        beginnings before what follows on them. Called where the engine may be called."""
        ...


@dataclass(frozen=True, slots=True)
class FittedAdapter:
    """An adapter that was read and fits the engine that read it, which alone can hold it."""

    digest: str
    """Equal for equal adapters."""
    rank: int
    bytes: int


class AdapterRefused(Exception):
    """An adapter cannot be run here; the text says why."""


class AdapterEngine(Protocol):
    """An engine whose sequences may each run with one of several adapters."""

    def fit_adapter(self, folder: Path) -> FittedAdapter:
        """Read an adapter in peft's form; blocks, and may be called from any thread.

        Raises:
            AdapterRefused: with the fact.
        """
        ...

    def hold_adapter(self, fitted: FittedAdapter) -> None:
        """Admit sequences with it from now on; one that is held already is fine.

        Raises:
            AdapterRefused: as many as may be are held.
        """
        ...

    def let_go_of_adapter(self, digest: str) -> None:
        """Admit no sequence with it any more; those that run with it go on to their end."""
        ...
