"""Decode attention in Triton, run by Triton's interpreter, against plain attention."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from headrace.prefixes import BLOCK_TOKENS
from headrace_worker.engine.base.model_runner import DecodeBatch, Ints, PrefillChunk
from headrace_worker.engine.gpu.paged_kernel import num_splits, paged_decode_attention
from headrace_worker.engine.kvcache.kv_cache import AttentionParams, LayerCache
from headrace_worker.engine.kvcache.paged_cache import PagedKvCache
from headrace_worker.engine.kvcache.paged_rows import dense_decode_attention
from headrace_worker.engine.loading.selfcheck import check_packable
from headrace_worker.engine.model.packed_runner import PackedModelRunner
from helpers.tiny_models import random_model

POSITIONS = [0, 15, 16, 63, 64, 130]
NO_SINKS = AttentionParams(None, None, None, None)
SHAPES = {
    "plain": (4, 4, 16, 16, NO_SINKS),
    "grouped": (4, 2, 16, 16, NO_SINKS),
    "odd groups and a size that is no power of two": (6, 2, 24, 24, NO_SINKS),
    "values of another size": (2, 2, 16, 12, NO_SINKS),
    "a scale of its own": (2, 1, 16, 16, AttentionParams(0.3, None, None, None)),
    "window": (2, 1, 16, 16, AttentionParams(None, 9, None, None)),
    "window over several tiles": (2, 1, 16, 16, AttentionParams(None, 100, None, None)),
    "softcap": (2, 1, 16, 16, AttentionParams(None, None, 2.0, None)),
    "sinks": (3, 1, 16, 16, AttentionParams(None, None, None, torch.tensor([0.5, -1.0, 2.0]))),
    "all at once": (6, 2, 24, 12, AttentionParams(0.2, 70, 3.0, torch.linspace(-1, 1, 6))),
}


def filled(key_heads: int, sizes: tuple[int, int]) -> tuple[LayerCache, Tensor, Tensor]:
    """Random pages, tables of them in no order, and a text for each of `POSITIONS`."""
    generator = torch.Generator().manual_seed(5)
    keys, values = (
        torch.randn(40, key_heads, BLOCK_TOKENS, size, generator=generator) for size in sizes
    )
    blocks = max(POSITIONS) // BLOCK_TOKENS + 1
    tables = torch.stack([torch.randperm(39, generator=generator)[:blocks] + 1 for _ in POSITIONS])
    return LayerCache(keys, values), tables, torch.tensor(POSITIONS)


def plainly(
    query: Tensor, layer: LayerCache, table: Tensor, position: int, form: AttentionParams
) -> Tensor:
    """Attention of one token of one text, from its definition."""
    tokens = torch.arange(position + 1)
    places = table[tokens // BLOCK_TOKENS], tokens % BLOCK_TOKENS
    group = query.shape[0] // layer.keys.shape[1]
    keys = layer.keys[places[0], :, places[1]].repeat_interleave(group, 1)
    values = layer.values[places[0], :, places[1]].repeat_interleave(group, 1)
    scale = query.shape[-1] ** -0.5 if form.scale is None else form.scale
    scores = torch.einsum("hd,nhd->hn", query, keys) * scale
    if form.softcap is not None:
        scores = form.softcap * torch.tanh(scores / form.softcap)
    if form.window is not None:
        scores[:, : max(0, len(tokens) - form.window)] = -torch.inf
    if form.sinks is not None:
        scores = torch.cat((scores, form.sinks[:, None]), dim=1)
    return torch.einsum("hn,nhd->hd", scores.softmax(-1)[:, : len(tokens)], values)


@pytest.mark.parametrize("attention", ["kernel", "dense"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_row_sees_what_plain_attention_sees(shape: str, attention: str) -> None:
    heads, key_heads, key_size, value_size, form = SHAPES[shape]
    layer, tables, positions = filled(key_heads, (key_size, value_size))
    query = torch.randn(len(POSITIONS), heads, key_size)
    attend = (
        partial(paged_decode_attention, programs=32)
        if attention == "kernel"
        else dense_decode_attention
    )
    output = attend(query, layer, tables, positions, form)
    for row, position in enumerate(POSITIONS):
        expected = plainly(query[row], layer, tables[row], position, form)
        torch.testing.assert_close(output[row], expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("attention", ["kernel", "dense"])
def test_positions_beyond_a_sequence_are_never_read(attention: str) -> None:
    layer, tables, positions = filled(2, (16, 16))
    query = torch.randn(len(POSITIONS), 2, 16)
    attend = (
        partial(paged_decode_attention, programs=24)
        if attention == "kernel"
        else dense_decode_attention
    )
    expected = attend(query, layer, tables, positions, NO_SINKS)
    for store in (layer.keys, layer.values):
        # The last page of each text, beyond it; the trash, where tables end.
        for row, position in enumerate(POSITIONS):
            page = tables[row, position // BLOCK_TOKENS]
            if (tables == page).sum() == 1:
                store[page, :, position % BLOCK_TOKENS + 1 :] = torch.nan
        store[0] = torch.nan
    tables[0, 1:] = 0
    output = attend(query, layer, tables, positions, NO_SINKS)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)


def test_parts_do_not_change_what_comes_out() -> None:
    layer, tables, positions = filled(1, (16, 16))
    query = torch.randn(len(POSITIONS), 2, 16)
    whole, parts = (
        paged_decode_attention(query, layer, tables, positions, NO_SINKS, programs=programs)
        for programs in (1, 48)
    )
    torch.testing.assert_close(whole, parts, atol=1e-6, rtol=0)


def test_few_rows_are_cut_into_many_parts_and_many_into_none() -> None:
    assert [num_splits(rows, 8) for rows in (1, 8, 128)] == [32, 8, 1]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
def test_a_model_that_decodes_by_the_kernel_passes_the_check_at_load(family: str) -> None:
    shapes: dict[str, dict[str, object]] = {
        "llama": {},
        "gemma2": {"head_dim": 16, "sliding_window": 9, "attn_logit_softcapping": 2.0},
        "gpt_oss": {
            "num_local_experts": 4,
            "head_dim": 16,
            "sliding_window": 9,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
        },
    }
    attention = partial(paged_decode_attention, programs=4)
    model = random_model(family, **shapes[family])
    check_packable(model, partial(PagedKvCache, device_attention=attention))


def test_decoding_by_the_kernel_reads_what_prefills_wrote() -> None:
    model = random_model("llama")
    check_packable(model, PagedKvCache)
    text = (np.arange(40) * 7919 + 11) % 300
    by_kernel = PagedKvCache(2, 64, device_attention=partial(paged_decode_attention, programs=4))
    with torch.inference_mode():
        logits = [
            _last_logits(PackedModelRunner(model, p), text)
            for p in (by_kernel, PagedKvCache(2, 64))
        ]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=0)


def _last_logits(forward: PackedModelRunner, text: Ints) -> Tensor:
    nothing = np.empty(0, dtype=np.int64)
    none = DecodeBatch(nothing, nothing, nothing)
    forward.run(none, [PrefillChunk(1, 0, text[:-1], is_last_chunk=True)])
    return forward.run(DecodeBatch(np.array([1]), text[-1:], np.array([len(text) - 1])), [])
