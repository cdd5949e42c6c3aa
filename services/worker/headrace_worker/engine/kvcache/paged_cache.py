"""Paged key-value cache: slots get blocks of 16 tokens as they grow."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from headrace.prefixes import BLOCK_TOKENS, BlockHashes
from headrace_worker.engine.base.memory import lazily_zeroed
from headrace_worker.engine.base.model_runner import CacheSpace, DecodeBatch, Ints, PrefillChunk
from headrace_worker.engine.kvcache.block_allocator import BlockAllocator, blocks_for
from headrace_worker.engine.kvcache.kv_cache import CacheRows, KvCache, PromptContext
from headrace_worker.engine.kvcache.paged_rows import (
    DeviceAttention,
    DeviceDecodeRows,
    PagedChunkRows,
    PagedDecodeRows,
    dense_decode_attention,
)


class PagedKvCache(KvCache):
    """Blocks of `BLOCK_TOKENS` positions, shared by all slots.

    A sequence gets blocks for its whole prompt before its first pass, and one more whenever it
    outgrows them. There are at least as many blocks as the longest context needs.
    """

    def __init__(
        self,
        slots: int,
        tokens: int,
        *,
        blocks: int | None = None,
        device: str = "cpu",
        device_attention: DeviceAttention | None = None,
    ) -> None:
        """Without `blocks` every slot can have a whole context; more are never of use.

        `device_attention` computes the attention of decode rows; None suits a CPU.
        """
        super().__init__(slots, tokens)
        slot_blocks = int(blocks_for(tokens))
        self._device, self._device_attention = torch.device(device), device_attention
        self._allocator = BlockAllocator(
            slots, slot_blocks, slots * slot_blocks if blocks is None else blocks
        )

    @property
    def cache_space(self) -> CacheSpace:
        return CacheSpace(
            self._allocator.free * BLOCK_TOKENS, self._allocator.num_blocks * BLOCK_TOKENS
        )

    def resized(self, slots: int, tokens: int, *, blocks: int | None = None) -> PagedKvCache:
        """Return an empty cache for the same layers, reserved now rather than at the first write.

        Raises:
            MemoryError: the address space is too small; on a GPU, its memory.
        """
        resized = PagedKvCache(
            slots,
            tokens,
            blocks=blocks,
            device=str(self._device),
            device_attention=self._device_attention,
        )
        for index, layer in self._layers.items():
            resized.layer(index, layer.keys, layer.values)
        return resized

    def decode_rows(self, decode: DecodeBatch) -> CacheRows:
        self._require(decode.slots, decode.positions + 1)
        tables = self._allocator.block_tables[decode.slots]
        if self._device_attention is None:
            return PagedDecodeRows(tables, decode.positions, self._device)
        positions = torch.from_numpy(decode.positions).to(self._device)
        tables_there = torch.from_numpy(tables).to(self._device)
        return DeviceDecodeRows(tables_there, positions, self._device_attention)

    @property
    def device_attention(self) -> DeviceAttention:
        """The attention of decode rows whose tables are known on the device only."""
        return self._device_attention or dense_decode_attention

    def block_tables(self, slots: Ints) -> Ints:
        """Return the block tables of these slots, `(slots, blocks)`."""
        return self._allocator.block_tables[slots]

    def chunk_rows(self, prefill: PrefillChunk, row: int) -> CacheRows:
        end = prefill.start + len(prefill.token_ids)
        self._require(np.array([prefill.slot]), np.array([end]))
        table = self._allocator.block_tables[prefill.slot]
        return PagedChunkRows(table, self._device, prefill, row)

    def assign_slot(self, free: Sequence[int], context: PromptContext) -> int:
        self._assigned[free[0]] = context
        return free[0]

    def allocate(self, slot: int, *, spare_tokens: int = 0) -> int | None:
        context = self._assigned[slot]
        block_ids = self._allocator.match_prefix(context.reusable)
        # Twice: reading the numbers costs more than counting, which is repeated every step.
        if not self._fits(context, block_ids, spare_tokens):
            return None
        block_ids = self._finite_blocks(block_ids)
        if not self._fits(context, block_ids, spare_tokens):
            return None
        self._allocated[slot] = self._assigned.pop(slot)
        self._allocator.fork(slot, block_ids)
        self._clear(self._allocator.append(slot, int(blocks_for(context.tokens)) - len(block_ids)))
        return len(block_ids) * BLOCK_TOKENS

    def _fits(self, context: PromptContext, known: list[int], spare_tokens: int) -> bool:
        more = int(blocks_for(context.tokens)) - len(known)
        return more + int(blocks_for(spare_tokens)) <= self._allocator.free_after_fork(known)

    def reserve(self, slots: Ints, ends: Ints) -> bool:
        missing = self._allocator.missing_blocks(slots, blocks_for(ends))
        if not missing.any():
            return True
        if missing.sum() > self._allocator.free:
            return False
        taken: list[int] = []
        for place in missing.nonzero()[0]:
            taken += self._allocator.append(int(slots[place]), int(missing[place]))
        self._clear(taken)
        return True

    def _register(self, slot: int, hashes: BlockHashes) -> None:
        self._allocator.register(slot, hashes)

    def _deallocate(self, slot: int, hashes: BlockHashes) -> None:
        self._allocator.deallocate(slot, hashes)

    @property
    def cached_hashes(self) -> Collection[bytes]:
        return self._allocator.cached_hashes

    def check_integrity(self, free: Sequence[int]) -> None:
        super().check_integrity(free)
        self._allocator.check_integrity()
        having = {int(slot) for slot in self._allocator.block_counts.nonzero()[0]}
        assert having <= self._allocated.keys(), "blocks that no sequence has"

    def _require(self, slots: Ints, ends: Ints) -> None:
        # Rows without a sequence, as in the check at load, have not been reserved before.
        if not self.reserve(slots, ends):
            raise MemoryError(f"{self._allocator.num_blocks} blocks are all taken")

    def _finite_blocks(self, block_ids: list[int]) -> list[int]:
        """Return these blocks; none, and evict them, if a number in them is not finite."""
        if not block_ids or self._is_finite(block_ids):
            return block_ids
        for block_id in block_ids:
            self._allocator.evict(block_id)
        return []

    def _clear(self, block_ids: list[int]) -> None:
        """Clear what earlier sequences left: one NaN would make what follows NaN, even masked."""
        # Why not on a GPU: its kernel never reads beyond a sequence.
        if block_ids and self._device.type == "cpu":
            for store in self._tensors():
                store[block_ids] = 0

    def _empty(self, like: Tensor) -> Tensor:
        shape = (self._allocator.num_blocks + 1, like.shape[1], BLOCK_TOKENS, like.shape[3])
        if self._device.type != "cpu":
            return torch.zeros(shape, dtype=like.dtype, device=self._device)
        return lazily_zeroed(shape, like.dtype)
