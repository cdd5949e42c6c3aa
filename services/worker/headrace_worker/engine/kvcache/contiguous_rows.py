"""Which rows of a packed row belong to which strip, and what each may see."""

from __future__ import annotations

import itertools
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from headrace_worker.engine.base.model_runner import Ints
from headrace_worker.engine.kvcache.dense_attention import (
    additive_mask,
    attend,
    chunk_mask,
    window_start,
)
from headrace_worker.engine.kvcache.kv_cache import AttentionParams, LayerCache

_DENSE_ENOUGH = 0.7
"""Below this share of decoding slots in their span, a gather beats a view with holes."""
_RUN_BYTES = 192 * 1024
"""Where a run of neighbouring slots has so much to read, a call of its own costs less than a
copy of it, or than its neighbours' holes."""

TokenMasks = dict[int | None, Tensor | None]
"""By window: layers of one kind share theirs."""


class ContiguousDecodeRows:
    """The first rows of the packed row: one token for each of some slots, ascending."""

    def __init__(self, slots: Ints, positions: Ints, *, run_bytes: float = _RUN_BYTES) -> None:
        self._count, self._run_bytes = len(slots), run_bytes
        self.rows = slice(0, self._count)
        self._slots, self._positions = torch.from_numpy(slots), torch.from_numpy(positions)
        self._whole = _SlotRun(slots, positions)
        cuts = [0, *(np.flatnonzero(np.diff(slots) > 1) + 1).tolist(), self._count]
        self._cuts = [slice(*pair) for pair in itertools.pairwise(cuts)]

    def write(self, layer: LayerCache, key: Tensor, value: Tensor) -> None:
        layer.keys[self._slots, :, self._positions] = key.transpose(0, 1)
        layer.values[self._slots, :, self._positions] = value.transpose(0, 1)

    def attend(self, layer: LayerCache, query: Tensor, form: AttentionParams) -> Tensor:
        heads, shared = len(query), layer.keys.shape[1]
        # Query heads that share a key ride on the query-length axis: no key is repeated.
        rows = query.transpose(0, 1).reshape(self._count, shared, -1, query.shape[-1])
        if len(self._cuts) > 1 and self._apart(layer, form.window):
            parts = zip(self._runs, self._cuts, strict=True)
            output = torch.cat([run.attend(layer, rows[cut], form) for run, cut in parts])
        else:
            output = self._whole.attend(layer, rows, form)
        return output.reshape(self._count, heads, -1)

    def _apart(self, layer: LayerCache, window: int | None) -> bool:
        """Whether runs of neighbours attend one after the other, each to no more than it must."""
        sizes = (s.shape[1] * s.shape[3] * s.element_size() for s in (layer.keys, layer.values))
        seen_bytes = sum(sizes) * self._whole.seen_tokens(window) * self._count
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
        self._masks: TokenMasks = {}

    def seen_tokens(self, window: int | None) -> int:
        """How much of each strip is read: as much as the row that sees most has."""
        return self._end - window_start(self._shortest, window)

    def attend(self, layer: LayerCache, rows: Tensor, form: AttentionParams) -> Tensor:
        """Rows and what is returned: `(slots, key heads, queries of a key head, size)`."""
        if form.window not in self._masks:
            self._masks[form.window] = self._mask(form.window, rows.dtype)
        output = attend(
            self._spread(rows),
            self._select(layer.keys, form.window),
            self._select(layer.values, form.window),
            self._masks[form.window],
            form,
        )
        return output if self._places is None else output.index_select(0, self._places)

    def _select(self, store: Tensor, window: int | None) -> Tensor:
        """What these slots may see of a store, `(span, heads, seen, size)`."""
        seen = slice(window_start(self._shortest, window), self._end)
        if self._gathers:
            return store[:, :, seen].index_select(0, self._slots)
        return store[self._span, :, seen]

    def _spread(self, rows: Tensor) -> Tensor:
        """Lay rows out as `_select` does; a slot of the span without a row gets zeros."""
        if self._places is None:
            return rows
        spread = rows.new_zeros(self._span.stop - self._span.start, *rows.shape[1:])
        return spread.index_copy_(0, self._places, rows)

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """The mask over `_select`, `(span, 1, 1, seen)`; None where every row sees all of it."""
        if self._shortest + 1 == self._end:
            return None
        last = self._positions
        if self._places is not None:
            # A hole sees everything: a row that sees nothing would be NaN.
            last = last.new_full((self._span.stop - self._span.start,), self._end - 1)
            last[self._places] = self._positions
        seen = torch.arange(window_start(self._shortest, window), self._end)
        return additive_mask(seen, last[:, None, None, None], window, dtype)


class ContiguousChunkRows:
    """Some of one slot's prompt: where its tokens stand in the context and in the packed row."""

    def __init__(self, slot: int, *, start: int, row: int, count: int) -> None:
        self._slot, self._count = slot, count
        self.rows = slice(row, row + count)
        self._positions = slice(start, start + count)
        self._masks: TokenMasks = {}

    def write(self, layer: LayerCache, key: Tensor, value: Tensor) -> None:
        layer.keys[self._slot, :, self._positions] = key
        layer.values[self._slot, :, self._positions] = value

    def attend(self, layer: LayerCache, query: Tensor, form: AttentionParams) -> Tensor:
        heads, shared = len(query), layer.keys.shape[1]
        if form.window not in self._masks:
            groups = heads // shared
            self._masks[form.window] = chunk_mask(self._positions, form.window, groups, query)
        output = attend(
            query.reshape(1, shared, -1, query.shape[-1]),
            self._select(layer.keys, form.window),
            self._select(layer.values, form.window),
            self._masks[form.window],
            form,
        )
        return output.reshape(heads, self._count, -1).transpose(0, 1)

    def _select(self, store: Tensor, window: int | None) -> Tensor:
        """What the chunk may see of a store, `(1, heads, seen, size)`."""
        seen = slice(window_start(self._positions.start, window), self._positions.stop)
        return store[self._slot : self._slot + 1, :, seen]
