"""Sample the next token of every row on the host.

In transformers' order: bias, repetition, presence and frequency penalties, token masks, the
grammar's mask, temperature, top-k, top-p, min-p, typical; then the draw. Which tokens survive is
decided by value, ties included, and every sum runs over one row in one order, so a row never
depends on the rows beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.sampling import PARAMETERS
from headrace_worker.engine.base.interface import SamplingParameters
from headrace_worker.engine.sampling.noise import Words, exponentials, noise_bits, seed_key
from headrace_worker.engine.sampling.typical import keep_typical

Ints = NDArray[np.int64]

_FIRST_LOOK = 64
"""Candidates considered first, if top-p alone bounds the survivors."""
_BLOCK = 1 << 16
"""Random numbers drawn at once if every token survives; more would not fit the CPU cache."""


_FLOAT32, _FLOAT64 = {"dtype": torch.float32}, {"dtype": torch.float64}
_INT64 = {"dtype": torch.int64}


@dataclass(frozen=True, slots=True)
class SamplingColumns:
    """Those of `headrace.sampling`'s parameters that cut a distribution, and what keys the noise.

    All are columns `(rows,)`.
    """

    temperature: Tensor = field(metadata=_FLOAT32)
    """Above 0 on the host; on a device 0 is greedy."""
    top_k: Tensor = field(metadata=_INT64)
    top_p: Tensor = field(metadata=_FLOAT64)
    min_p: Tensor = field(metadata=_FLOAT32)
    typical_p: Tensor = field(metadata=_FLOAT64)
    seed_keys: Tensor = field(metadata=_INT64)
    """The bits of `noise.seed_key`."""

    @classmethod
    def neutral(cls, rows: int, device: torch.device | str = "cpu") -> SamplingColumns:
        """Return rows that change nothing; a column without a parameter has zeros."""
        columns = {}
        for each in fields(cls):
            value = PARAMETERS[each.name].neutral if each.name in PARAMETERS else 0
            dtype = each.metadata["dtype"]
            columns[each.name] = torch.full((rows,), value, dtype=dtype, device=device)
        return cls(**columns)

    def set(self, row: int, parameters: SamplingParameters, seed: int) -> None:
        for each in fields(self):
            if each.name in PARAMETERS:
                getattr(self, each.name)[row] = getattr(parameters, each.name)
        # As a signed number: torch has no arithmetic with unsigned ones.
        self.seed_keys[row] = int(np.uint64(seed_key(seed)).view(np.int64))

    def __getitem__(self, rows: Tensor) -> SamplingColumns:
        return SamplingColumns(*(getattr(self, each.name)[rows] for each in fields(self)))


def argmax(logits: Tensor) -> tuple[Ints, NDArray[np.bool_]]:
    """Return each row's highest token, the lowest id on a tie, and whether its logit is finite.

    It is not for a row with a NaN anywhere, or with plus infinity.
    """
    # Why numpy: its argmax is ten times as fast as torch's on a CPU.
    array = logits.numpy()
    tokens = array.argmax(axis=-1)
    return tokens, np.isfinite(array[np.arange(len(array)), tokens])


def sample(logits: Tensor, columns: SamplingColumns, indices: Ints) -> Ints:
    """Sample a token for each row of `(rows, vocabulary)`; returns `(rows,)`.

    `indices` are the rows' output indices.
    """
    scaled = torch.sub(logits, logits.amax(dim=-1, keepdim=True)).div_(columns.temperature[:, None])
    bounded = ((columns.top_k > 0) | (columns.top_p < 1)).numpy()
    if bounded.all():
        return _sample_bounded(scaled, columns, indices)
    if not bounded.any():
        return _sample_unbounded(scaled, columns, indices)
    token_ids = np.empty(len(bounded), dtype=np.int64)
    for rows, sample_some in ((bounded, _sample_bounded), (~bounded, _sample_unbounded)):
        at = torch.from_numpy(rows)
        token_ids[rows] = sample_some(scaled[at], columns[at], indices[rows])
    return token_ids


def _sample_bounded(scaled: Tensor, columns: SamplingColumns, indices: Ints) -> Ints:
    """Sample among the survivors of top-k, top-p and min-p, found without sorting all tokens."""
    vocabulary = scaled.shape[-1]
    look = max(_FIRST_LOOK, int(columns.top_k.max()) + 1)
    totals = scaled.exp().sum(dim=-1, keepdim=True, dtype=torch.float64)
    while True:
        values, token_ids = scaled.topk(min(look, vocabulary), dim=-1)
        floor = _lowest_survivor(values, totals, columns)
        # Only a floor above the lowest candidate proves that no survivor was missed; below
        # minus infinity, where a grammar's mask has left fewer tokens than that, there is none.
        lowest = values[:, -1:]
        if look >= vocabulary or bool(((lowest < floor) | lowest.isneginf()).all()):
            break
        look *= 8
    weights = values.masked_fill(values < floor, float("-inf")).exp()
    weights = _apply_typical_p(weights, columns.typical_p)
    candidates = token_ids.numpy()
    winners = _exponential_race(weights, columns.seed_keys, indices, candidates.view(np.uint64))
    return candidates[np.arange(len(candidates)), winners]


def _lowest_survivor(values: Tensor, totals: Tensor, columns: SamplingColumns) -> Tensor:
    """Return the lowest value that survives in each row: `(rows, 1)`.

    `values` are the highest of each row, descending; `totals` sums the exponentials of the whole
    row. The result is never too high, and too low only if candidates are missing.
    """
    most = values.shape[-1]
    top_k = torch.where(columns.top_k > 0, columns.top_k, most).clamp(max=most)
    floor = values.gather(1, top_k[:, None] - 1)
    weights = values.masked_fill(values < floor, float("-inf")).exp().double()
    # Why cumsum and not sum: it adds in one order whatever the number of candidates is.
    running = weights.cumsum(dim=-1)
    totals = torch.where(columns.top_k[:, None] > 0, running[:, -1:], totals)
    survives = (running - weights < columns.top_p[:, None] * totals) | (columns.top_p[:, None] >= 1)
    survives[:, 0] = True
    lowest = values.masked_fill(~survives, float("inf")).amin(dim=-1, keepdim=True)
    return torch.maximum(torch.maximum(floor, lowest), columns.min_p.log()[:, None])


def _sample_unbounded(scaled: Tensor, columns: SamplingColumns, indices: Ints) -> Ints:
    """Sample among all tokens but those below min-p."""
    if bool((columns.min_p > 0).any()):
        scaled = scaled.masked_fill(scaled < columns.min_p.log()[:, None], float("-inf"))
    weights = _apply_typical_p(scaled.exp(), columns.typical_p)
    token_ids = np.arange(scaled.shape[-1], dtype=np.uint64)
    rows = max(1, _BLOCK // len(token_ids))
    blocks = [slice(at, at + rows) for at in range(0, len(weights), rows)]
    keys = columns.seed_keys
    return np.concatenate(
        [_exponential_race(weights[b], keys[b], indices[b], token_ids) for b in blocks]
    )


def _apply_typical_p(weights: Tensor, typical_p: Tensor) -> Tensor:
    return weights if bool((typical_p >= 1).all()) else keep_typical(weights, typical_p)


def _exponential_race(weights: Tensor, seed_keys: Tensor, indices: Ints, token_ids: Words) -> Ints:
    """Return the column that wins each row: a keyed exponential time over its weight, the shortest
    wins.

    The winner is distributed as the weights are. This is Gumbel-max with one logarithm less.
    """
    keys = seed_keys.numpy().view(np.uint64)
    speeds = weights.numpy() / exponentials(noise_bits(keys, indices.view(np.uint64), token_ids))
    winners: Ints = speeds.argmax(axis=-1)
    return winners
