"""Masks of `min_tokens`, `bad_words` and `allowed_token_ids`.

What is forbidden depends on the parameters and the output so far only, so it is the same after a
sequence resumes elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from headrace_worker.engine.base.interface import Sequence

_NEVER = float("-inf")


@dataclass(slots=True)
class _Held:
    min_tokens: int
    end_token_ids: Tensor
    """Ids that end the sequence; int64."""
    forbidden: Tensor | None
    """For every token, whether it is not allowed; None if all are."""
    bad_words: tuple[tuple[int, ...], ...]
    latest: list[int]
    """The end of the output, as long as the longest bad word without its last token."""
    reach: int

    def record(self, token_id: int) -> None:
        if self.reach:
            self.latest = [*self.latest, token_id][-self.reach :]

    def completing_tokens(self) -> list[int]:
        """Return the tokens that would complete a bad word."""
        return [
            word[-1]
            for word in self.bad_words
            if len(word) == 1 or self.latest[1 - len(word) :] == list(word[:-1])
        ]


class TokenMasks:
    """Masks by slot, for sequences that have one."""

    def __init__(self, vocabulary_size: int) -> None:
        self._vocabulary_size = vocabulary_size
        self._held: dict[int, _Held] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no slot has a mask."""
        return not self._held

    def admit(self, slot: int, sequence: Sequence, end_token_ids: Collection[int]) -> None:
        """`end_token_ids` end this sequence."""
        parameters = sequence.parameters
        if not parameters.masks_tokens:
            return
        reach = max((len(word) - 1 for word in parameters.bad_words), default=0)
        self._held[slot] = _Held(
            parameters.min_tokens,
            torch.tensor(sorted(end_token_ids), dtype=torch.int64),
            self._forbidden(parameters.allowed_token_ids),
            parameters.bad_words,
            list(sequence.output_ids[-reach:]) if reach else [],
            reach,
        )

    def release(self, slot: int) -> None:
        self._held.pop(slot, None)

    def has(self, slot: int) -> bool:
        return slot in self._held

    def apply(self, logits: Tensor, slots: list[int], output_indices: list[int]) -> None:
        """Set forbidden tokens to minus infinity, in place, in the rows of these slots."""
        for row, (slot, index) in enumerate(zip(slots, output_indices, strict=True)):
            if (held := self._held.get(slot)) is None:
                continue
            if held.forbidden is not None:
                logits[row].masked_fill_(held.forbidden, _NEVER)
            if index < held.min_tokens:
                logits[row, held.end_token_ids] = _NEVER
            if completing_tokens := held.completing_tokens():
                logits[row, completing_tokens] = _NEVER

    def record(self, slots: list[int], token_ids: list[int]) -> None:
        """Record the token that each slot got."""
        for slot, token_id in zip(slots, token_ids, strict=True):
            if (held := self._held.get(slot)) is not None:
                held.record(token_id)

    def _forbidden(self, allowed: Collection[int]) -> Tensor | None:
        if not allowed:
            return None
        forbidden = torch.ones(self._vocabulary_size, dtype=torch.bool)
        forbidden[sorted(allowed)] = False
        return forbidden
