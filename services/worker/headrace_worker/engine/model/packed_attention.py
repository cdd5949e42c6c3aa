"""Attention over a packed row: decode rows in one call, each prefill chunk in its own.

transformers finds `packed_attention` by its name; because no mask function has that name, it builds
no masks. Each row attends to the context of its own slot only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from headrace_worker.engine.kvcache.kv_cache import AttentionParams, CacheRows, KvCache

IMPLEMENTATION = "headrace_packed"


class StepAttention:
    """One step's attention: writes the new keys and values, then attends for every row."""

    def __init__(self, store: KvCache, rows: Sequence[CacheRows]) -> None:
        """`rows` cover the packed row, in order."""
        self._store, self._rows = store, rows
        self.calls = 0
        """Calls by layers; 0 if the model does not use this attention."""

    def attend(
        self, index: int, query: Tensor, key: Tensor, value: Tensor, params: AttentionParams
    ) -> Tensor:
        """For tensors of `(1, heads, rows, size)` return `(1, rows, query heads, value size)`."""
        self.calls += 1
        layer = self._store.layer(index, key, value)
        outputs = []
        for some in self._rows:
            some.write(layer, key[0, :, some.rows], value[0, :, some.rows])
            outputs.append(some.attend(layer, query[0, :, some.rows], params))
        joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return joined.unsqueeze(0)


_now: ContextVar[StepAttention] = ContextVar("headrace_step_attention")


@contextmanager
def attending(step: StepAttention) -> Iterator[None]:
    """Make `step` the attention of this thread's forward pass."""
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
    """Called by transformers in every layer; the argument names are its own."""
    layer: int = module.layer_idx  # type: ignore[assignment]  # torch types it Tensor | Module
    params = AttentionParams(scaling, sliding_window, softcap, s_aux)
    return _now.get().attend(layer, query, key, value, params), None


AttentionInterface.register(IMPLEMENTATION, packed_attention)
