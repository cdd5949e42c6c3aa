"""The keys and values of every slot, one strip of context per slot and layer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.prefixes import BLOCK_TOKENS, Names
from headrace_worker.engine.base.memory import untouched
from headrace_worker.engine.base.model_runner import Decode, Prefill
from headrace_worker.engine.kvcache.contiguous_rows import ChunkRows, DecodeRows
from headrace_worker.engine.kvcache.kv_cache import Context, Layer
from headrace_worker.engine.kvcache.prefix_index import PrefixIndex

Ints = NDArray[np.int64]


class KvStrips:
    """Strips of `tokens` positions for each of `slots` slots.

    A slot keeps what it held until another text enters it, and texts that begin
    alike copy from it. `_keep` sees to it that what lies beyond a text is finite,
    so masked positions cannot poison a sum.
    """

    room = None

    def __init__(self, slots: int, tokens: int) -> None:
        self.slots, self.tokens = slots, tokens
        self._layers: dict[int, Layer] = {}
        self._written = np.zeros(slots, dtype=np.int64)
        self._index = PrefixIndex(slots)
        self._placed: dict[int, Context] = {}
        """Texts that have not entered yet."""
        self._entered: dict[int, Context] = {}

    def layer(self, index: int, key: Tensor, value: Tensor) -> Layer:
        strip = self._layers.get(index)
        if strip is None:
            strip = Layer(self._empty(key), self._empty(value))
            self._layers[index] = strip
        return strip

    @property
    def layers(self) -> int:
        return len(self._layers)

    @property
    def bytes_per_token(self) -> int:
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

    def decode_rows(self, decode: Decode) -> DecodeRows:
        self.reserve(decode.slots, decode.positions + 1)
        return DecodeRows(decode.slots, decode.positions)

    def chunk_rows(self, prefill: Prefill, row: int) -> ChunkRows:
        end = prefill.start + len(prefill.token_ids)
        self.reserve(np.array([prefill.slot]), np.array([end]))
        return ChunkRows(prefill.slot, start=prefill.start, row=row, count=len(prefill.token_ids))

    def place(self, free: Sequence[int], context: Context) -> int:
        slot = self._index.place(free, context.sharable)
        self._placed[slot] = context
        return slot

    def enter(self, slot: int, *, spare_tokens: int = 0) -> int:
        context = self._placed.pop(slot)
        blocks, holders = self._index.longest(context.sharable)
        if blocks and slot not in holders:
            self._copy(holders[0], slot, blocks * BLOCK_TOKENS)
        tokens = self._keep(slot, blocks * BLOCK_TOKENS)
        if blocks and not tokens:
            for holder in holders:
                self._index.hold(holder, [])
        self._entered[slot] = context
        self.wrote(slot, tokens)
        return tokens

    def reserve(self, slots: Ints, ends: Ints) -> bool:
        self._written[slots] = np.maximum(self._written[slots], ends)
        return True

    def wrote(self, slot: int, tokens: int) -> None:
        if slot in self._entered:
            self._index.hold(slot, self._entered[slot].names[: tokens // BLOCK_TOKENS])

    def leave(self, slot: int, names: Names) -> None:
        if self._placed.pop(slot, None) is None:
            del self._entered[slot]
            self._index.hold(slot, names)

    @property
    def names(self) -> Collection[bytes]:
        return self._index.names

    def check_integrity(self, free: Sequence[int]) -> None:
        self._index.check_integrity()
        held = self._placed.keys() | self._entered.keys()
        assert held.isdisjoint(free), "a context that no sequence has"

    def _copy(self, source: int, slot: int, tokens: int) -> None:
        """Give a slot the first positions of another."""
        self.reserve(np.array([slot]), np.array([tokens]))
        for store in self._stores():
            store[slot, :, :tokens] = store[source, :, :tokens]

    def _keep(self, slot: int, tokens: int) -> int:
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
        # Why a sum: it meets every number and needs no memory. Why float32: in float16 that of
        # sound ones overflows.
        sums = (s[slot, :, :tokens].sum(dtype=torch.float32) for s in self._stores())
        return all(bool(total.isfinite()) for total in sums)

    def _stores(self) -> Iterator[Tensor]:
        for strip in self._layers.values():
            yield strip.keys
            yield strip.values

    def _empty(self, like: Tensor) -> Tensor:
        shape = (self.slots, like.shape[1], self.tokens, like.shape[3])
        return untouched(shape, like.dtype)
