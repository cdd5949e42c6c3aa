"""Typical sampling: keep the tokens whose information is nearest to the distribution's entropy.

Locally typical sampling (Meister et al. 2022, https://arxiv.org/abs/2202.00666), as transformers'
`TypicalLogitsWarper` and llama.cpp's `typ_p` have it. With probabilities 0.5, 0.25, 0.125, 0.125
the entropy is 1.75 bits; the tokens' information is 1, 2, 3 and 3 bits, their distance from the
entropy 0.75, 0.25, 1.25 and 1.25:

    >>> weights = torch.tensor([[0.5, 0.25, 0.125, 0.125]])
    >>> keep_typical(weights, torch.tensor([0.2])).tolist()  # the second has a mass of 0.25
    [[0.0, 0.25, 0.0, 0.0]]
    >>> keep_typical(weights, torch.tensor([0.6])).tolist()  # with the first it is 0.75
    [[0.5, 0.25, 0.0, 0.0]]
"""

from __future__ import annotations

import torch
from torch import Tensor


def keep_typical(weights: Tensor, typical_p: Tensor) -> Tensor:
    """Return the weights `(rows, tokens)` with those at 0 that are cut; 1 keeps all of a row.

    Kept are the nearest that together have a mass of `typical_p` `(rows,)`, and any that are as
    near as the last of them. Weights need not sum to 1.
    """
    exact = weights.double()
    # Why cumsum and not sum: it adds in one order however many zeros follow.
    shares = exact / exact.cumsum(dim=-1)[:, -1:]
    information = -shares.log()
    terms = torch.where(shares > 0, shares * information, 0.0)
    # Infinite for weight 0.
    away = (information - terms.cumsum(dim=-1)[:, -1:]).abs()
    order = away.sort(dim=-1, stable=True)
    mass = shares.gather(-1, order.indices).cumsum(dim=-1)
    last = (mass < typical_p.double()[:, None]).sum(dim=-1, keepdim=True)
    farthest = order.values.gather(-1, last.clamp(max=weights.shape[-1] - 1))
    is_cut = (away > farthest) & (typical_p < 1)[:, None]
    return weights.masked_fill(is_cut, 0.0)
