"""Which slot holds which beginnings."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from headrace.prefixes import BlockHashes


class PrefixIndex:
    """What slots hold, whether a sequence is in them or has left them."""

    def __init__(self, slots: int) -> None:
        self._held: list[BlockHashes] = [[] for _ in range(slots)]
        self._holders: dict[bytes, set[int]] = {}
        self._uses = 0
        self._last_use = [0] * slots

    def set_blocks(self, slot: int, names: BlockHashes) -> None:
        """From now on the slot holds these blocks and no others."""
        self._touch(slot)
        for name in self._held[slot]:
            holders = self._holders[name]
            holders.discard(slot)
            if not holders:
                del self._holders[name]
        self._held[slot] = names
        for name in names:
            self._holders.setdefault(name, set()).add(slot)

    def longest_match(self, names: BlockHashes) -> tuple[int, list[int]]:
        """How many of these blocks any slot holds at most, and the slots that hold so many.

        They count as used.
        """
        count = 0
        while count < len(names) and names[count] in self._holders:
            count += 1
        holders = sorted(self._holders[names[count - 1]]) if count else []
        for slot in holders:
            self._touch(slot)
        return count, holders

    @property
    def cached_hashes(self) -> Collection[bytes]:
        """Of all blocks that any slot holds, beginnings before what follows on them."""
        return self._holders.keys()

    def choose_slot(self, free: Sequence[int], names: BlockHashes) -> int:
        """Choose a free slot for a text with these blocks.

        One that holds nothing but its beginning serves it and loses nothing. Else
        an empty one, the lowest; else the one that was not used for longest.
        """
        count, holders = self.longest_match(names)
        for slot in free:
            if slot in holders and len(self._held[slot]) == count:
                return slot
        return min(free, key=lambda slot: (bool(self._held[slot]), self._worth(slot), slot))

    def check_integrity(self) -> None:
        pairs = {(name, slot) for slot, names in enumerate(self._held) for name in names}
        assert pairs == {(n, slot) for n, slots in self._holders.items() for slot in slots}
        assert all(self._holders.values()), "a block that no slot holds"

    def _worth(self, slot: int) -> int:
        return self._last_use[slot] if self._held[slot] else 0

    def _touch(self, slot: int) -> None:
        self._uses += 1
        self._last_use[slot] = self._uses
