"""Pages: shared by texts that begin alike, kept while nobody needs their place, never lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.prefixes import BLOCK_TOKENS, BlockHashes, block_hashes, root_hash
from headrace_worker.engine.kvcache.block_allocator import BlockAllocator, blocks_for

ROOT = root_hash("sha256:1")


def names(*tokens: int) -> BlockHashes:
    """Of a text in which each of these tokens fills one block."""
    return block_hashes(np.repeat(np.array(tokens, dtype=np.int64), BLOCK_TOKENS), ROOT)


def written(book: BlockAllocator, slot: int, text: BlockHashes) -> None:
    """A text enters, shares what is known, and is written to its end."""
    known = book.match_prefix(text)
    book.fork(slot, known)
    book.append(slot, len(text) - len(known))
    book.register(slot, text)


def test_a_text_takes_a_page_for_every_block_begun() -> None:
    assert blocks_for(np.array([0, 1, 16, 17])).tolist() == [0, 1, 1, 2]


def test_texts_that_begin_alike_refer_to_the_same_pages() -> None:
    book = BlockAllocator(slots=2, blocks=4, pages=8)
    written(book, 0, names(1, 2, 3))
    written(book, 1, names(1, 2, 4))
    assert book.block_tables[0, :2].tolist() == book.block_tables[1, :2].tolist()
    assert book.free == 8 - 4
    book.deallocate(0, names(1, 2, 3))
    assert book.free == 8 - 3
    book.check_integrity()


def test_what_a_text_left_is_known_until_its_pages_are_needed() -> None:
    book = BlockAllocator(slots=2, blocks=4, pages=4)
    written(book, 0, names(1, 2))
    book.deallocate(0, names(1, 2))
    assert (len(book.match_prefix(names(1, 2))), book.free) == (2, 4)
    written(book, 1, names(7, 8, 9))
    assert len(book.match_prefix(names(1, 2))) == 1, "its end goes before its beginning"
    book.check_integrity()


def test_of_two_texts_the_one_not_used_for_longest_goes_first() -> None:
    book = BlockAllocator(slots=1, blocks=2, pages=3)
    for token in (1, 2, 1, 3, 4):
        written(book, 0, names(token))
        book.deallocate(0, names(token))
    assert [len(book.match_prefix(names(token))) for token in (1, 2, 3, 4)] == [1, 0, 1, 1]


def test_what_cannot_be_trusted_is_nobodys_beginning() -> None:
    book = BlockAllocator(slots=2, blocks=3, pages=6)
    written(book, 0, names(1))
    written(book, 1, names(1, 2))
    book.deallocate(1, [])
    assert len(book.match_prefix(names(1, 2))) == 1, "what it found is not its own doing"
    book.deallocate(0, [])
    assert book.match_prefix(names(1)) == []
    book.check_integrity()


TEXTS = st.lists(st.integers(1, 3), min_size=1, max_size=4)
EVENTS = st.tuples(st.integers(0, 2), TEXTS, st.booleans())


@settings(max_examples=200, deadline=None)
@given(events=st.lists(EVENTS, max_size=30), pages=st.integers(4, 12))
def test_no_history_loses_a_page_or_gives_one_to_two_texts(
    events: list[tuple[int, list[int], bool]], pages: int
) -> None:
    book = BlockAllocator(slots=3, blocks=4, pages=pages)
    held: dict[int, BlockHashes] = {}
    writer: dict[int, bytes] = {}
    for slot, tokens, sound in events:
        text = names(*tokens)
        if slot in held:
            left = held.pop(slot)
            book.deallocate(slot, left if sound else [])
        known = book.match_prefix(text)
        if len(text) - len(known) <= book.free_after_fork(known):
            for page, name in zip(known, text, strict=False):
                assert writer[page] == name, "known by a name it was not written under"
            written(book, slot, text)
            writer |= zip(book.block_tables[slot, : len(text)].tolist(), text, strict=True)
            held[slot] = text
        book.check_integrity()
        for other, blocks in held.items():
            pages_of = book.block_tables[other, : len(blocks)].tolist()
            assert [writer[page] for page in pages_of] == blocks
