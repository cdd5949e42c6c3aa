"""Rows of a packed row over the contiguous cache: where they write, and what they attend to."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from functools import cache, cached_property, partial

import numpy as np
import torch
from torch import Tensor

from headrace_worker.engine.base.model_runner import Ints, PrefillChunk
from headrace_worker.engine.kvcache.dense_attention import (
    additive_mask,
    attend,
    chunk_mask,
    window_start,
)
from headrace_worker.engine.kvcache.kv_cache import AttentionParams, LayerCache

_DENSE_ENOUGH = 0.7
"""Below this share of decoding slots in their span, a gather is faster than a view with gaps."""
_RUN_BYTES = 192 * 1024
"""If a run of neighbouring slots reads this much, a call of its own costs less than a copy."""


class ContiguousDecodeRows:
    """The first rows of the packed row: one token for each of some slots, ascending."""

    def __init__(self, slots: Ints, positions: Ints, *, run_bytes: float = _RUN_BYTES) -> None:
        self._num_rows, self._run_bytes = len(slots), run_bytes
        self.rows = slice(0, self._num_rows)
        self._slots, self._positions = torch.from_numpy(slots), torch.from_numpy(positions)
        self._whole = _SlotRun(slots, positions)
        cuts = [0, *(np.flatnonzero(np.diff(slots) > 1) + 1).tolist(), self._num_rows]
        self._cuts = [slice(*pair) for pair in itertools.pairwise(cuts)]

    def write(self, layer: LayerCache, key: Tensor, value: Tensor) -> None:
        layer.keys[self._slots, :, self._positions] = key.transpose(0, 1)
        layer.values[self._slots, :, self._positions] = value.transpose(0, 1)

    def attend(self, layer: LayerCache, query: Tensor, params: AttentionParams) -> Tensor:
        heads, key_heads = len(query), layer.keys.shape[1]
        # Query heads that share a key ride on the query-length axis: no key is repeated.
        rows = query.transpose(0, 1).reshape(self._num_rows, key_heads, -1, query.shape[-1])
        if len(self._cuts) > 1 and self._attends_by_run(layer, params.window):
            parts = zip(self._runs, self._cuts, strict=True)
            output = torch.cat([run.attend(layer, rows[cut], params) for run, cut in parts])
        else:
            output = self._whole.attend(layer, rows, params)
        return output.reshape(self._num_rows, heads, -1)

    def _attends_by_run(self, layer: LayerCache, window: int | None) -> bool:
        """Return whether runs of neighbouring slots should attend one after the other."""
        sizes = (s.shape[1] * s.shape[3] * s.element_size() for s in (layer.keys, layer.values))
        seen_bytes = sum(sizes) * self._whole.seen_tokens(window) * self._num_rows
        return seen_bytes >= self._run_bytes * len(self._cuts)

    @cached_property
    def _runs(self) -> list[_SlotRun]:
        slots, positions = self._slots.numpy(), self._positions.numpy()
        return [_SlotRun(slots[cut], positions[cut]) for cut in self._cuts]


class _SlotRun:
    """Rows that attend in one call."""

    def __init__(self, slots: Ints, positions: Ints) -> None:
        self._slots, self._positions = torch.from_numpy(slots), torch.from_numpy(positions)
        self._shortest, self._end = int(positions.min()), int(positions.max()) + 1
        low, high = int(slots[0]), int(slots[-1]) + 1
        self._span = slice(low, high)
        self._gathers = len(slots) < _DENSE_ENOUGH * (high - low)
        has_holes = len(slots) < high - low and not self._gathers
        self._places = self._slots - low if has_holes else None
        self._masks: dict[int | None, Tensor | None] = {}
        """By window: layers of one kind share theirs."""

    def seen_tokens(self, window: int | None) -> int:
        """Return how many positions of each slot are read: as many as the longest row needs."""
        return self._end - window_start(self._shortest, window)

    def attend(self, layer: LayerCache, rows: Tensor, params: AttentionParams) -> Tensor:
        """Rows and result: `(slots, key heads, queries of a key head, size)`."""
        if params.window not in self._masks:
            self._masks[params.window] = self._mask(params.window, rows.dtype)
        output = attend(
            self._spread(rows),
            self._select(layer.keys, params.window),
            self._select(layer.values, params.window),
            self._masks[params.window],
            params,
        )
        return output if self._places is None else output.index_select(0, self._places)

    def _select(self, store: Tensor, window: int | None) -> Tensor:
        """Return what these slots may see, `(span, heads, seen, size)`."""
        seen = slice(window_start(self._shortest, window), self._end)
        if self._gathers:
            return store[:, :, seen].index_select(0, self._slots)
        return store[self._span, :, seen]

    def _spread(self, rows: Tensor) -> Tensor:
        """Arrange rows as `_select` does; a slot of the span without a row gets zeros."""
        if self._places is None:
            return rows
        spread = rows.new_zeros(self._span.stop - self._span.start, *rows.shape[1:])
        return spread.index_copy_(0, self._places, rows)

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Return the mask over `_select`, `(span, 1, 1, seen)`; None if every row sees all
        of it."""
        if self._shortest + 1 == self._end:
            return None
        last = self._positions
        if self._places is not None:
            # A hole sees everything: a row that sees nothing would be NaN.
            last = last.new_full((self._span.stop - self._span.start,), self._end - 1)
            last[self._places] = self._positions
        seen = torch.arange(window_start(self._shortest, window), self._end)
        return additive_mask(seen, last[:, None, None, None], window, dtype)


class ChunkRows(ABC):
    """A prefill chunk of one sequence: its positions in the context and in the packed row."""

    def __init__(self, prefill: PrefillChunk, row: int) -> None:
        count = self._num_rows = len(prefill.token_ids)
        self.rows = slice(row, row + count)
        self._positions = slice(prefill.start, prefill.start + count)
        # Layers of one kind share their mask.
        self._mask = cache(partial(chunk_mask, self._positions))

    @abstractmethod
    def _select(self, store: Tensor, seen: slice) -> Tensor:
        """Return these positions of the sequence, `(1, heads, seen, size)`."""

    def attend(self, layer: LayerCache, query: Tensor, params: AttentionParams) -> Tensor:
        heads, key_heads = len(query), layer.keys.shape[1]
        seen = slice(window_start(self._positions.start, params.window), self._positions.stop)
        output = attend(
            query.reshape(1, key_heads, -1, query.shape[-1]),
            self._select(layer.keys, seen),
            self._select(layer.values, seen),
            self._mask(params.window, heads // key_heads, query.dtype, query.device),
            params,
        )
        return output.reshape(heads, self._num_rows, -1).transpose(0, 1)


class ContiguousChunkRows(ChunkRows):
    """A prefill chunk of one slot."""

    def __init__(self, prefill: PrefillChunk, row: int) -> None:
        super().__init__(prefill, row)
        self._slot = prefill.slot

    def write(self, layer: LayerCache, key: Tensor, value: Tensor) -> None:
        layer.keys[self._slot, :, self._positions] = key
        layer.values[self._slot, :, self._positions] = value

    def _select(self, store: Tensor, seen: slice) -> Tensor:
        return store[self._slot : self._slot + 1, :, seen]
