"""The honest check of an engine whose numbers round too coarsely for equal texts.

The engine's own text is shown to the plain model, token by token, and each token that the
engine chose must be the plain model's best, or so close to it that rounding decides. Texts
that ran freely say nothing: after one near tie they are about different things.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headrace_worker.engine.base.interface import Sequence

STEPS = 2
"""How many steps of bfloat16, at the best logit's size, a choice may lie below it."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """A token that the plain model would not have chosen."""

    sequence_id: int
    output_index: int
    chosen: int
    best: int
    margin: float
    """By how much the plain model's best logit is above the chosen one's."""
    allowed: float


@dataclass(frozen=True, slots=True)
class Verdict:
    tokens: int
    divergences: tuple[Divergence, ...]

    @property
    def faults(self) -> tuple[Divergence, ...]:
        """Divergences that rounding does not explain."""
        return tuple(each for each in self.divergences if not each.margin <= each.allowed)

    @property
    def first(self) -> Divergence | None:
        return next(iter(self.divergences), None)

    @property
    def agreement(self) -> float:
        """Share of the tokens that are the plain model's very choice."""
        return 1 - len(self.divergences) / self.tokens


def judge(
    model: PreTrainedModel,
    sequences: list[Sequence],
    tokens: Mapping[int, list[int]],
    *,
    steps: int = STEPS,
) -> Verdict:
    """Hold what an engine chose greedily against a model in the same precision, each text alone.

    `model` attends as transformers does, never packed. Sequences in the order of their ids.
    """
    found: list[Divergence] = []
    for one in sequences:
        chosen = torch.tensor(tokens[one.sequence_id])
        logits = _logits_before(model, one.prompt_ids, chosen)
        best, margin = logits.argmax(-1), _margin(logits, chosen)
        allowed = steps * _bfloat16_step(logits.amax(-1))
        found += (
            Divergence(
                one.sequence_id,
                index,
                int(chosen[index]),
                int(best[index]),
                float(margin[index]),
                float(allowed[index]),
            )
            for index in (margin != 0).nonzero()[:, 0].tolist()
        )
    return Verdict(sum(map(len, tokens.values())), tuple(found))


def _logits_before(model: PreTrainedModel, prompt_ids: tuple[int, ...], chosen: Tensor) -> Tensor:
    """The plain model's logits at each token of `chosen`, given all that stands before it."""
    text = torch.cat((torch.tensor(prompt_ids), chosen))
    with torch.inference_mode():
        logits = cast(Tensor, model(input_ids=text[None], use_cache=False).logits)[0].float()
    return logits[len(prompt_ids) - 1 : -1]


def _margin(logits: Tensor, chosen: Tensor) -> Tensor:
    return logits.amax(-1) - logits.gather(1, chosen[:, None])[:, 0]


def _bfloat16_step(logits: Tensor) -> Tensor:
    """The distance between neighbouring bfloat16 numbers of this size."""
    exponents = np.floor(np.log2(logits.abs().clamp(min=2**-126).numpy()))
    return torch.from_numpy(np.exp2(exponents - 7))
