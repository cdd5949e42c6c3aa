"""Which rows of a packed row stand in which pages, and what each may see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from headrace.prefixes import BLOCK_TOKENS
from headrace_worker.engine.base.model_runner import Ints
from headrace_worker.engine.kvcache.contiguous_rows import TokenMasks
from headrace_worker.engine.kvcache.dense_attention import (
    additive_mask,
    attend,
    chunk_mask,
    window_start,
)
from headrace_worker.engine.kvcache.kv_cache import AttentionParams, LayerCache

DeviceAttention = Callable[[Tensor, LayerCache, Tensor, Tensor, AttentionParams], Tensor]
"""As `dense_decode_attention` has it."""


class PagedDecodeRows:
    """The first rows of the packed row: one token for each of some texts.

    `tables` `(rows, blocks)` are their pages. What they see is gathered, all in one.
    """

    def __init__(self, tables: Ints, positions: Ints, device: torch.device) -> None:
        self._count = len(positions)
        self.rows = slice(0, self._count)
        self._tables = torch.from_numpy(tables).to(device)
        self._positions = torch.from_numpy(positions).to(device)
        pages = tables[np.arange(self._count), positions // BLOCK_TOKENS]
        self._pages = torch.from_numpy(pages).to(device)
        self._offsets = self._positions % BLOCK_TOKENS
        self._shortest, self._end = int(positions.min()), int(positions.max()) + 1
        self._masks: TokenMasks = {}

    def write(self, layer: LayerCache, key: Tensor, value: Tensor) -> None:
        layer.keys[self._pages, :, self._offsets] = key.transpose(0, 1)
        layer.values[self._pages, :, self._offsets] = value.transpose(0, 1)

    def attend(self, layer: LayerCache, query: Tensor, form: AttentionParams) -> Tensor:
        heads, shared = len(query), layer.keys.shape[1]
        if form.window not in self._masks:
            self._masks[form.window] = self._mask(form.window, query.dtype)
        seen = slice(window_start(self._shortest, form.window), self._end)
        output = attend(
            # Query heads that share a key ride on the query-length axis: no key is repeated.
            query.transpose(0, 1).reshape(self._count, shared, -1, query.shape[-1]),
            gather_blocks(layer.keys, self._tables, seen),
            gather_blocks(layer.values, self._tables, seen),
            self._masks[form.window],
            form,
        )
        return output.reshape(self._count, heads, -1)

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Over what is gathered, `(rows, 1, 1, seen)`; None where every row sees all of it."""
        if self._shortest + 1 == self._end:
            return None
        first = window_start(self._shortest, window)
        seen = torch.arange(first, self._end, device=self._positions.device)
        return additive_mask(seen, self._positions[:, None, None, None], window, dtype)


class DeviceDecodeRows:
    """One token for each of some texts, where nothing of them is known but on the device.

    `tables` `(rows, blocks)` and `positions` `(rows,)` may be overwritten between
    passes, as a captured graph wants it.
    """

    def __init__(self, tables: Tensor, positions: Tensor, attend: DeviceAttention) -> None:
        self.rows = slice(0, len(positions))
        self._tables, self._positions, self._attend = tables, positions, attend
        blocks = (positions // BLOCK_TOKENS)[:, None]
        self._pages = tables.gather(1, blocks.to(torch.int64))[:, 0]
        self._offsets = positions % BLOCK_TOKENS

    def write(self, layer: LayerCache, key: Tensor, value: Tensor) -> None:
        layer.keys[self._pages, :, self._offsets] = key.transpose(0, 1)
        layer.values[self._pages, :, self._offsets] = value.transpose(0, 1)

    def attend(self, layer: LayerCache, query: Tensor, form: AttentionParams) -> Tensor:
        rows = query.transpose(0, 1)
        return self._attend(rows, layer, self._tables, self._positions, form)


def dense_decode_attention(
    query: Tensor, layer: LayerCache, tables: Tensor, positions: Tensor, form: AttentionParams
) -> Tensor:
    """Attend to every block that the tables name, without Triton (see `paged_kernel`)."""
    rows, heads, size = query.shape
    seen = slice(0, tables.shape[1] * BLOCK_TOKENS)
    last = positions[:, None, None, None]
    every = torch.arange(seen.stop, device=query.device)
    # Beyond its text a page may hold what is no number, and no mask makes that one.
    beyond = (every > positions[:, None])[:, None, :, None]
    output = attend(
        query.reshape(rows, layer.keys.shape[1], -1, size),
        gather_blocks(layer.keys, tables, seen).masked_fill(beyond, 0),
        gather_blocks(layer.values, tables, seen).masked_fill(beyond, 0),
        additive_mask(every, last, form.window, query.dtype),
        form,
    )
    return output.reshape(rows, heads, -1)


class PagedChunkRows:
    """Some of one text's prompt; `table` `(blocks,)` are the text's pages."""

    def __init__(
        self, table: Ints, device: torch.device, *, start: int, row: int, count: int
    ) -> None:
        self._count = count
        self.rows = slice(row, row + count)
        self._positions = slice(start, start + count)
        self._table = torch.from_numpy(table[None]).to(device)
        positions = np.arange(start, start + count)
        self._pages = torch.from_numpy(table[positions // BLOCK_TOKENS]).to(device)
        self._offsets = torch.from_numpy(positions % BLOCK_TOKENS).to(device)
        self._masks: TokenMasks = {}

    def write(self, layer: LayerCache, key: Tensor, value: Tensor) -> None:
        layer.keys[self._pages, :, self._offsets] = key.transpose(0, 1)
        layer.values[self._pages, :, self._offsets] = value.transpose(0, 1)

    def attend(self, layer: LayerCache, query: Tensor, form: AttentionParams) -> Tensor:
        heads, shared = len(query), layer.keys.shape[1]
        if form.window not in self._masks:
            groups = heads // shared
            self._masks[form.window] = chunk_mask(self._positions, form.window, groups, query)
        seen = slice(window_start(self._positions.start, form.window), self._positions.stop)
        output = attend(
            query.reshape(1, shared, -1, query.shape[-1]),
            gather_blocks(layer.keys, self._table, seen),
            gather_blocks(layer.values, self._table, seen),
            self._masks[form.window],
            form,
        )
        return output.reshape(heads, self._count, -1).transpose(0, 1)


def gather_blocks(store: Tensor, tables: Tensor, seen: slice) -> Tensor:
    """These positions of some texts: `(texts, heads, seen, size)`."""
    first, end = seen.start // BLOCK_TOKENS, -(-seen.stop // BLOCK_TOKENS)
    pages = store[tables[:, first:end]].transpose(1, 2)
    dense = pages.reshape(len(tables), pages.shape[1], -1, pages.shape[-1])
    start = seen.start - first * BLOCK_TOKENS
    return dense[:, :, start : start + seen.stop - seen.start]
