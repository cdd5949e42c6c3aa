"""One forward pass over a packed row, for models whose attention can be taken over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headrace_worker.engine.attention import StepAttention, attending
from headrace_worker.engine.forward import Decode, Ints, Prefill
from headrace_worker.engine.kv_strips import KvStrips
from headrace_worker.engine.packed_rows import ChunkRows, DecodeRows
from headrace_worker.engine.prefixes import BLOCK_TOKENS, Names, PrefixIndex, block_names


class PackedForward:
    """A model whose attention is `headrace_packed`, with the strips it writes to.

    Running the same step again writes the same keys to the same places. A slot
    keeps what it held until another sequence enters it, and sequences that begin
    alike copy from it.
    """

    chunks_prompts = True

    def __init__(
        self, model: PreTrainedModel, strips: KvStrips, *, prefix_root: bytes | None = None
    ) -> None:
        """`prefix_root` is what `root_name` makes; without it no beginning is shared."""
        self._model, self._strips, self._root = model, strips, prefix_root
        self._index = PrefixIndex(strips.slots)
        self._placed: dict[int, tuple[Names, int]] = {}
        """Contexts that have not entered yet: their names, and how many of them may be copied."""
        self._names: dict[int, Names] = {}
        """Of the contexts that have."""

    @property
    def shares_prefixes(self) -> bool:
        return self._root is not None

    def place(self, free: Sequence[int], token_ids: Ints) -> int:
        names = self._name(token_ids)
        # The last token needs a pass whatever is known: its logits are wanted.
        useful = (len(token_ids) - 1) // BLOCK_TOKENS
        slot = self._index.place(free, names[:useful])
        self._placed[slot] = names, useful
        return slot

    def enter(self, slot: int) -> int:
        names, useful = self._placed.pop(slot)
        blocks, holders = self._index.longest(names[:useful])
        if blocks and slot not in holders:
            self._strips.copy(holders[0], slot, blocks * BLOCK_TOKENS)
        tokens = self._strips.keep(slot, blocks * BLOCK_TOKENS)
        if blocks and not tokens:
            for holder in holders:
                self._index.hold(holder, [])
        self._names[slot] = names
        self._grow(slot, tokens)
        return tokens

    def run(self, decode: Decode, prefills: Sequence[Prefill]) -> Tensor:
        ids, positions, keep, chunks = _pack(decode, prefills)
        rows = DecodeRows(decode.slots, decode.positions) if len(decode.slots) else None
        attention = StepAttention(self._strips, rows, chunks)
        self._strips.note(decode.slots, decode.positions + 1)
        ends = [(chunk.slot, chunk.positions.stop) for chunk in chunks]
        self._strips.note(*np.array(ends, dtype=np.int64).reshape(-1, 2).T)
        with attending(attention):
            output = self._model(
                input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=keep
            )
        if not attention.calls:
            raise RuntimeError("the model does not use the attention it was given")
        for slot, end in ends:
            self._grow(slot, end)
        return cast(Tensor, output.logits)[0].float()

    def leave(self, slot: int, token_ids: Ints) -> None:
        # One that never entered leaves what was there before it.
        if self._placed.pop(slot, None) is None:
            del self._names[slot]
            self._index.hold(slot, self._name(token_ids))

    def check_integrity(self, free: Sequence[int]) -> None:
        self._index.check_integrity()
        held = self._placed.keys() | self._names.keys()
        assert held.isdisjoint(free), "a context that no sequence has"

    def _name(self, token_ids: Ints) -> Names:
        return [] if self._root is None else block_names(token_ids, self._root)

    def _grow(self, slot: int, tokens: int) -> None:
        """The slot holds so much of its context now."""
        if slot in self._names:
            self._index.hold(slot, self._names[slot][: tokens // BLOCK_TOKENS])


def _pack(
    decode: Decode, prefills: Sequence[Prefill]
) -> tuple[Tensor, Tensor, Tensor, tuple[ChunkRows, ...]]:
    """Lay the step out: token ids and positions `(1, rows)`, rows whose logits are kept, chunks."""
    row = len(decode.slots)
    ids, positions = [decode.token_ids], [decode.positions]
    keep = list(range(row))
    chunks = []
    for prefill in prefills:
        count = len(prefill.token_ids)
        chunks.append(ChunkRows(prefill.slot, start=prefill.start, row=row, count=count))
        ids.append(prefill.token_ids)
        positions.append(np.arange(prefill.start, prefill.start + count))
        row += count
        if prefill.completes:
            keep.append(row - 1)
    return (
        torch.from_numpy(np.concatenate(ids))[None],
        torch.from_numpy(np.concatenate(positions))[None],
        torch.tensor(keep, dtype=torch.int64),
        tuple(chunks),
    )
