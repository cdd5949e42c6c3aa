"""The keys and values of every slot, one strip of context per slot and layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Strip:
    """One layer's store: keys `(slots, heads, tokens, key_size)`, values alike."""

    keys: Tensor
    values: Tensor


class KvStrips:
    """Strips of `tokens` positions for each of `slots` slots.

    A layer's strip takes its shape from the first write: some architectures
    store keys and values of different sizes, which no configuration tells.
    What a slot holds beyond its sequence's length is always finite, so masked
    positions cannot poison a sum.
    """

    def __init__(self, slots: int, tokens: int) -> None:
        self.slots, self.tokens = slots, tokens
        self._layers: dict[int, Strip] = {}

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
        tensors = [
            tensor for strip in self._layers.values() for tensor in (strip.keys, strip.values)
        ]
        return sum(t.shape[1] * t.shape[3] * t.element_size() for t in tensors)

    def resized(self, slots: int, tokens: int) -> KvStrips:
        """Empty strips for the same layers, reserved now rather than at the first write.

        Raises:
            MemoryError: the address space does not take them.
        """
        resized = KvStrips(slots, tokens)
        for index, strip in self._layers.items():
            resized.layer(index, strip.keys, strip.values)
        return resized

    def clear(self, slot: int, tokens: int) -> None:
        """Forget the first `tokens` positions of a slot."""
        # Why always, and not only after a failure: one NaN left behind would make
        # every later sequence of the slot NaN, for NaN * 0 is NaN even when masked.
        for strip in self._layers.values():
            strip.keys[slot, :, :tokens] = 0
            strip.values[slot, :, :tokens] = 0

    def _empty(self, like: Tensor) -> Tensor:
        # Why not torch.zeros: it writes the zeros, so memory is committed for the
        # longest context in every slot. numpy's come untouched from the system.
        shape = (self.slots, like.shape[1], self.tokens, like.shape[3])
        octets = np.zeros(int(np.prod(shape)) * like.element_size(), dtype=np.uint8)
        return torch.from_numpy(octets).view(like.dtype).view(shape)
