"""Allocate the blocks of a paged key-value cache: block tables, reference counts, prefix hashes.

A block holds the keys and values of 16 tokens. Sequences with the same prefix share its blocks. A
block that no slot refers to keeps its hash until it is needed; the least recently used goes first.

    two slots, blocks 1 to 4; A, B, C are hashes of blocks, each of all tokens up to its end
    append(0, 2)           slot 0 has [1, 2]
    register(0, [A])       block 1 is full: it can be found by hash A
    match_prefix([A, C])   [1]
    fork(1, [1])           slot 1 has [1]; block 1 has two references
    append(1, 1)           slot 1 has [1, 3]
    deallocate(0, [A, B])  block 1 stays with slot 1; block 2 is free and cached as B
    deallocate(1, [])      block 3, which has no hash, is free; so is block 1, cached as A
    append(0, 4)           takes 4 and 3, then evicts B (block 2), then A (block 1)
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection

import numpy as np

from headrace.prefixes import BLOCK_TOKENS, BlockHashes
from headrace_worker.engine.base.model_runner import Ints

NULL_BLOCK = 0
"""A block that no sequence owns: padding rows write there, and nothing reads it."""


def blocks_for(tokens: Ints | int) -> Ints:
    """Return the number of blocks that hold so many tokens."""
    return -(-np.asarray(tokens, dtype=np.int64) // BLOCK_TOKENS)


class BlockAllocator:
    """Allocates `num_blocks` blocks, numbered from 1, to `slots` slots of at most `max_blocks`
    each."""

    def __init__(self, slots: int, max_blocks: int, num_blocks: int) -> None:
        assert num_blocks >= max_blocks, "one sequence alone must always fit"
        self.num_blocks = num_blocks
        self.block_tables: Ints = np.full((slots, max_blocks), NULL_BLOCK, dtype=np.int64)
        """Block ids of each slot, in order; `NULL_BLOCK` behind its last."""
        self.block_counts: Ints = np.zeros(slots, dtype=np.int64)
        """How many blocks each slot has."""
        self._shared = [0] * slots
        """How many of them each slot shared when it began, rather than wrote."""
        self._references = [0] * (num_blocks + 1)
        self._free_ids = deque(range(1, num_blocks + 1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        """Cached blocks without references, the least recently used first."""
        self._block_by_hash: dict[bytes, int] = {}
        self._hash_by_block: dict[int, bytes] = {}

    @property
    def free(self) -> int:
        """Blocks without references, cached or not."""
        return len(self._free_ids) + len(self._cached)

    def match_prefix(self, hashes: BlockHashes) -> list[int]:
        """Return the cached blocks of the longest prefix of these hashes."""
        block_ids = []
        for block_hash in hashes:
            if (block_id := self._block_by_hash.get(block_hash)) is None:
                break
            block_ids.append(block_id)
        return block_ids

    @property
    def cached_hashes(self) -> Collection[bytes]:
        """Hashes of all cached blocks; a prefix comes before what follows it."""
        return self._block_by_hash.keys()

    def free_after_fork(self, block_ids: list[int]) -> int:
        """Return how many blocks are free once a slot shares these."""
        return self.free - sum(block_id in self._cached for block_id in block_ids)

    def fork(self, slot: int, block_ids: list[int]) -> None:
        """Make these the first blocks of a slot that has none."""
        assert self.block_counts[slot] == 0
        for block_id in block_ids:
            self._references[block_id] += 1
            self._cached.pop(block_id, None)
        self.block_tables[slot, : len(block_ids)] = block_ids
        self.block_counts[slot] = self._shared[slot] = len(block_ids)

    def missing_blocks(self, slots: Ints, blocks: Ints) -> Ints:
        """Return how many more blocks each slot needs to have so many."""
        missing: Ints = np.maximum(blocks - self.block_counts[slots], 0)
        return missing

    def append(self, slot: int, more: int) -> list[int]:
        """Give the slot more blocks and return them; enough must be free."""
        taken = [self._allocate() for _ in range(more)]
        at = int(self.block_counts[slot])
        self.block_tables[slot, at : at + more] = taken
        self.block_counts[slot] += more
        return taken

    def register(self, slot: int, hashes: BlockHashes) -> None:
        """Cache the first blocks of the slot, which are full, by these hashes.

        If another block has the same hash already, that one stays: one is enough.
        """
        for block_id, block_hash in zip(
            self.block_tables[slot, : len(hashes)].tolist(), hashes, strict=True
        ):
            if block_hash not in self._block_by_hash and block_id not in self._hash_by_block:
                self._block_by_hash[block_hash] = block_id
                self._hash_by_block[block_id] = block_hash

    def deallocate(self, slot: int, hashes: BlockHashes) -> None:
        """Release the blocks of the slot, the first of which have these hashes.

        Blocks that it wrote beyond them are not cached.
        """
        self.register(slot, hashes)
        block_ids = self.block_tables[slot, : self.block_counts[slot]].tolist()
        for block_id in block_ids[max(len(hashes), self._shared[slot]) :]:
            self.evict(block_id)
        # Why from the end: a block without its prefix is of no use, so it is evicted first.
        for block_id in reversed(block_ids):
            self._references[block_id] -= 1
            if self._references[block_id] == 0:
                self._release(block_id)
        self.block_tables[slot] = NULL_BLOCK
        self.block_counts[slot] = self._shared[slot] = 0

    def evict(self, block_id: int) -> None:
        """Remove the block from the prefix cache."""
        block_hash = self._hash_by_block.pop(block_id, None)
        if block_hash is not None:
            del self._block_by_hash[block_hash]
        if block_id in self._cached:
            del self._cached[block_id]
            self._free_ids.append(block_id)

    def _allocate(self) -> int:
        if not self._free_ids:
            self.evict(next(iter(self._cached)))
        block_id = self._free_ids.popleft()
        self._references[block_id] = 1
        return block_id

    def _release(self, block_id: int) -> None:
        if block_id in self._hash_by_block:
            self._cached[block_id] = None
        else:
            self._free_ids.append(block_id)

    def check_integrity(self) -> None:
        """Raise AssertionError if a block is lost, held twice, or cached wrongly."""
        references = [0] * (self.num_blocks + 1)
        for slot, count in enumerate(self.block_counts.tolist()):
            block_ids = self.block_tables[slot, :count].tolist()
            assert NULL_BLOCK not in block_ids, "a sequence has the null block"
            assert (self.block_tables[slot, count:] == NULL_BLOCK).all()
            assert len(set(block_ids)) == count, "a block twice in one sequence"
            for block_id in block_ids:
                references[block_id] += 1
        assert references == self._references, "references miscounted"
        held = [block_id for block_id, count in enumerate(references) if count]
        everything = sorted([*held, *self._cached, *self._free_ids])
        assert everything == list(range(1, self.num_blocks + 1)), "blocks lost or doubled"
        assert {
            block_id: block_hash for block_hash, block_id in self._block_by_hash.items()
        } == self._hash_by_block
        assert self._cached.keys() <= self._hash_by_block.keys(), "a cached block without a hash"
        assert not self._hash_by_block.keys() & set(self._free_ids), "an uncached block with a hash"
