"""No neighbour, chunk, cached beginning or attempt changes a token, however long the texts are.

For families whose attention or frequencies change at some length, on both sides of it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import PreTrainedModel

from headrace_worker.engine.base.interface import SamplingParameters, Sequence
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.files.rope import fix_frequencies
from headrace_worker.engine.kvcache.contiguous_cache import ContiguousKvCache
from headrace_worker.engine.kvcache.paged_cache import PagedKvCache
from headrace_worker.engine.loading.selfcheck import (
    CheckFailed,
    check_packable,
    check_steppable,
)
from helpers.running_engine import GREEDY, SAMPLED, alone, run
from helpers.switching_families import CONTEXT, SWITCH, SWITCHING
from helpers.tiny_models import VOCABULARY, generated, packed, random_model, stepwise

LENGTHS = (3, SWITCH - 4, SWITCH + 1, 40)
"""Of prompts, each the beginning of the longer ones."""
OUTPUT_TOKENS = 6
PARAMETERS: list[SamplingParameters] = [
    replace(each, max_tokens=OUTPUT_TOKENS, ignore_eos=True) for each in (GREEDY, SAMPLED)
]
KINDS: dict[str, dict[str, Any]] = {
    "strips": {"kv_store": "strips"},
    "pages, async": {"kv_store": "pages", "async_scheduling": True},
    "stepwise": {},
}
_OTHERS = (
    "phi3, LongRoPE",
    "phimoe, LongRoPE",
    "llama, dynamic NTK",
    "gpt_oss, sinks and a window",
)
WAYS = [(family, "strips") for family in SWITCHING]
WAYS += [(family, kind) for family in _OTHERS for kind in KINDS if kind != "strips"]
BY_THE_LONGEST = [name for name, family in SWITCHING.items() if family.chooses_by_the_longest]


def one_of(number: int) -> Sequence:
    """Sequence `number`: every length twice, once greedy and once sampled."""
    prompt_ids = tuple((place * 7919 + 11) % 200 + 10 for place in range(LENGTHS[number // 2]))
    return Sequence(number, prompt_ids, (), PARAMETERS[number % 2], seed=number * 2**57 + 3)


@cache
def model_of(family: str, kind: str) -> PreTrainedModel:
    """A model for each way to run, for each sets attention of its own."""
    return random_model(SWITCHING[family].model_type, **SWITCHING[family].changes)


def engine_of(family: str, kind: str, **more: Any) -> SlotEngine:
    make = stepwise if kind == "stepwise" else packed
    return make(model_of(family, kind), context_tokens=CONTEXT, **KINDS[kind], **more)


def numbers(family: str, kind: str) -> list[int]:
    """The sequences that fit the context in which the family is right."""
    tokens = CONTEXT if kind == "stepwise" else SWITCHING[family].context_tokens
    return [n for n in range(2 * len(LENGTHS)) if LENGTHS[n // 2] + OUTPUT_TOKENS <= tokens]


@cache
def undisturbed(family: str, kind: str) -> dict[int, list[int]]:
    """What each says that has an engine to itself, whole prompts, nothing cached."""
    engine = engine_of(family, kind, prefix_cache=False, prefill_chunk_tokens=CONTEXT, max_slots=1)
    return {number: alone(engine, one_of(number)) for number in numbers(family, kind)}


@pytest.mark.parametrize(("family", "kind"), WAYS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_tokens_are_those_of_a_request_that_is_alone(
    family: str, kind: str, data: st.DataObject
) -> None:
    expected = undisturbed(family, kind)
    chunk, slots = data.draw(st.sampled_from([1, 5, SWITCH, CONTEXT])), data.draw(st.integers(1, 6))
    order = data.draw(st.permutations(sorted(expected)))
    attempts = {n: data.draw(st.integers(0, OUTPUT_TOKENS - 1)) for n in order}
    engine = engine_of(family, kind, prefill_chunk_tokens=chunk, max_slots=slots)
    resumed = [replace(one_of(n), output_ids=tuple(expected[n][: attempts[n]])) for n in order]
    history = run(engine, resumed)
    assert history.tokens == {n: expected[n][attempts[n] :] for n in order}


@pytest.mark.parametrize("family", SWITCHING)
def test_the_context_that_the_check_at_load_finds_is_correct(family: str) -> None:
    one = SWITCHING[family]
    assert engine_of(family, "strips").facts.context_tokens == one.context_tokens


@pytest.mark.parametrize("store", [ContiguousKvCache, PagedKvCache])
@pytest.mark.parametrize("family", BY_THE_LONGEST)
def test_a_model_that_depends_on_the_longest_sequence_is_found_at_load(
    family: str, store: type[ContiguousKvCache] | type[PagedKvCache]
) -> None:
    one = SWITCHING[family]
    model = random_model(one.model_type, **one.changes)
    width = one.changes.get("sliding_window")
    if width is not None and width < SWITCH:
        # That far, and so short of the switch, it is right all the same.
        assert check_packable(model, store, CONTEXT).max_context_tokens == width
    else:
        with pytest.raises(CheckFailed, match="at position"):
            check_packable(model, store, CONTEXT)
        with pytest.raises(CheckFailed, match="at position"):
            check_steppable(model, CONTEXT)
    fix_frequencies(model, CONTEXT)
    assert check_packable(model, store, CONTEXT).max_context_tokens is None
    assert check_steppable(model, CONTEXT).max_context_tokens is None


class Longest(nn.Module):
    """Scales what comes through by the longest text of the pass, from a position on."""

    def __init__(self, rotary: nn.Module, position: int) -> None:
        super().__init__()
        self.rotary, self.position = rotary, position

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scale = 0.5 if int(position_ids.max()) >= self.position else 1.0
        return tuple(each * scale for each in self.rotary(x, position_ids))


@pytest.mark.parametrize("position", [SWITCH, 5000, 131_000])
def test_an_unknown_family_that_depends_on_the_longest_sequence_is_found_at_load(
    position: int,
) -> None:
    model = random_model("llama", max_position_embeddings=131_072)
    inner: Any = model.model
    inner.rotary_emb = Longest(inner.rotary_emb, position)
    with pytest.raises(CheckFailed, match="at position"):
        check_packable(model, ContiguousKvCache, 131_072)
    with pytest.raises(CheckFailed, match="at position"):
        check_steppable(model, 131_072)
    assert check_packable(model, ContiguousKvCache, SWITCH).max_context_tokens is None


@pytest.mark.parametrize(
    ("family", "kind"), [(family, kind) for family, kind in WAYS if family in BY_THE_LONGEST]
)
def test_tokens_are_those_of_generate_where_its_choice_is_the_same(family: str, kind: str) -> None:
    one = SWITCHING[family]
    make = stepwise if kind == "stepwise" else packed
    plain = random_model(one.model_type, **one.changes)
    cases = [(SWITCH, (3, SWITCH - OUTPUT_TOKENS))]
    if "LongRoPE" in family:
        cases.append((CONTEXT, (SWITCH + 1, 40)))
    for context_tokens, lengths in cases:
        model = random_model(one.model_type, **one.changes)
        engine = make(model, context_tokens=context_tokens, **KINDS[kind])
        for length in lengths:
            prompt_ids = tuple((place * 7919 + 11) % VOCABULARY for place in range(length))
            said = alone(engine, Sequence(0, prompt_ids, (), PARAMETERS[0], seed=1))
            assert said == generated(plain, prompt_ids, OUTPUT_TOKENS)


def test_workers_continue_each_others_answers_only_with_the_same_frequencies() -> None:
    def digest(family: str, context_tokens: int) -> str:
        one = SWITCHING[family]
        model = random_model(one.model_type, **one.changes)
        return packed(model, context_tokens=context_tokens).facts.weights_digest

    long, dynamic = "llama, LongRoPE", "llama, dynamic NTK"
    assert digest(long, 20) == digest(long, SWITCH) == digest(dynamic, SWITCH)
    assert digest(long, SWITCH + 1) == digest(long, CONTEXT) != digest(long, SWITCH)
    assert len({digest(dynamic, tokens) for tokens in (SWITCH, SWITCH + 1, CONTEXT)}) == 3


def test_dynamic_frequencies_serve_longer_contexts_if_set() -> None:
    one = SWITCHING["llama, dynamic NTK"]
    contexts = {None: SWITCH, SWITCH - 4: SWITCH - 4, 60: 60, 999: 4 * SWITCH}
    for requested, got in contexts.items():
        model = random_model(one.model_type, **one.changes)
        assert packed(model, context_tokens=requested).facts.context_tokens == got
