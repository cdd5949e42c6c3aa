"""Sample the next tokens on the device: nothing waits for the host.

The same as `host_sampling` and `noise`, in torch and without reading any value: thresholds are
found by bisection instead of growing candidate lists, so the work does not depend on the logits and
a CUDA graph can capture it. Tokens equal the host's, unless a sum rounds differently right at the
edge of top-p.

    logits        [2.0, 1.0, 0.0, -1.0]      one row; temperature 0.5, top_k 3, top_p 0.9
    scaled        [0.0, -2.0, -4.0, -6.0]    minus the maximum, over the temperature
    top-k         fewer than 3 values are higher: the lowest survivor is -4.0
    weights       [1, 0.135, 0.018, 0]       exp; what top-k cut is 0; the sum is 1.154
    top-p         higher values hold less than 0.9 * 1.154 = 1.038: -2.0 survives, -4.0 does not
    noise         one exponential for each (seed, output index, token id): [0.7, 0.05, ...]
    speeds        weights / noise = [1.43, 2.71, 0, 0]; the fastest token wins: token 1

The winner is distributed as the weights are: the minimum of exponentials, as in Gumbel-max.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import torch
from torch import Tensor

from headrace_worker.engine.base.interface import SamplingParameters
from headrace_worker.engine.sampling.host_sampling import SamplingColumns
from headrace_worker.engine.sampling.typical import keep_typical

_GOLDEN, _FIRST, _SECOND = (
    value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
"""As signed numbers: torch has no unsigned arithmetic, and the low 64 bits are the same."""


class SamplingKind(IntEnum):
    """The most that any row of a step needs; less is faster."""

    GREEDY = 0
    ALL_TOKENS = 1
    """Temperature and min-p."""
    TOP_K_TOP_P = 2
    """Top-k or top-p too."""
    TYPICAL = 3
    """Typical sampling too, which sorts the vocabulary."""


def sampling_kind(parameters: SamplingParameters) -> SamplingKind:
    if parameters.temperature == 0:
        return SamplingKind.GREEDY
    if parameters.typical_p < 1:
        return SamplingKind.TYPICAL
    if parameters.top_k > 0 or parameters.top_p < 1:
        return SamplingKind.TOP_K_TOP_P
    return SamplingKind.ALL_TOKENS


def sample_on_device(
    logits: Tensor, parameters: SamplingColumns, indices: Tensor, kind: SamplingKind
) -> tuple[Tensor, Tensor]:
    """Return each row's token, and whether the row's highest logit is finite; both `(rows,)`.

    `logits` `(rows, vocabulary)` are float32, `indices` the rows' output indices.
    """
    highest = logits.amax(dim=-1, keepdim=True)
    finite, tokens = highest[:, 0].isfinite(), _first(logits == highest)
    if kind is SamplingKind.GREEDY:
        return tokens, finite
    greedy = parameters.temperature == 0
    temperature = torch.where(greedy, 1.0, parameters.temperature)
    scaled = (logits - highest) / temperature[:, None]
    floor = parameters.min_p.log()[:, None]
    if kind >= SamplingKind.TOP_K_TOP_P:
        floor = torch.maximum(floor, _floor(scaled, parameters))
    weights = scaled.masked_fill(scaled < floor, float("-inf")).exp()
    if kind is SamplingKind.TYPICAL:
        weights = keep_typical(weights, parameters.typical_p)
    speeds = weights / exponentials(noise_bits(parameters.seed_keys, indices, logits.shape[-1]))
    drawn = _first(speeds == speeds.amax(dim=-1, keepdim=True))
    return torch.where(greedy, tokens, drawn), finite


def noise_bits(seed_keys: Tensor, indices: Tensor, vocabulary: int) -> Tensor:
    """Return `noise.noise_bits` of every token, bit for bit: `(rows, vocabulary)`, int64."""
    rows = _mix(seed_keys + indices * _GOLDEN)
    token_ids = torch.arange(1, vocabulary + 1, device=seed_keys.device)
    return _mix(rows[:, None] + token_ids * _GOLDEN)


def exponentials(bits: Tensor) -> Tensor:
    """Turn bits into draws from the exponential distribution with mean 1: float64."""
    return ((_shifted(bits, 12).double() + 0.5) * 2.0**-52).log().neg()


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shifted(value, 30)) * _FIRST
    value = (value ^ _shifted(value, 27)) * _SECOND
    return value ^ _shifted(value, 31)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Shift right, filled with zeros."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _first(chosen: Tensor) -> Tensor:
    """Return the first true column of each row; the last column where there is none."""
    # Why not argmax: on a GPU it is undefined which of several equals it takes.
    columns = torch.arange(chosen.shape[-1], device=chosen.device)
    return torch.where(chosen, columns, chosen.shape[-1] - 1).amin(dim=-1)


def _floor(scaled: Tensor, parameters: SamplingColumns) -> Tensor:
    """Return the lowest value that survives top-k and top-p in each row: `(rows, 1)`.

    A value survives if fewer than `top_k` are higher, and if those that are higher hold less than
    `top_p` of what top-k left.
    """
    weights = scaled.exp().double()
    top_k, top_p = parameters.top_k[:, None], parameters.top_p[:, None]
    by_count = _lowest(scaled, lambda value: (scaled > value).sum(-1, keepdim=True) < top_k)
    floor = torch.where(top_k > 0, by_count, float("-inf"))
    kept = weights.masked_fill(scaled < floor, 0)
    bound = top_p * kept.sum(-1, keepdim=True)
    by_mass = _lowest(
        scaled, lambda value: kept.masked_fill(scaled <= value, 0).sum(-1, keepdim=True) < bound
    )
    return torch.maximum(floor, torch.where(top_p < 1, by_mass, float("-inf")))


def _lowest(scaled: Tensor, survives: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the lowest value of each row that survives, `(rows, 1)`; the highest, 0, always does.

    `survives` is true from some value up. Bisects over all float32 from minus infinity to 0, by
    their bits, so it ends at one of them exactly.
    """
    # As bits -0.0 is the least and -inf the greatest: the order is reversed.
    most = torch.full_like(scaled[:, :1], float("-inf")).view(torch.int32)
    low = torch.full_like(most, torch.iinfo(torch.int32).min)  # -0.0, survives
    high = most  # -inf, may not
    for _ in range(31):
        # No sum of the two: it would not fit.
        middle = low + (high - low) // 2
        good = survives(middle.view(torch.float32))
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    floor = low.view(torch.float32)
    # The bisection ends between two values of the row; the floor is the one above.
    return scaled.masked_fill(scaled < floor, 0).amin(dim=-1, keepdim=True)
