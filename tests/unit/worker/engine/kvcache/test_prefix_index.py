"""Block hashes, which slots hold which blocks, and which slot the next sequence gets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.prefixes import BLOCK_TOKENS, BlockHashes, block_hashes, root_hash
from headrace_worker.engine.kvcache.prefix_index import PrefixIndex

ROOT = root_hash("sha256:1")


def names(*tokens: int, root: bytes = ROOT) -> BlockHashes:
    """Of a text in which each of these tokens fills one block."""
    return block_hashes(np.repeat(np.array(tokens, dtype=np.int64), BLOCK_TOKENS), root)


def test_a_block_is_named_by_all_that_stands_before_it() -> None:
    assert names(1, 2, 3)[:2] == names(1, 2)
    assert names(1, 2, 3)[2] != names(4, 2, 3)[2]
    assert len({*names(1, 1, 1)}) == 3


def test_only_full_blocks_have_names() -> None:
    text = np.arange(2 * BLOCK_TOKENS, dtype=np.int64)
    assert len(block_hashes(text, ROOT)) == 2
    assert block_hashes(text[:-1], ROOT) == block_hashes(text, ROOT)[:1]
    assert block_hashes(text[:0], ROOT) == []


def test_other_weights_give_other_names() -> None:
    assert not {*names(1, 2)} & {*names(1, 2, root=root_hash("sha256:2"))}


def test_the_longest_prefix_is_found_with_all_slots_that_hold_it() -> None:
    index = PrefixIndex(4)
    index.set_blocks(0, names(1, 2, 3))
    index.set_blocks(1, names(1, 2))
    index.set_blocks(2, names(1, 9))
    assert index.longest_match(names(1, 2, 4)) == (2, [0, 1])
    assert index.longest_match(names(1, 2, 3, 4)) == (3, [0])
    assert index.longest_match(names(5)) == (0, [])


def test_a_slot_that_holds_only_the_prefix_is_reused() -> None:
    index = PrefixIndex(4)
    index.set_blocks(2, names(1, 2))
    assert index.choose_slot([0, 1, 2, 3], names(1, 2, 3)) == 2


def test_a_slot_that_holds_more_than_the_prefix_is_kept_while_another_was_used_less_recently() -> (
    None
):
    index = PrefixIndex(2)
    index.set_blocks(0, names(1, 2))
    assert index.choose_slot([0, 1], names(1, 3)) == 1
    index.set_blocks(1, names(7))
    assert index.choose_slot([0, 1], names(1, 3)) == 1, "the one that was of use is worth more"
    assert index.choose_slot([0], names(1, 3)) == 0


def test_empty_slots_go_first_and_the_lowest_of_them() -> None:
    index = PrefixIndex(4)
    index.set_blocks(0, names(1))
    index.set_blocks(2, [])
    assert index.choose_slot([0, 1, 2, 3], names(5)) == 1


def test_of_full_slots_the_one_longest_unused_goes_first() -> None:
    index = PrefixIndex(3)
    for slot in (1, 2, 0):
        index.set_blocks(slot, names(10 + slot))
    assert index.choose_slot([0, 1, 2], names(5)) == 1
    index.longest_match(names(11, 3))
    assert index.choose_slot([0, 1, 2], names(5)) == 2
    assert index.choose_slot([0, 1], names(5)) == 0


TEXTS = st.lists(st.integers(1, 2), max_size=5)


@given(st.lists(st.tuples(st.integers(0, 3), TEXTS), max_size=30), TEXTS)
def test_the_index_agrees_with_a_look_at_every_slot(
    held: list[tuple[int, list[int]]], requested: list[int]
) -> None:
    index, texts = PrefixIndex(4), {slot: list[int]() for slot in range(4)}
    for slot, text in held:
        index.set_blocks(slot, names(*text))
        texts[slot] = text
        index.check_integrity()
    shared = {slot: _common(text, requested) for slot, text in texts.items()}
    most = max(shared.values())
    holders = [slot for slot, count in shared.items() if count == most] if most else []
    assert index.longest_match(names(*requested)) == (most, holders)


def _common(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
