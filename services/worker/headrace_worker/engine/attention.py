"""Attention over a packed row: decode rows in one call, each prefill chunk in its own.

transformers finds `packed_attention` by its name, and because no mask function
has that name it builds no masks; each row sees the strip of its own slot alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from headrace_worker.engine.kv_strips import KvStrips
from headrace_worker.engine.packed_rows import ChunkRows, DecodeRows

IMPLEMENTATION = "headrace_packed"


class Heads(NamedTuple):
    """What a layer hands over, each `(1, heads, rows, size)`."""

    query: Tensor
    key: Tensor
    value: Tensor


class Form(NamedTuple):
    """What one layer's attention has beyond the plain kind."""

    scale: float | None
    """None: one over the root of the head size."""
    window: int | None
    """A token sees itself and the `window - 1` before it."""
    softcap: float | None
    sinks: Tensor | None
    """A logit per query head that takes its share of the softmax and yields nothing."""


class StepAttention:
    """One step's attention: writes the new keys and values, then lets every row look back."""

    def __init__(
        self, strips: KvStrips, decode: DecodeRows | None, chunks: tuple[ChunkRows, ...]
    ) -> None:
        self._strips, self._decode, self._chunks = strips, decode, chunks
        self._masks: dict[tuple[int, int | None, torch.dtype], Tensor | None] = {}
        self.calls = 0
        """Layers that came by; a model that never calls keeps no context at all."""

    def attend(self, layer: int, heads: Heads, form: Form) -> Tensor:
        """Return `(1, rows, query heads, value size)`."""
        self.calls += 1
        outputs = [self._attend_chunk(chunk, layer, heads, form) for chunk in self._chunks]
        if self._decode is not None:
            outputs.insert(0, self._attend_decode(self._decode, layer, heads, form))
        joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return joined.unsqueeze(0)

    def _attend_decode(self, decode: DecodeRows, layer: int, heads: Heads, form: Form) -> Tensor:
        strip = self._strips.layer(layer, heads.key, heads.value)
        rows, shared = decode.count, heads.key.shape[1]
        strip.keys[decode.slots, :, decode.positions] = heads.key[0, :, :rows].transpose(0, 1)
        strip.values[decode.slots, :, decode.positions] = heads.value[0, :, :rows].transpose(0, 1)
        query = heads.query[0, :, :rows].transpose(0, 1)
        # Query heads that share a key ride on the query-length axis: no key is repeated.
        query = query.reshape(rows, shared, -1, query.shape[-1])
        mask_key = (-1, form.window, query.dtype)
        if mask_key not in self._masks:
            self._masks[mask_key] = decode.mask(form.window, query.dtype)
        output = attend(
            decode.spread(query),
            decode.select(strip.keys, form.window),
            decode.select(strip.values, form.window),
            self._masks[mask_key],
            form,
        )
        return decode.collect(output).reshape(rows, heads.query.shape[1], -1)

    def _attend_chunk(self, chunk: ChunkRows, layer: int, heads: Heads, form: Form) -> Tensor:
        strip = self._strips.layer(layer, heads.key, heads.value)
        shared = heads.key.shape[1]
        strip.keys[chunk.slot, :, chunk.positions] = heads.key[0, :, chunk.rows]
        strip.values[chunk.slot, :, chunk.positions] = heads.value[0, :, chunk.rows]
        query = heads.query[0, :, chunk.rows]
        mask_key = (chunk.slot, form.window, query.dtype)
        if mask_key not in self._masks:
            groups = len(query) // shared
            self._masks[mask_key] = chunk.mask(form.window, groups, query.dtype)
        output = attend(
            query.reshape(1, shared, -1, query.shape[-1]),
            chunk.select(strip.keys, form.window),
            chunk.select(strip.values, form.window),
            self._masks[mask_key],
            form,
        )
        return output.reshape(len(query), chunk.count, -1).transpose(0, 1)


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, form: Form) -> Tensor:
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


_now: ContextVar[StepAttention] = ContextVar("headrace_step_attention")


@contextmanager
def attending(step: StepAttention) -> Iterator[None]:
    """Make `step` the one that this thread's forward pass attends with."""
    token = _now.set(step)
    try:
        yield
    finally:
        _now.reset(token)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer; the argument names are its own."""
    layer: int = module.layer_idx  # type: ignore[assignment]  # torch types it Tensor | Module
    form = Form(scaling, sliding_window, softcap, s_aux)
    return _now.get().attend(layer, Heads(query, key, value), form), None


AttentionInterface.register(IMPLEMENTATION, packed_attention)
