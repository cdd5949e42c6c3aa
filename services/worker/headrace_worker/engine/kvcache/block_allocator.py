"""Whose pages are whose: tables, references, names, and what is given up when all are taken.

A page holds one block of a text. Texts that begin alike refer to the same pages. A
page that nobody refers to keeps its name until it is needed for something else; of
those, the one that was not used for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from headrace.prefixes import BLOCK_TOKENS, BlockHashes

Ints = NDArray[np.int64]

NULL_BLOCK = 0
"""A page that belongs to nobody: what must be written somewhere and is not kept goes there."""


def blocks_for(tokens: Ints | int) -> Ints:
    """Pages that so many tokens take."""
    return -(-np.asarray(tokens, dtype=np.int64) // BLOCK_TOKENS)


class BlockAllocator:
    """`pages` pages, numbered from 1, for `slots` texts of at most `blocks` blocks each."""

    def __init__(self, slots: int, blocks: int, pages: int) -> None:
        assert pages >= blocks, "one text alone must always fit"
        self.pages = pages
        self.block_tables: Ints = np.full((slots, blocks), NULL_BLOCK, dtype=np.int64)
        """The pages of each slot's blocks, in order; `NULL_BLOCK` where it has none."""
        self.block_counts: Ints = np.zeros(slots, dtype=np.int64)
        """How many each slot has."""
        self._found = [0] * slots
        """Of these, how many it came upon rather than wrote."""
        self._references = [0] * (pages + 1)
        self._unused = deque(range(1, pages + 1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Named pages that nobody refers to, the longest unused first."""
        self._page_of: dict[bytes, int] = {}
        self._name_of: dict[int, bytes] = {}

    @property
    def free(self) -> int:
        """Pages that nobody refers to, named or not."""
        return len(self._unused) + len(self._idle)

    def match_prefix(self, names: BlockHashes) -> list[int]:
        """The pages of the longest beginning that is here."""
        pages = []
        for name in names:
            if (page := self._page_of.get(name)) is None:
                break
            pages.append(page)
        return pages

    @property
    def cached_hashes(self) -> Collection[bytes]:
        """Of all blocks that are here, beginnings before what follows on them."""
        return self._page_of.keys()

    def free_after_fork(self, pages: list[int]) -> int:
        """What is free once somebody refers to these."""
        return self.free - sum(page in self._idle for page in pages)

    def fork(self, slot: int, pages: list[int]) -> None:
        """These are the first pages of a slot that has none."""
        assert self.block_counts[slot] == 0
        for page in pages:
            self._references[page] += 1
            self._idle.pop(page, None)
        self.block_tables[slot, : len(pages)] = pages
        self.block_counts[slot] = self._found[slot] = len(pages)

    def missing_blocks(self, slots: Ints, blocks: Ints) -> Ints:
        """How many more pages each slot needs to have so many."""
        missing: Ints = np.maximum(blocks - self.block_counts[slots], 0)
        return missing

    def append(self, slot: int, more: int) -> list[int]:
        """Give the slot so many more pages; there must be enough free."""
        taken = [self._take() for _ in range(more)]
        at = int(self.block_counts[slot])
        self.block_tables[slot, at : at + more] = taken
        self.block_counts[slot] += more
        return taken

    def register(self, slot: int, names: BlockHashes) -> None:
        """The slot's first pages hold these blocks, whole.

        A block that another page holds already keeps that page: one is enough.
        """
        for page, name in zip(self.block_tables[slot, : len(names)].tolist(), names, strict=True):
            if name not in self._page_of and page not in self._name_of:
                self._page_of[name], self._name_of[page] = page, name

    def deallocate(self, slot: int, names: BlockHashes) -> None:
        """Let go of the slot's pages, which hold these blocks.

        What it wrote beyond them is nobody's beginning any more.
        """
        self.register(slot, names)
        pages = self.block_tables[slot, : self.block_counts[slot]].tolist()
        for page in pages[max(len(names), self._found[slot]) :]:
            self.evict(page)
        # Why from the end: an end without its beginning is of no use, so it goes first.
        for page in reversed(pages):
            self._references[page] -= 1
            if self._references[page] == 0:
                self._put_back(page)
        self.block_tables[slot] = NULL_BLOCK
        self.block_counts[slot] = self._found[slot] = 0

    def evict(self, page: int) -> None:
        """Nobody shall begin with this page again."""
        name = self._name_of.pop(page, None)
        if name is not None:
            del self._page_of[name]
        if page in self._idle:
            del self._idle[page]
            self._unused.append(page)

    def _take(self) -> int:
        if not self._unused:
            self.evict(next(iter(self._idle)))
        page = self._unused.popleft()
        self._references[page] = 1
        return page

    def _put_back(self, page: int) -> None:
        if page in self._name_of:
            self._idle[page] = None
        else:
            self._unused.append(page)

    def check_integrity(self) -> None:
        """Raise AssertionError if a page is lost, held twice, or named wrongly."""
        references = [0] * (self.pages + 1)
        for slot, count in enumerate(self.block_counts.tolist()):
            pages = self.block_tables[slot, :count].tolist()
            assert NULL_BLOCK not in pages, "a text in the trash"
            assert (self.block_tables[slot, count:] == NULL_BLOCK).all()
            assert len(set(pages)) == count, "a page twice in one text"
            for page in pages:
                references[page] += 1
        assert references == self._references, "references miscounted"
        held = [page for page, count in enumerate(references) if count]
        everything = sorted([*held, *self._idle, *self._unused])
        assert everything == list(range(1, self.pages + 1)), "pages lost or doubled"
        assert {page: name for name, page in self._page_of.items()} == self._name_of
        assert self._idle.keys() <= self._name_of.keys(), "a page is kept for nothing"
        assert not self._name_of.keys() & set(self._unused), "a page is named and unused"
