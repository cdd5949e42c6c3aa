"""The packed engine against transformers itself: same logits, same tokens, in any company."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

import headrace_worker
from headrace_worker.engine.base.interface import SamplingParameters, Sequence
from headrace_worker.engine.base.model_runner import DecodeBatch, PrefillChunk
from headrace_worker.engine.kvcache.contiguous_cache import ContiguousKvCache
from headrace_worker.engine.loading.builder import CacheTooSmall, EngineBuilder
from headrace_worker.engine.loading.selfcheck import CheckFailed, check_packable
from headrace_worker.engine.model.packed_attention import IMPLEMENTATION
from headrace_worker.engine.model.packed_runner import PackedModelRunner
from helpers.families import FAMILIES
from helpers.running_engine import GREEDY, SAMPLED, History, alone, run, sequence
from helpers.tiny_models import (
    POISON,
    STORES,
    VOCABULARY,
    generated,
    packed,
    poisoned_llama,
    random_model,
    tiny_llama,
)
from helpers.worker_settings import worker_settings

DEFAULT_MODEL = Path(headrace_worker.__file__).parent / "default_model"


def plain_logits(model: PreTrainedModel, token_ids: NDArray[np.int64]) -> Tensor:
    """Every position's logits of one text, by the model as transformers runs it."""
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.from_numpy(token_ids)[None], use_cache=False).logits
    model.set_attn_implementation(IMPLEMENTATION)
    return logits[0].float()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_of_a_mixed_step_has_the_plain_models_logits(family: str, store: str) -> None:
    model = random_model(family, **FAMILIES[family])
    # Side by side, with holes between and far apart, as they join one after the other.
    texts = {slot: (np.arange(48) * (7 + slot) + 31 * slot) % VOCABULARY for slot in SPREAD}
    expected = {slot: plain_logits(model, text) for slot, text in texts.items()}
    forward = PackedModelRunner(model, STORES[store](slots=10, tokens=48))
    decoding: dict[int, int] = {}
    largest = 0.0
    for step in range(33):
        slots = sorted(decoding)
        positions = [decoding[slot] for slot in slots]
        fed = [texts[slot][decoding[slot]] for slot in slots]
        prefills = [
            PrefillChunk(slot, at, texts[slot][at : min(at + 5, PROMPT)], at + 5 >= PROMPT)
            for order, slot in enumerate(SPREAD)
            if 0 <= (at := (step - 2 * order) * 5) < PROMPT
        ]
        with torch.inference_mode():
            logits = forward.run(DecodeBatch(ints(slots), ints(fed), ints(positions)), prefills)
        rows = [
            *decoding_rows(decoding),
            *((p.slot, PROMPT - 1) for p in prefills if p.is_last_chunk),
        ]
        for row, (slot, position) in zip(logits, rows, strict=True):
            largest = max(largest, float((row - expected[slot][position]).abs().max()))
            decoding[slot] = position + 1
    assert largest < 1e-4 * float(torch.stack(list(expected.values())).std())


SPREAD = (3, 0, 2, 4, 9)
"""Slots in the order in which they start."""
PROMPT = 13
"""Tokens that are prefilled; the rest of a text is fed one by one."""


def ints(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def decoding_rows(decoding: dict[int, int]) -> list[tuple[int, int]]:
    return [(slot, decoding[slot]) for slot in sorted(decoding)]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bloom", {}),
        ("mpt", {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 256}),
        ("mamba", {}),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
        ("llama4_text", {"intermediate_size_mlp": 96, "attention_chunk_size": 4, "head_dim": 16}),
    ],
)
def test_an_architecture_with_attention_or_state_of_its_own_is_found_out_at_load(
    family: str, changes: dict[str, object], learned: Callable[[str], None]
) -> None:
    """Or it is right: then transformers has learned to run it with any attention."""
    model = random_model(family, **changes)
    try:
        check_packable(model, ContiguousKvCache)
    except CheckFailed:
        return
    parameters = replace(GREEDY, max_tokens=16, ignore_eos=True)
    sequences = [sequence(number, parameters) for number in range(5)]
    history = run(packed(model, max_slots=3), sequences)
    plain = random_model(family, **changes)
    for one in sequences:
        assert history.tokens[one.sequence_id] == generated(plain, one.prompt_ids, 16)
    learned(f"transformers {transformers.__version__} can pack {family}: move it to FAMILIES")


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_check_at_load_passes_what_works(family: str, store: str) -> None:
    check_packable(random_model(family, **FAMILIES[family]), STORES[store])


@pytest.mark.parametrize("store", STORES)
def test_greedy_tokens_are_those_of_generate(store: str) -> None:
    parameters = replace(GREEDY, max_tokens=40, ignore_eos=True)
    sequences = [sequence(number, parameters) for number in range(12)]
    history = run(packed(tiny_llama(), max_slots=5, kv_store=store), sequences)
    plain = random_model("llama")
    for one in sequences:
        assert history.tokens[one.sequence_id] == generated(plain, one.prompt_ids, 40)


MIXED = [
    GREEDY,
    SAMPLED,
    SamplingParameters(
        max_tokens=24,
        temperature=1.3,
        top_k=50,
        top_p=0.95,
        min_p=0.01,
        repetition_penalty=1.2,
        presence_penalty=0.3,
        frequency_penalty=0.3,
        logit_bias={20: 2.0},
    ),
    SamplingParameters(
        max_tokens=24,
        temperature=1.1,
        min_tokens=7,
        bad_words=((11,), (12, 13), (14, 15, 16)),
        allowed_token_ids=frozenset((7, *range(10, 30))),
    ),
]


def mixed(number: int, output_ids: tuple[int, ...] = ()) -> Sequence:
    """Sequence `number`, by one of the kinds of parameters."""
    parameters = replace(MIXED[number % len(MIXED)], max_tokens=10)
    return sequence(number, parameters, output_ids=output_ids)


@cache
def expected_of_mixed() -> dict[int, list[int]]:
    """What each of nine generates alone."""
    return {number: alone(packed(tiny_llama()), mixed(number)) for number in range(9)}


KINDS: dict[str, dict[str, Any]] = {
    "strips": {},
    "pages": {"kv_store": "pages"},
    "pages, async": {"kv_store": "pages", "async_scheduling": True},
}
DISRUPTIONS = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from(["park", "cancel"]), st.integers(0, 8)),
    max_size=8,
)
"""After so many steps, this happens to one of those held."""


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(
    slots=st.integers(1, 7),
    chunk=st.sampled_from([1, 5, 16, 128]),
    order=st.permutations(range(9)),
    arrivals=st.integers(1, 4),
    disruptions=DISRUPTIONS,
)
def test_no_order_of_arrival_cancelling_and_parking_changes_a_token(
    kind: str,
    slots: int,
    chunk: int,
    order: list[int],
    arrivals: int,
    disruptions: list[tuple[int, str, int]],
) -> None:
    engine = packed(tiny_llama(), max_slots=slots, prefill_chunk_tokens=chunk, **KINDS[kind])
    waiting = [mixed(number) for number in order]
    history = History()
    while waiting or engine.has_work:
        for _ in range(min(arrivals, len(waiting), engine.statistics().free_slots)):
            engine.admit(waiting.pop())
        steps, what, which = disruptions.pop() if disruptions else (4, "nothing", 0)
        for _ in range(steps):
            history.step(engine)
        held = set(order) - history.finished.keys() - {one.sequence_id for one in waiting}
        if what == "nothing" or not held:
            continue
        number = sorted(held)[which % len(held)]
        if what == "park":
            output_ids = engine.park(number)
            assert list(output_ids) == history.tokens.get(number, [])
            waiting.insert(0, mixed(number, output_ids))
        else:
            engine.cancel(number)
            history.tokens.pop(number, None)
            waiting.append(mixed(number))
    assert history.tokens == expected_of_mixed()


@pytest.mark.parametrize("store", STORES)
def test_a_row_of_nans_fails_alone_and_its_slot_is_clean_again(store: str) -> None:
    engine = packed(poisoned_llama(nan=True), max_slots=2, kv_store=store)
    # The longest keeps what the culprit leaves behind in sight of its short successors.
    healthy = [sequence(0, prompt_tokens=60), *(sequence(n, prompt_tokens=4) for n in (1, 2))]
    expected = {one.sequence_id: alone(engine, one) for one in healthy}
    poisoned = replace(sequence(9), prompt_ids=(20, POISON, *range(20, 40)))
    history = run(engine, [healthy[0], poisoned, *healthy[1:]])
    assert history.failed == {9: "its logits are not finite"}
    assert history.tokens == expected


@pytest.mark.parametrize("store", STORES)
def test_a_prompt_of_nans_cancelled_before_its_first_token_leaves_a_clean_slot(store: str) -> None:
    engine = packed(poisoned_llama(nan=True), max_slots=1, kv_store=store)
    expected = alone(engine, sequence(0))
    engine.admit(replace(sequence(9), prompt_ids=(20, POISON, *range(20, 60))))
    engine.step()
    engine.cancel(9)
    assert alone(engine, sequence(0)) == expected


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a kernel"), torch.OutOfMemoryError("tried to allocate"), MemoryError(), None],
    ids=lambda error: type(error).__name__,
)
def test_of_a_batch_of_eight_the_culprit_alone_fails(error: Exception | None) -> None:
    expected = {n: expected_of_mixed()[n] for n in range(7)}
    model = poisoned_llama(nan=error is None, error=error)
    engine = packed(model, max_slots=8, prefill_chunk_tokens=64)
    culprit = replace(mixed(9), prompt_ids=(20, POISON, 21))
    history = run(engine, [*(mixed(n) for n in range(4)), culprit, *(mixed(n) for n in (4, 5, 6))])
    assert history.failed.keys() == {9}
    assert (type(error).__name__ if error else "not finite") in history.failed[9]
    assert history.tokens == expected


@pytest.mark.parametrize("store", STORES)
def test_several_culprits_in_one_step_fail_and_the_rest_go_on(store: str) -> None:
    engine = packed(poisoned_llama(), max_slots=7, prefill_chunk_tokens=128, kv_store=store)
    numbers = (0, 1, 2, 3)
    expected = {number: alone(engine, sequence(number)) for number in numbers}
    culprits = [replace(sequence(n), prompt_ids=(20, POISON, n)) for n in (10, 11, 12)]
    history = History()
    for one in (sequence(0), culprits[0], sequence(1), culprits[1], sequence(2), culprits[2]):
        engine.admit(one)
    history.step(engine)
    assert history.tokens.keys() == {0, 1, 2}, "the healthy waited for the culprits"
    engine.admit(sequence(3))
    while engine.has_work:
        history.step(engine)
    assert history.failed.keys() == {10, 11, 12}
    assert history.tokens == expected


def test_prompts_are_prefilled_in_the_order_of_their_arrival() -> None:
    engine = packed(tiny_llama(), prefill_chunk_tokens=16)
    history = History()
    for number, prompt_tokens in ((2, 30), (0, 4), (1, 10)):
        engine.admit(sequence(number, prompt_tokens=prompt_tokens))
    first_tokens = []
    for _ in range(3):
        history.step(engine)
        first_tokens.append(sorted(history.tokens))
    assert first_tokens == [[], [2], [0, 1, 2]]


def test_slots_are_as_many_as_the_cache_takes() -> None:
    token_bytes = 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, size, float32
    settings = worker_settings(context_tokens=128)
    enough = EngineBuilder(random_model("llama"), settings, cache_bytes=5 * 128 * token_bytes + 1)
    assert enough.packed().facts.max_slots == 5
    with pytest.raises(CacheTooSmall, match=str(128 * token_bytes)):
        EngineBuilder(random_model("llama"), settings, cache_bytes=1000).packed()


def test_the_context_is_the_models_own_where_more_is_requested() -> None:
    assert packed(random_model("llama"), context_tokens=9999).facts.context_tokens == 256


def test_the_context_ends_where_attention_in_chunks_would_differ() -> None:
    shape: dict[str, object] = {"intermediate_size_mlp": 96, "head_dim": 16}
    model = random_model("llama4_text", attention_chunk_size=64, **shape)
    assert packed(model, context_tokens=128).facts.context_tokens == 64
