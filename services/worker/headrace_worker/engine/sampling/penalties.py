"""Repetition, presence and frequency penalties, and logit bias."""

from __future__ import annotations

import torch
from torch import Tensor

from headrace_worker.engine.base.interface import SamplingParameters, Sequence


def has_penalties(parameters: SamplingParameters) -> bool:
    return (
        parameters.repetition_penalty != 1
        or parameters.presence_penalty != 0
        or parameters.frequency_penalty != 0
    )


class Penalties:
    """Tables of `(slots, vocabulary)`, allocated when the first sequence needs them."""

    def __init__(self, slots: int, vocabulary_size: int) -> None:
        self._shape = (slots, vocabulary_size)
        self._repetition = torch.ones(slots)
        self._presence, self._frequency = torch.zeros(slots), torch.zeros(slots)
        self._penalised: set[int] = set()
        self._biased: set[int] = set()
        self._seen = torch.zeros(0)
        self._counts = torch.zeros(0)
        self._bias = torch.zeros(0)

    @property
    def is_empty(self) -> bool:
        """Whether no slot has penalties or bias."""
        return not (self._penalised or self._biased)

    def admit(self, slot: int, sequence: Sequence) -> None:
        parameters = sequence.parameters
        if parameters.logit_bias:
            self._admit_bias(slot, parameters)
        if has_penalties(parameters):
            self._admit_penalties(slot, sequence)

    def release(self, slot: int) -> None:
        self._penalised.discard(slot)
        self._biased.discard(slot)

    def apply(self, logits: Tensor, slots: list[int]) -> None:
        """Change the logits `(rows, vocabulary)` of these slots in place."""
        rows = [row for row, slot in enumerate(slots) if slot in self._biased]
        if rows:
            logits[rows] += self._bias[[slots[row] for row in rows]]
        rows = [row for row, slot in enumerate(slots) if slot in self._penalised]
        if rows:
            logits[rows] = self._penalise(logits[rows], torch.tensor([slots[row] for row in rows]))

    def record(self, slots: list[int], token_ids: list[int]) -> None:
        """Record the token that each slot got."""
        if not self._penalised:
            return
        pairs = [pair for pair in zip(slots, token_ids, strict=True) if pair[0] in self._penalised]
        for slot, token_id in pairs:
            self._seen[slot, token_id] = True
            self._counts[slot, token_id] += 1

    def _penalise(self, logits: Tensor, slots: Tensor) -> Tensor:
        repetition = self._repetition[slots, None]
        repeated = torch.where(logits < 0, logits * repetition, logits / repetition)
        logits = torch.where(self._seen[slots], repeated, logits)
        counts = self._counts[slots]
        logits -= counts * self._frequency[slots, None]
        logits -= (counts > 0) * self._presence[slots, None]
        return logits

    def _admit_bias(self, slot: int, parameters: SamplingParameters) -> None:
        if not len(self._bias):
            self._bias = torch.zeros(self._shape)
        self._bias[slot] = 0
        self._bias[slot, list(parameters.logit_bias)] = torch.tensor(
            list(parameters.logit_bias.values()), dtype=torch.float32
        )
        self._biased.add(slot)

    def _admit_penalties(self, slot: int, sequence: Sequence) -> None:
        if not len(self._seen):
            self._seen = torch.zeros(self._shape, dtype=torch.bool)
            self._counts = torch.zeros(self._shape)
        output = torch.tensor(sequence.output_ids, dtype=torch.int64)
        self._seen[slot] = False
        self._seen[slot, list(sequence.prompt_ids)] = True
        self._seen[slot, output] = True
        self._counts[slot] = 0
        self._counts[slot].index_add_(0, output, torch.ones(len(output)))
        parameters = sequence.parameters
        self._repetition[slot] = parameters.repetition_penalty
        self._presence[slot] = parameters.presence_penalty
        self._frequency[slot] = parameters.frequency_penalty
        self._penalised.add(slot)
