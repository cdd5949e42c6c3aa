"""Strips reserve room for every slot's longest context and take what is written."""

from __future__ import annotations

import psutil
import torch

from headrace_worker.engine.kvcache.contiguous_cache import ContiguousKvCache

SLOTS, TOKENS, HEADS, SIZE = 64, 4096, 4, 64


def test_short_contexts_in_every_slot_take_little_of_the_memory_that_is_reserved() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    strip = ContiguousKvCache(SLOTS, TOKENS).layer(
        0, torch.ones(1, HEADS, 1, SIZE), torch.ones(1, 1, 1, 1)
    )
    strip.keys[:, :, :16] = 1.0
    reserved = strip.keys.numel() * strip.keys.element_size()
    assert process.memory_info().rss - before < reserved / 20
    assert strip.keys[:, :, 16:].count_nonzero() == 0
