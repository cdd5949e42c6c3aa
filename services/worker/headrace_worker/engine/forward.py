"""One forward pass over a packed row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from headrace_worker.engine.attention import StepAttention, attending
from headrace_worker.engine.kv_strips import KvStrips
from headrace_worker.engine.packed_rows import ChunkRows, DecodeRows

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Prefill:
    """The next tokens of one slot's prompt, which stand from `start` on."""

    slot: int
    start: int
    token_ids: Ints
    completes: bool
    """Whether the prompt ends here, so the last token's logits are wanted."""


@dataclass(frozen=True, slots=True)
class Decode:
    """One token for each of some slots, in columns, slots ascending."""

    slots: Ints
    token_ids: Ints
    positions: Ints


class PackedForward:
    """A model whose attention is `headrace_packed`, with the strips it writes to.

    Not reentrant; the caller holds `torch.inference_mode`.
    """

    def __init__(self, model: PreTrainedModel, strips: KvStrips) -> None:
        self._model, self.strips = model, strips

    def run(self, decode: Decode, prefills: Sequence[Prefill]) -> Tensor:
        """Return the logits of the decode rows, then of the prefills that complete.

        Shape `(rows, vocabulary)`, float32, the caller's to change. Running the
        same step again is harmless: it writes the same keys to the same places.
        """
        ids, positions, keep, chunks = _pack(decode, prefills)
        rows = DecodeRows(decode.slots, decode.positions) if len(decode.slots) else None
        attention = StepAttention(self.strips, rows, chunks)
        with attending(attention):
            output = self._model(
                input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=keep
            )
        if not attention.calls:
            raise RuntimeError("the model does not use the attention it was given")
        return cast(Tensor, output.logits)[0].float()


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
