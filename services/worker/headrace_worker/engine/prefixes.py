"""Which slot holds which beginnings, in blocks that are named by all that stands before them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Names = list[bytes]
"""Of the blocks of one text, in order."""

BLOCK_TOKENS = 16
_NAME_BYTES = 16


def root_name(weights_digest: str) -> bytes:
    """What a text's first block follows on: keys and values of other weights are others."""
    return blake2b(weights_digest.encode(), digest_size=_NAME_BYTES).digest()


def adapted_root(root: bytes, adapter: str) -> bytes:
    """What follows on the weights of `root` changed by an adapter, by its digest; empty is none."""
    if not adapter:
        return root
    return blake2b(root + adapter.encode(), digest_size=_NAME_BYTES).digest()


def block_names(token_ids: Ints, root: bytes) -> Names:
    """Name the full blocks of a text; equal names, equal tokens from the very first on."""
    octets, size = token_ids.tobytes(), BLOCK_TOKENS * token_ids.itemsize
    names, name = [], root
    for at in range(0, len(octets) - size + 1, size):
        name = blake2b(name + octets[at : at + size], digest_size=_NAME_BYTES).digest()
        names.append(name)
    return names


class PrefixIndex:
    """What slots hold, whether a sequence is in them or has left them."""

    def __init__(self, slots: int) -> None:
        self._held: list[Names] = [[] for _ in range(slots)]
        self._holders: dict[bytes, set[int]] = {}
        self._uses = 0
        self._last_use = [0] * slots

    def hold(self, slot: int, names: Names) -> None:
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

    def longest(self, names: Names) -> tuple[int, list[int]]:
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

    def place(self, free: Sequence[int], names: Names) -> int:
        """Choose a free slot for a text with these blocks.

        One that holds nothing but its beginning serves it and loses nothing. Else
        an empty one, the lowest; else the one that was not used for longest.
        """
        count, holders = self.longest(names)
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
