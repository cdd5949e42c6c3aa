"""Decode attention over blocks, in Triton: every row reads its own blocks where they lie.

Split-KV: what a row sees is cut into `splits` parts that run side by side, and a
second kernel puts them together, so that one long sequence keeps a whole GPU busy.
Imported only where there is Triton; without a GPU it runs in Triton's interpreter
(TRITON_INTERPRET=1), which is how it is tested.
"""

# The kernels are compiled from their source: what looks like Python here is Triton.

import torch
import triton
import triton.language as tl
from torch import Tensor

from headrace.prefixes import BLOCK_TOKENS
from headrace_worker.engine.kvcache.kv_cache import AttentionParams, LayerCache

_TILE_TOKENS = 64
"""Positions that a program processes at once."""
_PROGRAMS = 512
"""Wanted in parallel: a few for each processor of a large GPU."""
_MOST_SPLITS = 32


@triton.jit
def _attend_part(
    query, keys, values, tables, positions, parts, tops, sums,
    query_row, query_head, key_block, key_head, key_token, value_block, value_head, value_token,
    table_row, scale, softcap,
    WINDOW: tl.constexpr, SPLITS: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr,
    GROUP_ROOM: tl.constexpr, KEY_SIZE: tl.constexpr, KEY_ROOM: tl.constexpr,
    VALUE_SIZE: tl.constexpr, VALUE_ROOM: tl.constexpr,
    BLOCK: tl.constexpr, TILE: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
):  # fmt: skip
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    end = tl.load(positions + row) + 1
    start = 0
    if WINDOW > 0:
        start = tl.maximum(end - WINDOW, 0)
    first, last = start // TILE, tl.cdiv(end, TILE)
    each = tl.cdiv(last - first, SPLITS)
    low = first + split * each
    high = tl.minimum(low + each, last)

    member = tl.arange(0, GROUP_ROOM)
    key_at, value_at = tl.arange(0, KEY_ROOM), tl.arange(0, VALUE_ROOM)
    heads = head * GROUP + member
    queries = tl.load(
        query + row * query_row + heads[:, None] * query_head + key_at[None, :],
        mask=(member < GROUP)[:, None] & (key_at < KEY_SIZE)[None, :],
        other=0.0,
    )
    top = tl.full((GROUP_ROOM,), float("-inf"), tl.float32)
    weight = tl.zeros((GROUP_ROOM,), tl.float32)
    gathered = tl.zeros((GROUP_ROOM, VALUE_ROOM), tl.float32)
    for tile in range(low, high):
        token = tile * TILE + tl.arange(0, TILE)
        # What is not seen is never read: it may be no number.
        seen = (token < end) & (token >= start)
        block = tl.load(tables + row * table_row + token // BLOCK, mask=seen, other=0).to(tl.int64)
        key = tl.load(
            keys
            + (block * key_block + head * key_head + (token % BLOCK) * key_token)[:, None]
            + key_at[None, :],
            mask=seen[:, None] & (key_at < KEY_SIZE)[None, :],
            other=0.0,
        )
        # ieee: float32 would be cut to nineteen bits otherwise.
        score = tl.dot(queries, tl.trans(key), input_precision="ieee") * scale
        if HAS_SOFTCAP:
            score = softcap * (2 * tl.sigmoid(2 * score / softcap) - 1)
        score = tl.where(seen[None, :], score, float("-inf"))
        # Every tile from first to last has a token that is seen, so this is a number.
        higher = tl.maximum(top, tl.max(score, 1))
        shrink = tl.exp(top - higher)
        share = tl.exp(score - higher[:, None])
        value = tl.load(
            values
            + (block * value_block + head * value_head + (token % BLOCK) * value_token)[:, None]
            + value_at[None, :],
            mask=seen[:, None] & (value_at < VALUE_SIZE)[None, :],
            other=0.0,
        )
        weight = weight * shrink + tl.sum(share, 1)
        gathered = gathered * shrink[:, None] + tl.dot(
            share.to(value.dtype), value, input_precision="ieee"
        )
        top = higher

    place = (row * HEADS + heads) * SPLITS + split
    tl.store(
        parts + place[:, None] * VALUE_SIZE + value_at[None, :],
        gathered,
        mask=(member < GROUP)[:, None] & (value_at < VALUE_SIZE)[None, :],
    )
    tl.store(tops + place, top, mask=member < GROUP)
    tl.store(sums + place, weight, mask=member < GROUP)


@triton.jit
def _join_parts(
    parts, tops, sums, sinks, output,
    SPLITS: tl.constexpr, HEADS: tl.constexpr, VALUE_SIZE: tl.constexpr,
    VALUE_ROOM: tl.constexpr, HAS_SINKS: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0), tl.program_id(1)
    place = (row * HEADS + head) * SPLITS
    split, value_at = tl.arange(0, SPLITS), tl.arange(0, VALUE_ROOM)
    top = tl.load(tops + place + split)
    highest = tl.max(top, 0)
    sink = 0.0
    if HAS_SINKS:
        sink = tl.load(sinks + head).to(tl.float32)
        highest = tl.maximum(highest, sink)
    share = tl.exp(top - highest)
    total = tl.sum(tl.load(sums + place + split) * share, 0)
    if HAS_SINKS:
        total += tl.exp(sink - highest)
    inside = value_at < VALUE_SIZE
    part = tl.load(
        parts + (place + split)[:, None] * VALUE_SIZE + value_at[None, :],
        mask=inside[None, :],
        other=0.0,
    )
    joined = tl.sum(part * share[:, None], 0) / total
    tl.store(output + (row * HEADS + head) * VALUE_SIZE + value_at, joined, mask=inside)


def num_splits(rows: int, key_heads: int, programs: int = _PROGRAMS) -> int:
    """Return into how many parts each row is split; a power of two, the same for equal batches."""
    requested = max(1, programs // (rows * key_heads))
    return min(_MOST_SPLITS, 1 << (requested.bit_length() - 1))


def paged_decode_attention(
    query: Tensor,
    layer: LayerCache,
    tables: Tensor,
    positions: Tensor,
    params: AttentionParams,
    *,
    programs: int = _PROGRAMS,
) -> Tensor:
    """Compute attention of one token per row over the blocks of its sequence.

    `query` is `(rows, query heads, size)`, `tables` `(rows, blocks)`, `positions` `(rows,)`;
    returns `(rows, query heads, value size)`.
    """
    rows, heads, key_size = query.shape
    key_heads, value_size = layer.keys.shape[1], layer.values.shape[3]
    splits, group = num_splits(rows, key_heads, programs), heads // key_heads
    query = query.contiguous()
    parts = query.new_empty((rows, heads, splits, value_size), dtype=torch.float32)
    tops, sums = (query.new_empty((rows, heads, splits), dtype=torch.float32) for _ in range(2))
    output = query.new_empty((rows, heads, value_size))
    value_room = triton.next_power_of_2(value_size)
    _attend_part[(rows, key_heads, splits)](
        query, layer.keys, layer.values, tables, positions, parts, tops, sums,
        *query.stride()[:2], *layer.keys.stride()[:3], *layer.values.stride()[:3],
        tables.stride(0), key_size**-0.5 if params.scale is None else params.scale,
        params.softcap or 1.0,
        WINDOW=params.window or 0, SPLITS=splits, HEADS=heads, GROUP=group,
        # Sixteen: the least that a tensor core multiplies.
        GROUP_ROOM=max(16, triton.next_power_of_2(group)),
        KEY_SIZE=key_size, KEY_ROOM=max(16, triton.next_power_of_2(key_size)),
        VALUE_SIZE=value_size, VALUE_ROOM=max(16, value_room),
        BLOCK=BLOCK_TOKENS, TILE=_TILE_TOKENS, HAS_SOFTCAP=params.softcap is not None,
    )  # fmt: skip
    _join_parts[(rows, heads)](
        parts, tops, sums, tops if params.sinks is None else params.sinks, output,
        SPLITS=splits, HEADS=heads, VALUE_SIZE=value_size, VALUE_ROOM=value_room,
        HAS_SINKS=params.sinks is not None,
    )  # fmt: skip
    return output
