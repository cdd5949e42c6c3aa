"""Which rows of a packed row belong to which slot, and what each may see."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]

_DENSE_ENOUGH = 0.7
"""Below this share of decoding slots in their span, a gather beats a view with holes."""


class DecodeRows:
    """The first rows of the packed row: one token for each of some slots, ascending."""

    def __init__(self, slots: Ints, positions: Ints) -> None:
        self.count = len(slots)
        self.slots, self.positions = torch.from_numpy(slots), torch.from_numpy(positions)
        self._shortest, self._end = int(positions.min()), int(positions.max()) + 1
        low, high = int(slots[0]), int(slots[-1]) + 1
        self._span = slice(low, high)
        self._gathers = self.count < _DENSE_ENOUGH * (high - low)
        has_holes = self.count < high - low and not self._gathers
        self._places = self.slots - low if has_holes else None

    def select(self, store: Tensor, window: int | None) -> Tensor:
        """What these slots may see of a store, `(span, heads, seen, size)`."""
        seen = slice(_seen_from(self._shortest, window), self._end)
        if self._gathers:
            return store[:, :, seen].index_select(0, self.slots)
        return store[self._span, :, seen]

    def spread(self, rows: Tensor) -> Tensor:
        """Lay rows out as `select` does; a slot of the span without a row gets zeros."""
        if self._places is None:
            return rows
        spread = rows.new_zeros(self._span.stop - self._span.start, *rows.shape[1:])
        return spread.index_copy_(0, self._places, rows)

    def collect(self, spread: Tensor) -> Tensor:
        """Undo `spread`."""
        return spread if self._places is None else spread.index_select(0, self._places)

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """The mask over `select`, `(span, 1, 1, seen)`; None where every row sees all of it."""
        if self._shortest + 1 == self._end:
            return None
        last = self.positions
        if self._places is not None:
            # A hole sees everything: a row that sees nothing would be NaN.
            last = last.new_full((self._span.stop - self._span.start,), self._end - 1)
            last[self._places] = self.positions
        seen = torch.arange(_seen_from(self._shortest, window), self._end)
        return _additive(seen, last[:, None, None, None], window, dtype)


class ChunkRows:
    """Some of one slot's prompt: where its tokens stand in the context and in the packed row."""

    def __init__(self, slot: int, *, start: int, row: int, count: int) -> None:
        self.slot, self.count = slot, count
        self.rows = slice(row, row + count)
        self.positions = slice(start, start + count)

    def select(self, store: Tensor, window: int | None) -> Tensor:
        """What the chunk may see of a store, `(1, heads, seen, size)`."""
        seen = slice(_seen_from(self.positions.start, window), self.positions.stop)
        return store[self.slot : self.slot + 1, :, seen]

    def mask(self, window: int | None, groups: int, dtype: torch.dtype) -> Tensor | None:
        """The mask over `select`, repeated for `groups` query heads: `(groups * count, seen)`."""
        if self.count == 1:
            return None
        seen = torch.arange(_seen_from(self.positions.start, window), self.positions.stop)
        last = torch.arange(self.positions.start, self.positions.stop)
        return _additive(seen, last[:, None], window, dtype).repeat(groups, 1)


def _seen_from(position: int, window: int | None) -> int:
    """The first position that the token at `position` sees."""
    return 0 if window is None else max(0, position - window + 1)


def _additive(seen: Tensor, last: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
    """0 where a row whose own position is `last` may see, minus infinity elsewhere."""
    hidden = seen > last
    if window is not None:
        hidden = hidden | (seen <= last - window)
    # Why not boolean: attention would turn it into this again in every layer.
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
