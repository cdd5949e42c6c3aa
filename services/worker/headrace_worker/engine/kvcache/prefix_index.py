"""The prefix cache of the contiguous cache: which slot holds which blocks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from headrace.prefixes import BlockHashes


class PrefixIndex:
    """Blocks that slots hold, during a sequence and after it."""

    def __init__(self, slots: int) -> None:
        self._held: list[BlockHashes] = [[] for _ in range(slots)]
        self._slots_by_hash: dict[bytes, set[int]] = {}
        self._uses = 0
        self._last_use = [0] * slots

    def set_blocks(self, slot: int, hashes: BlockHashes) -> None:
        """From now on the slot holds these blocks and no others."""
        self._touch(slot)
        for block_hash in self._held[slot]:
            holders = self._slots_by_hash[block_hash]
            holders.discard(slot)
            if not holders:
                del self._slots_by_hash[block_hash]
        self._held[slot] = hashes
        for block_hash in hashes:
            self._slots_by_hash.setdefault(block_hash, set()).add(slot)

    def longest_match(self, hashes: BlockHashes) -> tuple[int, list[int]]:
        """Return the length of the longest cached prefix and the slots that hold it; both count as
        used."""
        count = 0
        while count < len(hashes) and hashes[count] in self._slots_by_hash:
            count += 1
        holders = sorted(self._slots_by_hash[hashes[count - 1]]) if count else []
        for slot in holders:
            self._touch(slot)
        return count, holders

    @property
    def cached_hashes(self) -> Collection[bytes]:
        """Hashes of all blocks that any slot holds; a prefix comes before what follows it."""
        return self._slots_by_hash.keys()

    def choose_slot(self, free: Sequence[int], hashes: BlockHashes) -> int:
        """Choose a free slot for a sequence with these blocks.

        Prefer a slot that holds nothing but the prefix; then an empty slot, the lowest; then the
        least recently used.
        """
        count, holders = self.longest_match(hashes)
        for slot in free:
            if slot in holders and len(self._held[slot]) == count:
                return slot
        return min(free, key=lambda slot: (self._last_use[slot] if self._held[slot] else 0, slot))

    def check_integrity(self) -> None:
        pairs = {
            (block_hash, slot) for slot, hashes in enumerate(self._held) for block_hash in hashes
        }
        assert pairs == {(n, slot) for n, slots in self._slots_by_hash.items() for slot in slots}
        assert all(self._slots_by_hash.values()), "a block that no slot holds"

    def _touch(self, slot: int) -> None:
        self._uses += 1
        self._last_use[slot] = self._uses
