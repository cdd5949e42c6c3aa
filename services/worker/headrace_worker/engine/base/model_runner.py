"""What the slot engine needs of a model: one forward pass over the next tokens of some slots."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """The next tokens of one slot's prompt, from position `start` on."""

    slot: int
    start: int
    token_ids: Ints
    is_last_chunk: bool
    """Whether the prompt ends here, so that the last token's logits are requested."""
    all_logits: bool = False
    """Whether the logits of every token are requested."""

    @property
    def num_logits(self) -> int:
        """For how many of its last tokens logits are requested."""
        return len(self.token_ids) if self.all_logits else int(self.is_last_chunk)


@dataclass(frozen=True, slots=True)
class DecodeBatch:
    """One token for each of some slots, in columns, slots ascending."""

    slots: Ints
    token_ids: Ints
    positions: Ints


@dataclass(frozen=True, slots=True)
class StepBatch:
    """The rows of one pass: slots that decode, and prefill chunks."""

    decoding: Ints
    prefills: tuple[PrefillChunk, ...]

    def __len__(self) -> int:
        return len(self.decoding) + len(self.prefills)

    def split(self) -> tuple[StepBatch, StepBatch]:
        cut = len(self) // 2
        decode, prefill = min(cut, len(self.decoding)), max(0, cut - len(self.decoding))
        return (
            StepBatch(self.decoding[:decode], self.prefills[:prefill]),
            StepBatch(self.decoding[decode:], self.prefills[prefill:]),
        )


@dataclass(frozen=True, slots=True)
class SequenceContext:
    """What is prefilled for a sequence, and what its keys and values depend on."""

    token_ids: Ints
    """Prompt and output of earlier attempts."""
    adapter: str = ""
    """Digest of a loaded adapter; empty for the base model."""
    salt: str = ""
    """Cached prefixes are shared among equal salts only."""
    reuse: bool = True
    """Whether a cached prefix may be used."""


@dataclass(frozen=True, slots=True)
class CacheSpace:
    """Space of a cache that slots share, in tokens."""

    free: int
    total: int


class ModelRunner(Protocol):
    """A model with a cache for the context of every slot.

    A sequence is assigned a free slot, gets cache just before its first pass, and is released. Not
    reentrant; the caller holds `torch.inference_mode`.
    """

    @property
    def supports_chunked_prefill(self) -> bool:
        """Whether a prompt may come in chunks; otherwise it comes whole."""
        ...

    @property
    def supports_prefix_caching(self) -> bool:
        """Whether `allocate` ever returns more than 0."""
        ...

    def assign_slot(self, free: Sequence[int], context: SequenceContext) -> int:
        """Choose one of the free slots, ascending, for a sequence with this context."""
        ...

    def allocate(self, slot: int, *, spare_tokens: int = 0) -> int | None:
        """Allocate cache for the whole context of the slot's sequence.

        Returns how many of its first tokens are cached, fewer than all. Returns None and changes
        nothing unless there is space for the context and `spare_tokens` more; if no other sequence
        has cache, there always is.
        """
        ...

    def reserve(self, slots: Ints, ends: Ints) -> bool:
        """Allocate cache up to these lengths.

        Returns False and changes nothing if there is no space until others are released. For one
        slot it is always true.
        """
        ...

    @property
    def cache_space(self) -> CacheSpace | None:
        """Free and total space; None if every slot has a whole context of its own."""
        ...

    def run(self, decode: DecodeBatch, prefills: Sequence[PrefillChunk]) -> Tensor:
        """Return the logits of the decode rows, then of the prefill chunks: of every token if
        `all_logits`, else of the last token of last chunks.

        Shape `(rows, vocabulary)`, float32; the caller may change it. A pass that fails may be run
        again, whole or in parts; rows that passed before give the same logits again.
        """
        ...

    def release(self, slot: int, token_ids: Ints) -> None:
        """Free the slot. Its cache holds `token_ids`; none if its numbers cannot be trusted."""
        ...

    @property
    def cached_hashes(self) -> Collection[bytes]:
        """Hashes of all cached blocks; a prefix comes before what follows it."""
        ...

    def check_integrity(self, free: Sequence[int]) -> None:
        """Raise AssertionError if a free slot holds anything."""
        ...
