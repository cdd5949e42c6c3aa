"""Rows of scattered slots, attending together or run by run: the same as each slot alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from headrace_worker.engine.kvcache.contiguous_rows import ContiguousDecodeRows
from headrace_worker.engine.kvcache.kv_cache import AttentionParams, LayerCache

KEY_HEADS, HEADS, TOKENS, SIZE = 2, 6, 40, 8
LAYOUTS = {
    "neighbours": [2, 3, 4, 5],
    "holes": [0, 1, 3, 4, 5, 7],
    "scattered": [1, 2, 9, 14],
    "one": [7],
}


@pytest.mark.parametrize("run_bytes", [0, float("inf")], ids=["run by run", "in one call"])
@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_row_sees_its_own_slot_up_to_itself(
    layout: str, window: int | None, run_bytes: float
) -> None:
    draw = torch.Generator().manual_seed(3)
    slots = np.array(LAYOUTS[layout])
    positions = (slots * 7 + 3) % TOKENS
    layer = LayerCache(
        *(torch.randn(16, KEY_HEADS, TOKENS, SIZE, generator=draw) for _ in range(2))
    )
    query = torch.randn(HEADS, len(slots), SIZE, generator=draw)
    rows = ContiguousDecodeRows(slots, positions, run_bytes=run_bytes)
    output = rows.attend(layer, query, AttentionParams(None, window, None, None))
    for row, (slot, position) in enumerate(zip(slots, positions, strict=True)):
        seen = slice(0 if window is None else max(0, position - window + 1), position + 1)
        expected = scaled_dot_product_attention(
            query[:, row : row + 1],
            layer.keys[slot, :, seen].repeat_interleave(HEADS // KEY_HEADS, 0),
            layer.values[slot, :, seen].repeat_interleave(HEADS // KEY_HEADS, 0),
        )
        torch.testing.assert_close(output[row], expected[:, 0])
