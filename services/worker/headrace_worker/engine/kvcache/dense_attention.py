"""Softmax attention where what the rows may see lies in one dense tensor."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from headrace_worker.engine.kvcache.kv_cache import AttentionParams


def attend(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, form: AttentionParams
) -> Tensor:
    """Softmax attention, all shapes `(slots, key heads, rows, size)`.

    The rows of one key head are its query heads times their positions, heads
    first. `mask` is added to the scores.
    """
    if form.softcap is None and form.sinks is None:
        return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=form.scale)
    scale = query.shape[-1] ** -0.5 if form.scale is None else form.scale
    scores = torch.matmul(query, keys.transpose(-1, -2)).mul_(scale)
    if form.softcap is not None:
        scores = scores.div_(form.softcap).tanh_().mul_(form.softcap)
    if mask is not None:
        scores = scores.add_(mask)
    if form.sinks is None:
        return torch.matmul(scores.softmax(-1, dtype=torch.float32).to(values.dtype), values)
    heads, rows = query.shape[1:3]
    sinks = form.sinks.view(heads, -1, 1)
    sinks = sinks.expand(heads, sinks.shape[1], rows // sinks.shape[1]).reshape(1, heads, rows, 1)
    scores = torch.cat((scores, sinks.expand(len(query), -1, -1, -1).to(scores.dtype)), dim=-1)
    weights = scores.softmax(-1, dtype=torch.float32)[..., :-1]
    return torch.matmul(weights.to(values.dtype), values)


def window_start(position: int, window: int | None) -> int:
    """The first position that the token at `position` sees."""
    return 0 if window is None else max(0, position - window + 1)


def additive_mask(seen: Tensor, last: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
    """0 where a row whose own position is `last` may see, minus infinity elsewhere."""
    hidden = seen > last
    if window is not None:
        hidden = hidden | (seen <= last - window)
    # Why not boolean: attention would turn it into this again in every layer.
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return mask.masked_fill_(hidden, float("-inf"))


def chunk_mask(positions: slice, window: int | None, groups: int, like: Tensor) -> Tensor | None:
    """The mask of one text's piece over all it may see, `(groups * count, seen)`.

    Repeated for `groups` query heads; None where there is nothing to hide.
    """
    if positions.stop - positions.start == 1:
        return None
    seen = torch.arange(window_start(positions.start, window), positions.stop, device=like.device)
    last = torch.arange(positions.start, positions.stop, device=like.device)
    return additive_mask(seen, last[:, None], window, like.dtype).repeat(groups, 1)
