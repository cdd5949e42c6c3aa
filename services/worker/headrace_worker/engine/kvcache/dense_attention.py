"""Softmax attention over dense keys and values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from headrace_worker.engine.kvcache.kv_cache import AttentionParams


def attend(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, params: AttentionParams
) -> Tensor:
    """Compute softmax attention; all shapes are `(slots, key heads, rows, size)`.

    The rows of one key head are its query heads times their positions, heads first. `mask` is added
    to the scores.
    """
    if params.softcap is None and params.sinks is None:
        return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=params.scale)
    scale = query.shape[-1] ** -0.5 if params.scale is None else params.scale
    scores = torch.matmul(query, keys.transpose(-1, -2)).mul_(scale)
    if params.softcap is not None:
        scores = scores.div_(params.softcap).tanh_().mul_(params.softcap)
    if mask is not None:
        scores = scores.add_(mask)
    if params.sinks is None:
        return torch.matmul(scores.softmax(-1, dtype=torch.float32).to(values.dtype), values)
    heads, rows = query.shape[1:3]
    sinks = params.sinks.view(heads, -1, 1)
    sinks = sinks.expand(heads, sinks.shape[1], rows // sinks.shape[1]).reshape(1, heads, rows, 1)
    scores = torch.cat((scores, sinks.expand(len(query), -1, -1, -1).to(scores.dtype)), dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32)[..., :-1]
    return torch.matmul(weights.to(values.dtype), values)


def window_start(position: int, window: int | None) -> int:
    """Return the first position that the token at `position` sees."""
    return 0 if window is None else max(0, position - window + 1)


def additive_mask(seen: Tensor, last: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
    """Return 0 where a row at position `last` may attend, minus infinity elsewhere."""
    hidden = seen > last
    if window is not None:
        hidden = hidden | (seen <= last - window)
    # Why not boolean: attention would turn it into this again in every layer.
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return mask.masked_fill_(hidden, float("-inf"))


def chunk_mask(
    positions: slice, window: int | None, groups: int, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """Return the mask of a prefill chunk, `(groups * count, seen)`, or None if nothing is masked.

    It is repeated for `groups` query heads.
    """
    if positions.stop - positions.start == 1:
        return None
    seen = torch.arange(window_start(positions.start, window), positions.stop, device=device)
    last = torch.arange(positions.start, positions.stop, device=device)
    return additive_mask(seen, last[:, None], window, dtype).repeat(groups, 1)
