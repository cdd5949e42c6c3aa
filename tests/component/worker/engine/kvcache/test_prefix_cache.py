"""Contexts with one prefix: it is computed once, and no output differs for it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from headrace.prefixes import BLOCK_TOKENS, block_hashes, root_hash
from headrace_worker.engine.base.interface import Engine, EngineStatistics, Sequence
from headrace_worker.engine.base.model_runner import (
    DecodeBatch,
    Ints,
    PrefillChunk,
    SequenceContext,
)
from headrace_worker.engine.kvcache.kv_cache import PromptContext
from headrace_worker.engine.model.packed_attention import IMPLEMENTATION
from headrace_worker.engine.model.packed_runner import PackedModelRunner
from helpers.running_engine import GREEDY, SAMPLED, History, alone, run, sequence
from helpers.tiny_models import STORES, VOCABULARY, packed, random_model, stepwise, tiny_llama

FAMILIES: dict[str, dict[str, object]] = {
    "llama": {},
    "gemma2": {"head_dim": 16, "sliding_window": 9, "attn_logit_softcapping": 2.0},
    "gpt_oss": {
        "num_local_experts": 4,
        "head_dim": 16,
        "sliding_window": 9,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    },
    "deepseek_v3": {
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "num_key_value_heads": 4,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 12,
    },
}
NOTHING = DecodeBatch(*(np.empty(0, dtype=np.int64) for _ in range(3)))


@pytest.mark.parametrize("store", STORES)
def test_a_prefix_in_float16_is_finite_though_its_sum_overflows(store: str) -> None:
    kept, free = STORES[store](2, 64), [0, 1]
    text = PromptContext(
        2 * BLOCK_TOKENS + 1, block_hashes(np.arange(2 * BLOCK_TOKENS), root_hash(""))
    )
    slot = kept.assign_slot(free, text)
    kept.allocate(slot)
    like = torch.zeros(1, 8, 1, 64, dtype=torch.float16)
    layer = kept.layer(0, like, like)
    kept.reserve(np.array([slot]), np.array([text.tokens]))
    for numbers in (layer.keys, layer.values):
        numbers.fill_(100)
    kept.release(slot, text.block_hashes)
    assert kept.allocate(kept.assign_slot(free, text)) == 2 * BLOCK_TOKENS


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("left", [False, True], ids=["from a running one", "from one that left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_behind_a_copied_prefix_are_the_plain_models(
    family: str, left: bool, store: str
) -> None:
    model = random_model(family, **FAMILIES[family])
    first = (np.arange(60) * 7919 + 11) % VOCABULARY
    other = np.concatenate((first[:37], (np.arange(23) * 31 + 5) % VOCABULARY))
    expected = _plain_logits(model, other)
    forward = PackedModelRunner(model, STORES[store](3, 64), prefix_root=root_hash(""))
    with torch.inference_mode():
        slot = forward.assign_slot([0, 1, 2], SequenceContext(first))
        assert _computed(forward, slot, first)[0] == 0
        if left:
            forward.release(0, first)
        slot = forward.assign_slot([1, 2], SequenceContext(other))
        known, logits = _computed(forward, slot, other)
    assert known == 37 // BLOCK_TOKENS * BLOCK_TOKENS
    error = float((logits - expected[-1]).abs().max())
    assert error < 1e-4 * float(expected.std())


def _plain_logits(model: nn.Module, text: Ints) -> Tensor:
    model.set_attn_implementation("eager")  # type: ignore[operator]  # theirs
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.from_numpy(text)[None], use_cache=False).logits[0]
    model.set_attn_implementation(IMPLEMENTATION)  # type: ignore[operator]
    return logits


def _computed(forward: PackedModelRunner, slot: int, text: Ints) -> tuple[int, Tensor]:
    known = forward.allocate(slot)
    assert known is not None
    return known, forward.run(
        NOTHING, [PrefillChunk(slot, known, text[known:], is_last_chunk=True)]
    )[0]


def conversation(number: int, turn: int) -> Sequence:
    """A prompt of `turn` pieces; conversations 0 and 1, 2 and 3, ... begin alike."""
    shared = [50 + number // 2] * 20
    own = [(number * 37 + place * 11) % 200 for place in range(13 * turn)]
    parameters = (GREEDY, SAMPLED)[number % 2]
    one = sequence(10 * number + turn, replace(parameters, max_tokens=6))
    return replace(one, prompt_ids=(*shared, *own))


@cache
def said_without(number: int, turn: int) -> list[int]:
    return alone(packed(tiny_llama(), prefix_cache=False), conversation(number, turn))


EVENTS = st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(0, 3), st.booleans())
"""A conversation, its turn, steps that follow, and whether it is then parked until the end."""


@pytest.mark.parametrize("store", STORES)
@settings(max_examples=15, deadline=None)
@given(
    slots=st.integers(1, 5),
    chunk=st.sampled_from([5, 16, 128]),
    events=st.lists(EVENTS, max_size=16),
)
def test_no_history_of_the_cache_changes_a_token(
    store: str, slots: int, chunk: int, events: list[tuple[int, int, int, bool]]
) -> None:
    engine = packed(tiny_llama(), max_slots=slots, prefill_chunk_tokens=chunk, kv_store=store)
    history, parked = History(), dict[int, Sequence]()
    admitted = set[int]()
    for number, turn, steps, parks in events:
        one = conversation(number, turn)
        if one.sequence_id in admitted or engine.statistics().free_slots == 0:
            continue
        admitted.add(one.sequence_id)
        engine.admit(one)
        for _ in range(steps):
            history.step(engine)
        if parks and one.sequence_id not in history.finished:
            output_ids = engine.park(one.sequence_id)
            parked[one.sequence_id] = replace(one, output_ids=output_ids)
            engine.check_integrity()
    while engine.has_work:
        history.step(engine)
    rest = run(engine, parked.values())
    assert history.finished.keys() | rest.finished.keys() == admitted
    for sequence_id in admitted:
        tokens = history.tokens.get(sequence_id, []) + rest.tokens.get(sequence_id, [])
        assert tokens == said_without(*divmod(sequence_id, 10))


@pytest.mark.parametrize("store", STORES)
def test_the_next_turn_of_a_conversation_computes_only_what_is_new(store: str) -> None:
    engine = packed(tiny_llama(), kv_store=store)
    first = sequence(1, replace(GREEDY, max_tokens=20, ignore_eos=True), prompt_tokens=50)
    answer = tuple(alone(engine, first))
    computed = engine.statistics().prompt_tokens
    second = replace(first, prompt_ids=(*first.prompt_ids, *answer, *range(10, 19)))
    fresh = alone(packed(tiny_llama(), prefix_cache=False), second)
    assert alone(engine, second) == fresh
    # The answer's last token was never fed, so 69 of 79 were cached: 4 blocks.
    assert engine.statistics().prompt_tokens - computed == 79 - 64
    assert _asked(engine) == (50 + 79, 64)


@pytest.mark.parametrize("store", STORES)
def test_a_prompt_that_is_known_whole_computes_its_last_tokens_all_the_same(store: str) -> None:
    engine = packed(tiny_llama(), kv_store=store)
    one = sequence(1, prompt_tokens=2 * BLOCK_TOKENS)
    assert alone(engine, one) == alone(engine, one)
    assert _asked(engine) == (4 * BLOCK_TOKENS, BLOCK_TOKENS)


@pytest.mark.parametrize("store", STORES)
def test_cached_prompt_tokens_are_reported_whatever_output_was_cached_with_them(
    store: str,
) -> None:
    engine = packed(tiny_llama(), kv_store=store)
    long = replace(GREEDY, max_tokens=40, ignore_eos=True)
    one = sequence(1, long, prompt_tokens=40)
    fresh = run(engine, [one])
    assert fresh.cached_prompts == {1: 0}
    again = replace(one, output_ids=tuple(fresh.tokens[1][:30]))
    assert run(engine, [again]).cached_prompts == {1: 40}
    with_logprobs = replace(one, parameters=replace(long, prompt_logprobs=0))
    assert run(engine, [with_logprobs]).cached_prompts == {1: 0}


@pytest.mark.parametrize("store", STORES)
def test_sequences_of_one_prompt_that_wait_for_their_prefill_share_what_the_first_computed(
    store: str,
) -> None:
    engine = packed(tiny_llama(), prefill_chunk_tokens=16, kv_store=store)
    same = [
        replace(sequence(1, SAMPLED, prompt_tokens=50), sequence_id=n, seed=n) for n in range(3)
    ]
    together = run(engine, same)
    assert _asked(engine) == (150, 96)
    assert together.cached_prompts == {0: 0, 1: 48, 2: 48}
    for one in same:
        assert together.tokens[one.sequence_id] == alone(
            packed(tiny_llama(), prefix_cache=False), one
        )


def test_what_a_sequence_left_is_used_until_another_needs_the_slot() -> None:
    engine = packed(tiny_llama(), max_slots=2)
    a, b, c = (sequence(number, prompt_tokens=40) for number in (1, 2, 3))
    for one, hits in ((a, 0), (b, 0), (a, 32), (c, 32), (a, 64), (b, 64)):
        alone(engine, one)
        assert engine.statistics().prefix_hits == hits


@pytest.mark.parametrize("store", STORES)
def test_a_sequence_that_left_before_its_first_pass_leaves_what_it_found(store: str) -> None:
    engine = packed(tiny_llama(), max_slots=1, kv_store=store)
    a, b = (sequence(number, prompt_tokens=40) for number in (1, 2))
    alone(engine, a)
    engine.admit(b)
    engine.cancel(b.sequence_id)
    alone(engine, a)
    assert engine.statistics().prefix_hits == 32


@pytest.mark.parametrize("store", STORES)
def test_blocks_that_are_not_finite_are_not_reused(store: str) -> None:
    model, broken = random_model("llama"), [True]

    def fault(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * float("nan") if broken[0] else output

    engine = packed(model, max_slots=2, kv_store=store)
    model.get_input_embeddings().register_forward_hook(fault)
    one = sequence(1, prompt_tokens=60)
    engine.admit(one)
    for _ in range(6):
        engine.step()
    broken[0] = False
    engine.cancel(one.sequence_id)
    engine.admit(one)
    engine.step()
    assert engine.statistics().prefix_hits == 0
    engine.cancel(one.sequence_id)
    assert alone(engine, one) == alone(packed(tiny_llama(), prefix_cache=False), one)


@pytest.mark.parametrize("store", STORES)
def test_a_failed_sequence_leaves_nothing_to_share(store: str) -> None:
    model, broken = random_model("llama"), [False]

    def fault(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if broken[0]:
            raise RuntimeError("out of order")
        return output

    engine = packed(model, kv_store=store)
    model.get_input_embeddings().register_forward_hook(fault)
    one = sequence(1, prompt_tokens=60)
    history = History()
    engine.admit(one)
    for _ in range(5):
        history.step(engine)
    broken[0] = True
    history.step(engine)
    assert history.failed.keys() == {1}
    broken[0] = False
    assert alone(engine, one) == alone(packed(tiny_llama()), one)
    assert engine.statistics().prefix_hits == 0


def test_an_engine_without_prefix_cache_reports_so() -> None:
    for engine in (packed(tiny_llama(), prefix_cache=False), stepwise(random_model("llama"))):
        one = sequence(1, prompt_tokens=40)
        assert alone(engine, one) == alone(engine, one)
        assert _asked(engine) == (0, 0)


def _asked(engine: Engine) -> tuple[int, int]:
    statistics: EngineStatistics = engine.statistics()
    return statistics.prefix_queries, statistics.prefix_hits


def test_blocks_of_a_finished_sequence_are_cached_until_another_needs_them() -> None:
    token_bytes = 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, size, float32
    engine = packed(
        tiny_llama(),
        kv_store="pages",
        context_tokens=64,
        cache_bytes=(1 + 6) * BLOCK_TOKENS * token_bytes,
    )
    a, b, c = (sequence(n, replace(GREEDY, max_tokens=2), prompt_tokens=40) for n in (1, 2, 3))
    # Each takes three pages and leaves two that are whole; for the third one page is missing.
    for one, hits in ((a, 0), (b, 0), (a, 32), (c, 32), (a, 64), (b, 64 + 16)):
        alone(engine, one)
        assert engine.statistics().prefix_hits == hits, one.sequence_id


def test_prefixes_are_shared_rather_than_copied_in_the_paged_cache() -> None:
    engine = packed(tiny_llama(), kv_store="pages", prefill_chunk_tokens=128)
    same = [
        replace(sequence(1, SAMPLED, prompt_tokens=50), sequence_id=n, seed=n) for n in range(3)
    ]
    for one in same:
        engine.admit(one)
        engine.step()
    # Three blocks once, and the fourth for each.
    assert engine.statistics().cache_tokens_used == (3 + 3) * BLOCK_TOKENS
