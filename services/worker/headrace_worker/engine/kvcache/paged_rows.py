"""Rows of a packed row over the paged cache: where they write, and what they attend to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from headrace.prefixes import BLOCK_TOKENS
from headrace_worker.engine.base.model_runner import Ints, PrefillChunk
from headrace_worker.engine.kvcache.contiguous_rows import ChunkRows
from headrace_worker.engine.kvcache.dense_attention import additive_mask, attend, window_start
from headrace_worker.engine.kvcache.kv_cache import AttentionParams, LayerCache

DeviceAttention = Callable[[Tensor, LayerCache, Tensor, Tensor, AttentionParams], Tensor]
"""The signature of `dense_decode_attention`."""


class _PagedRows:
    """Rows that write to these offsets of these blocks, both `(rows,)`."""

    _block_ids: Tensor
    _offsets: Tensor

    def write(self, layer: LayerCache, key: Tensor, value: Tensor) -> None:
        layer.keys[self._block_ids, :, self._offsets] = key.transpose(0, 1)
        layer.values[self._block_ids, :, self._offsets] = value.transpose(0, 1)


class PagedDecodeRows(_PagedRows):
    """The first rows of the packed row: one token for each of some sequences.

    `tables` `(rows, blocks)` are block tables. The keys and values that rows see are gathered in
    one tensor.
    """

    def __init__(self, tables: Ints, positions: Ints, device: torch.device) -> None:
        self._num_rows = len(positions)
        self.rows = slice(0, self._num_rows)
        self._tables = torch.from_numpy(tables).to(device)
        self._positions = torch.from_numpy(positions).to(device)
        block_ids = tables[np.arange(self._num_rows), positions // BLOCK_TOKENS]
        self._block_ids = torch.from_numpy(block_ids).to(device)
        self._offsets = self._positions % BLOCK_TOKENS
        self._shortest, self._end = int(positions.min()), int(positions.max()) + 1
        self._masks: dict[int | None, Tensor | None] = {}
        """By window: layers of one kind share theirs."""

    def attend(self, layer: LayerCache, query: Tensor, params: AttentionParams) -> Tensor:
        heads, key_heads = len(query), layer.keys.shape[1]
        if params.window not in self._masks:
            self._masks[params.window] = self._mask(params.window, query.dtype)
        seen = slice(window_start(self._shortest, params.window), self._end)
        output = attend(
            # Query heads that share a key ride on the query-length axis: no key is repeated.
            query.transpose(0, 1).reshape(self._num_rows, key_heads, -1, query.shape[-1]),
            gather_blocks(layer.keys, self._tables, seen),
            gather_blocks(layer.values, self._tables, seen),
            self._masks[params.window],
            params,
        )
        return output.reshape(self._num_rows, heads, -1)

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Return the mask over gathered keys, `(rows, 1, 1, seen)`; None if every row sees all."""
        if self._shortest + 1 == self._end:
            return None
        first = window_start(self._shortest, window)
        seen = torch.arange(first, self._end, device=self._positions.device)
        return additive_mask(seen, self._positions[:, None, None, None], window, dtype)


class DeviceDecodeRows(_PagedRows):
    """Decode rows whose tables and positions are known on the device only.

    `tables` `(rows, blocks)` and `positions` `(rows,)` may be overwritten between passes, as CUDA
    graphs need.
    """

    def __init__(self, tables: Tensor, positions: Tensor, attend: DeviceAttention) -> None:
        self.rows = slice(0, len(positions))
        self._tables, self._positions, self._attend = tables, positions, attend
        blocks = (positions // BLOCK_TOKENS)[:, None]
        self._block_ids = tables.gather(1, blocks.to(torch.int64))[:, 0]
        self._offsets = positions % BLOCK_TOKENS

    def attend(self, layer: LayerCache, query: Tensor, params: AttentionParams) -> Tensor:
        rows = query.transpose(0, 1)
        return self._attend(rows, layer, self._tables, self._positions, params)


def dense_decode_attention(
    query: Tensor, layer: LayerCache, tables: Tensor, positions: Tensor, params: AttentionParams
) -> Tensor:
    """Attend to every block that the tables name, without Triton (see `paged_kernel`)."""
    rows, heads, size = query.shape
    seen = slice(0, tables.shape[1] * BLOCK_TOKENS)
    last = positions[:, None, None, None]
    every = torch.arange(seen.stop, device=query.device)
    # Why: a block may hold NaN beyond its sequence, and masked NaN is still NaN.
    beyond = (every > positions[:, None])[:, None, :, None]
    output = attend(
        query.reshape(rows, layer.keys.shape[1], -1, size),
        gather_blocks(layer.keys, tables, seen).masked_fill(beyond, 0),
        gather_blocks(layer.values, tables, seen).masked_fill(beyond, 0),
        additive_mask(every, last, params.window, query.dtype),
        params,
    )
    return output.reshape(rows, heads, -1)


class PagedChunkRows(_PagedRows, ChunkRows):
    """A prefill chunk of one sequence; `table` `(blocks,)` is its block table."""

    def __init__(self, table: Ints, device: torch.device, prefill: PrefillChunk, row: int) -> None:
        super().__init__(prefill, row)
        self._table = torch.from_numpy(table[None]).to(device)
        positions = np.arange(self._positions.start, self._positions.stop)
        self._block_ids = torch.from_numpy(table[positions // BLOCK_TOKENS]).to(device)
        self._offsets = torch.from_numpy(positions % BLOCK_TOKENS).to(device)

    def _select(self, store: Tensor, seen: slice) -> Tensor:
        return gather_blocks(store, self._table, seen)


def gather_blocks(store: Tensor, tables: Tensor, seen: slice) -> Tensor:
    """Return these positions of some sequences: `(sequences, heads, seen, size)`."""
    first, end = seen.start // BLOCK_TOKENS, -(-seen.stop // BLOCK_TOKENS)
    blocks = store[tables[:, first:end]].transpose(1, 2)
    dense = blocks.reshape(len(tables), blocks.shape[1], -1, blocks.shape[-1])
    start = seen.start - first * BLOCK_TOKENS
    return dense[:, :, start : start + seen.stop - seen.start]
