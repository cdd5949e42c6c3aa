"""Contiguous key-value cache: each slot has memory for a whole context in every layer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from torch import Tensor

from headrace.prefixes import BLOCK_TOKENS, BlockHashes
from headrace_worker.engine.base.memory import lazily_zeroed
from headrace_worker.engine.base.model_runner import DecodeBatch, Ints, PrefillChunk
from headrace_worker.engine.kvcache.contiguous_rows import ContiguousChunkRows, ContiguousDecodeRows
from headrace_worker.engine.kvcache.kv_cache import KvCache, PromptContext
from headrace_worker.engine.kvcache.prefix_index import PrefixIndex


class ContiguousKvCache(KvCache):
    """`tokens` positions for each of `slots` slots.

    A slot keeps its contents until another sequence gets it, and sequences with the same prefix
    copy from it. `_reset` keeps everything beyond a sequence finite, so that masked positions
    cannot turn a sum into NaN.
    """

    cache_space = None

    def __init__(self, slots: int, tokens: int) -> None:
        super().__init__(slots, tokens)
        self._written = np.zeros(slots, dtype=np.int64)
        self._index = PrefixIndex(slots)

    def resized(self, slots: int, tokens: int) -> ContiguousKvCache:
        """Return an empty cache for the same layers, reserved now rather than at the first write.

        Raises:
            MemoryError: the address space is too small.
        """
        resized = ContiguousKvCache(slots, tokens)
        for index, layer in self._layers.items():
            resized.layer(index, layer.keys, layer.values)
        return resized

    def decode_rows(self, decode: DecodeBatch) -> ContiguousDecodeRows:
        self.reserve(decode.slots, decode.positions + 1)
        return ContiguousDecodeRows(decode.slots, decode.positions)

    def chunk_rows(self, prefill: PrefillChunk, row: int) -> ContiguousChunkRows:
        end = prefill.start + len(prefill.token_ids)
        self.reserve(np.array([prefill.slot]), np.array([end]))
        return ContiguousChunkRows(prefill, row)

    def assign_slot(self, free: Sequence[int], context: PromptContext) -> int:
        slot = self._index.choose_slot(free, context.reusable)
        self._assigned[slot] = context
        return slot

    def allocate(self, slot: int, *, spare_tokens: int = 0) -> int:
        context = self._assigned.pop(slot)
        blocks, holders = self._index.longest_match(context.reusable)
        tokens = blocks * BLOCK_TOKENS
        if blocks and slot not in holders:
            self.reserve(np.array([slot]), np.array([tokens]))
            for store in self._tensors():
                store[slot, :, :tokens] = store[holders[0], :, :tokens]
        tokens = self._reset(slot, tokens)
        if blocks and not tokens:
            for holder in holders:
                self._index.set_blocks(holder, [])
        self._allocated[slot] = context
        self.mark_computed(slot, tokens)
        return tokens

    def reserve(self, slots: Ints, ends: Ints) -> bool:
        self._written[slots] = np.maximum(self._written[slots], ends)
        return True

    def _register(self, slot: int, hashes: BlockHashes) -> None:
        self._index.set_blocks(slot, hashes)

    _deallocate = _register

    @property
    def cached_hashes(self) -> Collection[bytes]:
        return self._index.cached_hashes

    def check_integrity(self, free: Sequence[int]) -> None:
        super().check_integrity(free)
        self._index.check_integrity()

    def _reset(self, slot: int, tokens: int) -> int:
        """Clear the slot but for its first `tokens` positions; clear those too if one is not
        finite.

        Returns how many tokens are left: `tokens` or 0.
        """
        # Why at all: one NaN left behind would make every later sequence of the slot
        # NaN, for NaN * 0 is NaN even when masked.
        if tokens and not self._is_finite((slot, slice(None), slice(tokens))):
            tokens = 0
        written = int(self._written[slot])
        for store in self._tensors():
            store[slot, :, tokens:written] = 0
        self._written[slot] = tokens
        return tokens

    def _empty(self, like: Tensor) -> Tensor:
        shape = (self.slots, like.shape[1], self.tokens, like.shape[3])
        return lazily_zeroed(shape, like.dtype)
