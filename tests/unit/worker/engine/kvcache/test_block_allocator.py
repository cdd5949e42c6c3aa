"""Blocks: shared by sequences with one prefix, cached until they are needed, never lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.prefixes import BLOCK_TOKENS, BlockHashes, block_hashes, root_hash
from headrace_worker.engine.kvcache.block_allocator import BlockAllocator, blocks_for

ROOT = root_hash("sha256:1")


def hashes(*tokens: int) -> BlockHashes:
    """Of a text in which each of these tokens fills one block."""
    return block_hashes(np.repeat(np.array(tokens, dtype=np.int64), BLOCK_TOKENS), ROOT)


def written(allocator: BlockAllocator, slot: int, text: BlockHashes) -> None:
    """A text enters, shares what is cached, and is written to its end."""
    cached = allocator.match_prefix(text)
    allocator.fork(slot, cached)
    allocator.append(slot, len(text) - len(cached))
    allocator.register(slot, text)


def test_a_sequence_takes_a_block_for_every_block_begun() -> None:
    assert blocks_for(np.array([0, 1, 16, 17])).tolist() == [0, 1, 1, 2]


def test_sequences_that_share_a_prefix_use_the_same_blocks() -> None:
    allocator = BlockAllocator(slots=2, max_blocks=4, num_blocks=8)
    written(allocator, 0, hashes(1, 2, 3))
    written(allocator, 1, hashes(1, 2, 4))
    assert allocator.block_tables[0, :2].tolist() == allocator.block_tables[1, :2].tolist()
    assert allocator.free == 8 - 4
    allocator.deallocate(0, hashes(1, 2, 3))
    assert allocator.free == 8 - 3
    allocator.check_integrity()


def test_what_a_sequence_left_is_known_until_its_blocks_are_needed() -> None:
    allocator = BlockAllocator(slots=2, max_blocks=4, num_blocks=4)
    written(allocator, 0, hashes(1, 2))
    allocator.deallocate(0, hashes(1, 2))
    assert (len(allocator.match_prefix(hashes(1, 2))), allocator.free) == (2, 4)
    written(allocator, 1, hashes(7, 8, 9))
    assert len(allocator.match_prefix(hashes(1, 2))) == 1, "its end goes before its beginning"
    allocator.check_integrity()


def test_of_two_sequences_the_one_not_used_for_longest_goes_first() -> None:
    allocator = BlockAllocator(slots=1, max_blocks=2, num_blocks=3)
    for token in (1, 2, 1, 3, 4):
        written(allocator, 0, hashes(token))
        allocator.deallocate(0, hashes(token))
    assert [len(allocator.match_prefix(hashes(token))) for token in (1, 2, 3, 4)] == [1, 0, 1, 1]


def test_blocks_that_cannot_be_trusted_are_not_cached() -> None:
    allocator = BlockAllocator(slots=2, max_blocks=3, num_blocks=6)
    written(allocator, 0, hashes(1))
    written(allocator, 1, hashes(1, 2))
    allocator.deallocate(1, [])
    assert len(allocator.match_prefix(hashes(1, 2))) == 1, "what it found is not its own doing"
    allocator.deallocate(0, [])
    assert allocator.match_prefix(hashes(1)) == []
    allocator.check_integrity()


TEXTS = st.lists(st.integers(1, 3), min_size=1, max_size=4)
EVENTS = st.tuples(st.integers(0, 2), TEXTS, st.booleans())


@settings(max_examples=200, deadline=None)
@given(events=st.lists(EVENTS, max_size=30), num_blocks=st.integers(4, 12))
def test_no_history_loses_a_block_or_gives_one_to_two_sequences(
    events: list[tuple[int, list[int], bool]], num_blocks: int
) -> None:
    allocator = BlockAllocator(slots=3, max_blocks=4, num_blocks=num_blocks)
    held: dict[int, BlockHashes] = {}
    writer: dict[int, bytes] = {}
    for slot, tokens, trusted in events:
        text = hashes(*tokens)
        if slot in held:
            left = held.pop(slot)
            allocator.deallocate(slot, left if trusted else [])
        cached = allocator.match_prefix(text)
        if len(text) - len(cached) <= allocator.free_after_fork(cached):
            for block, name in zip(cached, text, strict=False):
                assert writer[block] == name, "cached by a name it was not written under"
            written(allocator, slot, text)
            writer |= zip(allocator.block_tables[slot, : len(text)].tolist(), text, strict=True)
            held[slot] = text
        allocator.check_integrity()
        for other, blocks in held.items():
            block_ids = allocator.block_tables[other, : len(blocks)].tolist()
            assert [writer[block] for block in block_ids] == blocks
