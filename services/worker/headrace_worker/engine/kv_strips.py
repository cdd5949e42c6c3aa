"""The keys and values of every slot, one strip of context per slot and layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Strip:
    """One layer's store: keys `(slots, heads, tokens, key_size)`, values alike."""

    keys: Tensor
    values: Tensor


class KvStrips:
    """Strips of `tokens` positions for each of `slots` slots.

    A layer's strip takes its shape from the first write: some architectures
    store keys and values of different sizes, which no configuration tells.
    What a slot in use holds beyond its sequence's length is always finite, so
    masked positions cannot poison a sum; `keep` sees to that.
    """

    def __init__(self, slots: int, tokens: int) -> None:
        self.slots, self.tokens = slots, tokens
        self._layers: dict[int, Strip] = {}
        self._written = np.zeros(slots, dtype=np.int64)

    def layer(self, index: int, key: Tensor, value: Tensor) -> Strip:
        """The strip of one layer; `key` and `value` are `(1, heads, any, size)`."""
        strip = self._layers.get(index)
        if strip is None:
            strip = Strip(self._empty(key), self._empty(value))
            self._layers[index] = strip
        return strip

    @property
    def layers(self) -> int:
        """Layers written so far."""
        return len(self._layers)

    @property
    def bytes_per_token(self) -> int:
        """What one position of one slot takes, over the layers written so far."""
        return sum(t.shape[1] * t.shape[3] * t.element_size() for t in self._stores())

    def resized(self, slots: int, tokens: int) -> KvStrips:
        """Empty strips for the same layers, reserved now rather than at the first write.

        Raises:
            MemoryError: the address space does not take them.
        """
        resized = KvStrips(slots, tokens)
        for index, strip in self._layers.items():
            resized.layer(index, strip.keys, strip.values)
        return resized

    def note(self, slots: Ints, ends: Ints) -> None:
        """A pass is about to write these slots, up to these positions."""
        self._written[slots] = np.maximum(self._written[slots], ends)

    def copy(self, source: int, slot: int, tokens: int) -> None:
        """Give a slot the first positions of another."""
        self.note(np.array([slot]), np.array([tokens]))
        for store in self._stores():
            store[slot, :, :tokens] = store[source, :, :tokens]

    def keep(self, slot: int, tokens: int) -> int:
        """Make a slot ready for use: forget all but its first positions, or these too.

        Returns how many are left: `tokens`, or none if one of them is not finite.
        """
        # Why at all: one NaN left behind would make every later sequence of the slot
        # NaN, for NaN * 0 is NaN even when masked.
        if tokens and not self._is_finite(slot, tokens):
            tokens = 0
        written = int(self._written[slot])
        for store in self._stores():
            store[slot, :, tokens:written] = 0
        self._written[slot] = tokens
        return tokens

    def _is_finite(self, slot: int, tokens: int) -> bool:
        # Why a sum: it meets every number and needs no memory.
        return all(bool(store[slot, :, :tokens].sum().isfinite()) for store in self._stores())

    def _stores(self) -> Iterator[Tensor]:
        for strip in self._layers.values():
            yield strip.keys
            yield strip.values

    def _empty(self, like: Tensor) -> Tensor:
        # Why not torch.zeros: it writes the zeros, so memory is committed for the
        # longest context in every slot. numpy's come untouched from the system.
        shape = (self.slots, like.shape[1], self.tokens, like.shape[3])
        octets = np.zeros(int(np.prod(shape)) * like.element_size(), dtype=np.uint8)
        return torch.from_numpy(octets).view(like.dtype).view(shape)
