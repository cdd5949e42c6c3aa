"""Sample the tokens of a step, each row by the parameters of its sequence."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.logprobs import Logprobs
from headrace_worker.engine.base.interface import Sequence
from headrace_worker.engine.grammar.slot_grammars import SlotGrammars
from headrace_worker.engine.sampling.host_sampling import (
    SamplingColumns,
    argmax,
    sample,
)
from headrace_worker.engine.sampling.logprobs import row_logprobs
from headrace_worker.engine.sampling.penalties import Penalties
from headrace_worker.engine.sampling.token_masks import TokenMasks

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """By row: the token, and whether the highest logit was finite."""

    token_ids: list[int]
    finite: list[bool]
    logprobs: dict[int, Logprobs] = field(default_factory=dict)
    """By row, of those that want logprobs."""
    dead_ends: frozenset[int] = frozenset()
    """Rows whose masks left no token."""


_NONE = -1
"""Width of slots that want no logprobs."""


class Sampler:
    """Sampling parameters in columns by slot: a step gathers them without reading sequences."""

    def __init__(
        self, slots: int, vocabulary_size: int, grammars: SlotGrammars | None = None
    ) -> None:
        self._grammars = grammars
        self._penalties = Penalties(slots, vocabulary_size)
        self._masks = TokenMasks(vocabulary_size)
        self._sampled = np.zeros(slots, dtype=bool)
        self._columns = SamplingColumns.neutral(slots)
        self._widths = np.full(slots, _NONE)

    def admit(
        self, slot: int, sequence: Sequence, end_token_ids: frozenset[int] = frozenset()
    ) -> None:
        """`end_token_ids` end the sequence."""
        parameters = sequence.parameters
        self._penalties.admit(slot, sequence)
        self._masks.admit(slot, sequence, end_token_ids)
        self._widths[slot] = _NONE if parameters.logprobs is None else parameters.logprobs
        self._sampled[slot] = parameters.temperature > 0
        if parameters.temperature > 0:
            self._columns.set(slot, parameters, sequence.seed)

    def release(self, slot: int) -> None:
        self._penalties.release(slot)
        self._masks.release(slot)
        self._sampled[slot] = False
        self._widths[slot] = _NONE

    @property
    def only_samples(self) -> bool:
        """Whether no sequence needs penalties, masks or logprobs, which only the host computes."""
        untouched = self._penalties.is_empty and self._masks.is_empty
        return untouched and bool((self._widths == _NONE).all())

    def sample(self, logits: Tensor, slots: Ints, output_indices: Ints) -> SampledTokens:
        """Sample a token for each row of `(rows, vocabulary)`; changes the logits.

        Row i belongs to `slots[i]` and becomes its output `output_indices[i]`.
        """
        requested = (self._widths[slots] != _NONE).nonzero()[0]
        raw = logits[torch.from_numpy(requested)] if len(requested) else None  # a copy
        self._penalties.apply(logits, slots.tolist())
        self._masks.apply(logits, slots.tolist(), output_indices.tolist())
        if self._grammars is not None and not self._grammars.is_empty:
            self._grammars.apply_bitmask(logits, slots)
        token_ids, finite = argmax(logits)
        rows = (self._sampled[slots] & finite).nonzero()[0]
        if len(rows):
            token_ids[rows] = self._sample(logits, rows, slots[rows], output_indices[rows])
        choice = SampledTokens(
            token_ids.tolist(), finite.tolist(), dead_ends=self._dead_ends(logits, slots, finite)
        )
        if raw is not None:
            runs = row_logprobs(raw, token_ids[requested], self._widths[slots[requested]])
            choice.logprobs.update(zip(requested.tolist(), runs, strict=True))
        self._penalties.record(slots.tolist(), choice.token_ids)
        self._masks.record(slots.tolist(), choice.token_ids)
        return choice

    def _dead_ends(self, logits: Tensor, slots: Ints, finite: NDArray[np.bool_]) -> frozenset[int]:
        """Return rows whose masks left no logit: that is not the model's fault."""
        if self._masks.is_empty or finite.all():
            return frozenset()
        rows = (~finite).nonzero()[0].tolist()
        return frozenset(
            row
            for row in rows
            if self._masks.has(int(slots[row])) and bool(logits[row].isneginf().all())
        )

    def _sample(self, logits: Tensor, rows: Ints, slots: Ints, output_indices: Ints) -> Ints:
        own = logits if len(rows) == len(logits) else logits[torch.from_numpy(rows)]
        return sample(own, self._columns[torch.from_numpy(slots)], output_indices)
