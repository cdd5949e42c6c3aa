"""A cache that runs full: the least urgent newest makes way, and nobody's output differs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_worker.engine.base.interface import SamplingParameters, Sequence, SequenceRefused
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.loading.builder import CacheTooSmall
from helpers.running_engine import GREEDY, SAMPLED, History, alone, run, sequence
from helpers.tiny_models import POISON, packed, poisoned_llama, tiny_llama

LONG = SamplingParameters(max_tokens=110, temperature=0, ignore_eos=True)


def crowded(*, pages: int = 9, **settings: Any) -> SlotEngine:
    """4 slots of 128 tokens, and pages for little more than one of them."""
    return packed(tiny_llama(), kv_store="pages", cache_tokens=16 * pages, **settings)


def grown(engine: SlotEngine, history: History, *, until_parked: int) -> None:
    while len(history.parked) < until_parked:
        assert engine.has_work, "all are over"
        history.step(engine)


def test_the_newest_is_parked_when_the_cache_is_full() -> None:
    engine, history = crowded(pages=14), History()
    for number in (0, 1, 2):
        engine.admit(sequence(number, LONG, prompt_tokens=16))
    grown(engine, history, until_parked=1)
    assert history.parked == [2]
    assert engine.statistics().running == 2


def test_the_less_urgent_is_parked_for_the_newer() -> None:
    engine, history = crowded(pages=14), History()
    for number, priority in ((0, 2), (1, 3), (2, 1)):
        one = sequence(number, LONG, prompt_tokens=16)
        engine.admit(replace(one, priority=priority))
    grown(engine, history, until_parked=2)
    assert history.parked == [1, 0]


def test_what_is_parked_continues_unchanged() -> None:
    sequences = [sequence(number, LONG, prompt_tokens=16) for number in range(4)]
    history = run(crowded(), sequences)
    assert history.parked
    for one in sequences:
        assert history.tokens[one.sequence_id] == alone(packed(tiny_llama()), one)


def test_a_lone_sequence_is_never_parked_and_may_fill_the_cache() -> None:
    engine = crowded(pages=8)
    one = sequence(0, replace(LONG, max_tokens=1000), prompt_tokens=20)
    history = run(engine, [one])
    assert history.parked == []
    assert len(history.tokens[0]) == 128 - 20


def test_a_new_sequence_waits_in_its_slot_for_cache_and_none_overtakes_it() -> None:
    engine, history = crowded(), History()
    engine.admit(sequence(0, replace(LONG, max_tokens=30), prompt_tokens=40))
    history.step(engine)
    engine.admit(sequence(1, prompt_tokens=100))
    engine.admit(sequence(2, prompt_tokens=5))
    while 0 not in history.finished:
        history.step(engine)
        assert history.tokens.keys() == {0} or not history.tokens
    while engine.has_work:
        history.step(engine)
    assert history.finished.keys() == {0, 1, 2}
    assert history.parked == []


def test_what_waits_for_room_counts_as_taken() -> None:
    engine = crowded()
    engine.admit(sequence(0, LONG, prompt_tokens=40))
    engine.step()
    engine.admit(sequence(1, prompt_tokens=100))
    statistics = engine.statistics()
    assert statistics.cache_tokens_total == 9 * 16
    assert statistics.cache_tokens_used == statistics.cache_tokens_total


def test_a_sequence_that_can_never_fit_is_refused_alone() -> None:
    engine = packed(tiny_llama(), kv_store="pages", context_tokens=None, cache_tokens=16 * 5)
    assert engine.facts.context_tokens == 80
    engine.admit(sequence(0))
    with pytest.raises(SequenceRefused, match="80"):
        engine.admit(sequence(1, prompt_tokens=80))
    assert engine.statistics().running == 1


def test_a_cache_smaller_than_the_context_that_is_configured_is_not_built() -> None:
    with pytest.raises(CacheTooSmall, match="8 blocks"):
        crowded(pages=7)


def test_blocks_that_were_not_finite_are_cleared_for_the_next_sequence() -> None:
    engine = packed(poisoned_llama(nan=True), kv_store="pages", cache_tokens=16 * 12)
    culprit = replace(sequence(9), prompt_ids=(20, POISON, *range(20, 140)))
    # The longest keeps what the culprit left behind in sight of its short neighbours.
    healthy = [sequence(0, prompt_tokens=50), *(sequence(n, prompt_tokens=4) for n in (1, 2))]
    assert run(engine, [culprit]).failed.keys() == {9}
    history = run(engine, healthy)
    assert history.failed == {}
    for one in healthy:
        assert history.tokens[one.sequence_id] == alone(packed(tiny_llama()), one)


def varied(number: int) -> Sequence:
    """By turns greedy and sampled, of all priorities and lengths."""
    parameters = replace((GREEDY, SAMPLED)[number % 2], max_tokens=12 + number * 5 % 40)
    one = sequence(number, parameters, prompt_tokens=3 + number * 17 % 50)
    return replace(one, priority=1 + number % 3)


@cache
def said_undisturbed(number: int) -> list[int]:
    return alone(packed(tiny_llama()), varied(number))


@settings(max_examples=10, deadline=None)
@given(
    order=st.permutations(range(8)),
    pages=st.integers(8, 14),
    chunk=st.sampled_from([5, 16, 128]),
    prefix_cache=st.booleans(),
    async_scheduling=st.booleans(),
)
def test_no_history_of_a_full_cache_changes_a_token(
    order: list[int], pages: int, chunk: int, prefix_cache: bool, async_scheduling: bool
) -> None:
    engine = crowded(
        pages=pages,
        prefill_chunk_tokens=chunk,
        prefix_cache=prefix_cache,
        async_scheduling=async_scheduling,
    )
    history = run(engine, [varied(number) for number in order])
    assert history.finished.keys() == set(order)
    assert {number: history.tokens[number] for number in order} == {
        number: said_undisturbed(number) for number in order
    }
