"""The keys and values of every slot, one strip of context per slot and layer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.prefixes import BLOCK_TOKENS, BlockHashes
from headrace_worker.engine.base.memory import lazily_zeroed
from headrace_worker.engine.base.model_runner import DecodeBatch, PrefillChunk
from headrace_worker.engine.kvcache.contiguous_rows import ContiguousChunkRows, ContiguousDecodeRows
from headrace_worker.engine.kvcache.kv_cache import LayerCache, PromptContext
from headrace_worker.engine.kvcache.prefix_index import PrefixIndex

Ints = NDArray[np.int64]


class ContiguousKvCache:
    """Strips of `tokens` positions for each of `slots` slots.

    A slot keeps what it held until another text enters it, and texts that begin
    alike copy from it. `_keep` sees to it that what lies beyond a text is finite,
    so masked positions cannot poison a sum.
    """

    cache_space = None

    def __init__(self, slots: int, tokens: int) -> None:
        self.slots, self.tokens = slots, tokens
        self._layers: dict[int, LayerCache] = {}
        self._written = np.zeros(slots, dtype=np.int64)
        self._index = PrefixIndex(slots)
        self._placed: dict[int, PromptContext] = {}
        """Texts that have not entered yet."""
        self._entered: dict[int, PromptContext] = {}

    def layer(self, index: int, key: Tensor, value: Tensor) -> LayerCache:
        strip = self._layers.get(index)
        if strip is None:
            strip = LayerCache(self._empty(key), self._empty(value))
            self._layers[index] = strip
        return strip

    @property
    def layers(self) -> int:
        return len(self._layers)

    @property
    def bytes_per_token(self) -> int:
        return sum(t.shape[1] * t.shape[3] * t.element_size() for t in self._stores())

    def resized(self, slots: int, tokens: int) -> ContiguousKvCache:
        """Empty strips for the same layers, reserved now rather than at the first write.

        Raises:
            MemoryError: the address space does not take them.
        """
        resized = ContiguousKvCache(slots, tokens)
        for index, strip in self._layers.items():
            resized.layer(index, strip.keys, strip.values)
        return resized

    def decode_rows(self, decode: DecodeBatch) -> ContiguousDecodeRows:
        self.reserve(decode.slots, decode.positions + 1)
        return ContiguousDecodeRows(decode.slots, decode.positions)

    def chunk_rows(self, prefill: PrefillChunk, row: int) -> ContiguousChunkRows:
        end = prefill.start + len(prefill.token_ids)
        self.reserve(np.array([prefill.slot]), np.array([end]))
        return ContiguousChunkRows(
            prefill.slot, start=prefill.start, row=row, count=len(prefill.token_ids)
        )

    def assign_slot(self, free: Sequence[int], context: PromptContext) -> int:
        slot = self._index.choose_slot(free, context.reusable)
        self._placed[slot] = context
        return slot

    def allocate(self, slot: int, *, spare_tokens: int = 0) -> int:
        context = self._placed.pop(slot)
        blocks, holders = self._index.longest_match(context.reusable)
        if blocks and slot not in holders:
            self._copy(holders[0], slot, blocks * BLOCK_TOKENS)
        tokens = self._keep(slot, blocks * BLOCK_TOKENS)
        if blocks and not tokens:
            for holder in holders:
                self._index.set_blocks(holder, [])
        self._entered[slot] = context
        self.mark_computed(slot, tokens)
        return tokens

    def reserve(self, slots: Ints, ends: Ints) -> bool:
        self._written[slots] = np.maximum(self._written[slots], ends)
        return True

    def mark_computed(self, slot: int, tokens: int) -> None:
        if slot in self._entered:
            self._index.set_blocks(slot, self._entered[slot].block_hashes[: tokens // BLOCK_TOKENS])

    def release(self, slot: int, names: BlockHashes) -> None:
        if self._placed.pop(slot, None) is None:
            del self._entered[slot]
            self._index.set_blocks(slot, names)

    @property
    def cached_hashes(self) -> Collection[bytes]:
        return self._index.cached_hashes

    def check_integrity(self, free: Sequence[int]) -> None:
        self._index.check_integrity()
        held = self._placed.keys() | self._entered.keys()
        assert held.isdisjoint(free), "a context that no sequence has"

    def _copy(self, source: int, slot: int, tokens: int) -> None:
        """Give a slot the first positions of another."""
        self.reserve(np.array([slot]), np.array([tokens]))
        for store in self._stores():
            store[slot, :, :tokens] = store[source, :, :tokens]

    def _keep(self, slot: int, tokens: int) -> int:
        """Make a slot ready for use: forget all but its first positions, or these too.

        Returns how many are left: `tokens`, or none if one of them is not finite.
        """
        # Why at all: one NaN left behind would make every later sequence of the slot
        # NaN, for NaN * 0 is NaN even when masked.
        if tokens and not self._is_finite(slot, tokens):
            tokens = 0
        written = int(self._written[slot])
        for store in self._stores():
            store[slot, :, tokens:written] = 0
        self._written[slot] = tokens
        return tokens

    def _is_finite(self, slot: int, tokens: int) -> bool:
        # Why a sum: it meets every number and needs no memory. Why float32: in float16 that of
        # sound ones overflows.
        sums = (s[slot, :, :tokens].sum(dtype=torch.float32) for s in self._stores())
        return all(bool(total.isfinite()) for total in sums)

    def _stores(self) -> Iterator[Tensor]:
        for strip in self._layers.values():
            yield strip.keys
            yield strip.values

    def _empty(self, like: Tensor) -> Tensor:
        shape = (self.slots, like.shape[1], self.tokens, like.shape[3])
        return lazily_zeroed(shape, like.dtype)
