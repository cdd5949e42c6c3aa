"""The key-value cache as a packed forward pass uses it.

Two implementations: `contiguous_cache` gives every slot a whole context of memory; `paged_cache`
gives slots blocks as they grow, and sequences with one prefix share its blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from headrace.prefixes import BLOCK_TOKENS, BlockHashes
from headrace_worker.engine.base.model_runner import CacheSpace, DecodeBatch, Ints, PrefillChunk


@dataclass(frozen=True, slots=True)
class LayerCache:
    """One layer's cache: keys `(slots or blocks, heads, tokens, key size)`, values alike."""

    keys: Tensor
    values: Tensor


class AttentionParams(NamedTuple):
    """One layer's attention parameters beyond plain causal attention."""

    scale: float | None
    """None: one over the root of the head size."""
    window: int | None
    """Sliding window: a token sees itself and the `window - 1` before it."""
    softcap: float | None
    sinks: Tensor | None
    """Attention sinks: a logit per query head that takes part in the softmax and has no value."""


class CacheRows(Protocol):
    """Some rows of a step: they write their keys and values, then attend."""

    @property
    def rows(self) -> slice:
        """Their place in the packed row."""
        ...

    def write(self, layer: LayerCache, key: Tensor, value: Tensor) -> None:
        """Write their keys and values, each `(heads, rows, size)`."""
        ...

    def attend(self, layer: LayerCache, query: Tensor, params: AttentionParams) -> Tensor:
        """For `query` `(query heads, rows, size)` return `(rows, query heads, value size)`."""
        ...


@dataclass(frozen=True, slots=True)
class PromptContext:
    """A context about to be computed: its length, and the hashes of its full blocks."""

    tokens: int
    block_hashes: BlockHashes
    reuse: bool = True
    """Whether cached blocks may be used."""

    @property
    def reusable(self) -> BlockHashes:
        """Hashes of blocks that may come from the cache; never the last token, whose logits are
        requested."""
        return self.block_hashes[: (self.tokens - 1) // BLOCK_TOKENS] if self.reuse else []


class KvCache(ABC):
    """Keys and values of `slots` sequences of at most `tokens` tokens.

    A layer takes its shape from the first write: some architectures cache keys and values of
    different sizes, which no configuration names. What a slot in use can see beyond its sequence is
    always finite, or masked before it is summed.
    """

    def __init__(self, slots: int, tokens: int) -> None:
        self.slots, self.tokens = slots, tokens
        self._layers: dict[int, LayerCache] = {}
        self._assigned: dict[int, PromptContext] = {}
        """By slot, contexts without cache yet."""
        self._allocated: dict[int, PromptContext] = {}

    @property
    def layers(self) -> int:
        """Layers written so far."""
        return len(self._layers)

    @property
    def bytes_per_token(self) -> int:
        """Memory of one position, over the layers written so far."""
        return sum(t.shape[1] * t.shape[3] * t.element_size() for t in self._tensors())

    @property
    @abstractmethod
    def cache_space(self) -> CacheSpace | None:
        """Free and total space; None if every slot has a whole context of its own."""

    @property
    @abstractmethod
    def cached_hashes(self) -> Collection[bytes]:
        """Hashes of all cached blocks; a prefix comes before what follows it."""

    def layer(self, index: int, key: Tensor, value: Tensor) -> LayerCache:
        """Return the cache of one layer; `key` and `value` are `(1, heads, any, size)`."""
        if index not in self._layers:
            self._layers[index] = LayerCache(self._empty(key), self._empty(value))
        return self._layers[index]

    @abstractmethod
    def decode_rows(self, decode: DecodeBatch) -> CacheRows: ...

    @abstractmethod
    def chunk_rows(self, prefill: PrefillChunk, row: int) -> CacheRows:
        """Return the rows of a prefill chunk, which begin at `row` of the packed row."""

    @abstractmethod
    def assign_slot(self, free: Sequence[int], context: PromptContext) -> int:
        """Choose one of the free slots, ascending."""

    @abstractmethod
    def allocate(self, slot: int, *, spare_tokens: int = 0) -> int | None:
        """Allocate cache for the context assigned to the slot.

        Returns how many of its first tokens are cached, in whole blocks; None, and nothing changes,
        unless there is space for it and for `spare_tokens` more.
        """

    @abstractmethod
    def reserve(self, slots: Ints, ends: Ints) -> bool:
        """Allocate cache up to these lengths; False: nothing has changed."""

    def mark_computed(self, slot: int, tokens: int) -> None:
        """The first `tokens` of the context are computed; other sequences may reuse them."""
        if slot in self._allocated:
            self._register(slot, self._allocated[slot].block_hashes[: tokens // BLOCK_TOKENS])

    def release(self, slot: int, hashes: BlockHashes) -> None:
        """Free the slot; its cache holds these blocks, none if its numbers cannot be trusted.

        If the sequence never got cache, what the slot held before stays.
        """
        if self._assigned.pop(slot, None) is None:
            del self._allocated[slot]
            self._deallocate(slot, hashes)

    def check_integrity(self, free: Sequence[int]) -> None:
        """Raise AssertionError if a free slot holds anything, or a block is held twice."""
        held = self._assigned.keys() | self._allocated.keys()
        assert held.isdisjoint(free), "a context that no sequence has"

    @abstractmethod
    def _register(self, slot: int, hashes: BlockHashes) -> None:
        """Let other sequences use the slot's first blocks, which have these hashes."""

    @abstractmethod
    def _deallocate(self, slot: int, hashes: BlockHashes) -> None:
        """Keep these blocks of the slot, which is free, for other sequences."""

    @abstractmethod
    def _empty(self, like: Tensor) -> Tensor:
        """Return empty keys or values for a layer, for tensors `(1, heads, any, size)`."""

    def _is_finite(self, part: list[int] | tuple[int, slice, slice]) -> bool:
        """Return whether all numbers of this part of every layer are finite."""
        # Why a sum: it meets every number and needs no memory. Why float32: in float16 that of
        # finite ones overflows.
        sums = (store[part].sum(dtype=torch.float32) for store in self._tensors())
        return all(bool(total.isfinite()) for total in sums)

    def _tensors(self) -> Iterator[Tensor]:
        for layer in self._layers.values():
            yield layer.keys
            yield layer.values
