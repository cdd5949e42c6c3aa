"""How the next token is sampled: against transformers' processors and plain arithmetic."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from headrace_worker.engine.base.interface import SamplingParameters, Sequence
from headrace_worker.engine.sampling.host_sampling import (
    argmax,
    sample,
)
from headrace_worker.engine.sampling.noise import Words, exponentials, noise_bits, seed_key
from headrace_worker.engine.sampling.penalties import Penalties
from headrace_worker.engine.sampling.sampler import Sampler
from helpers.sampling_columns import columns_of

GREEDY = SamplingParameters(max_tokens=8, temperature=0)


def spread_logits(rows: int, vocabulary: int, *, sharpness: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(rows * vocabulary)
    return torch.randn(rows, vocabulary, generator=generator) * sharpness


def words(*values: int) -> Words:
    return np.array(values, dtype=np.uint64)


def various_parameters(rows: int) -> list[SamplingParameters]:
    choose = random.Random(3).choice
    return [
        SamplingParameters(
            max_tokens=8,
            temperature=choose([0.05, 0.7, 1.0, 1.9]),
            top_k=choose([0, 0, 1, 2, 40, 5000]),
            top_p=choose([1.0, 1.0, 0.0, 0.3, 0.9, 0.999]),
            min_p=choose([0.0, 0.0, 0.02, 0.5]),
            typical_p=choose([1.0, 1.0, 0.2, 0.9]),
        )
        for _ in range(rows)
    ]


def processed(logits: Tensor, parameters: SamplingParameters) -> Tensor:
    """One row through transformers' own processors, in the order that `generate` has them."""
    processors = LogitsProcessorList([TemperatureLogitsWarper(parameters.temperature)])
    if parameters.top_k:
        processors.append(TopKLogitsWarper(parameters.top_k))
    if parameters.top_p < 1:
        processors.append(TopPLogitsWarper(parameters.top_p))
    if parameters.min_p:
        processors.append(MinPLogitsWarper(parameters.min_p))
    if parameters.typical_p < 1:
        processors.append(TypicalLogitsWarper(parameters.typical_p))
    no_ids = torch.zeros(1, 1, dtype=torch.int64)
    scores: Tensor = processors(no_ids, logits[None])  # type: ignore[arg-type]  # LongTensor
    return scores[0]


def test_the_noise_of_a_token_is_the_same_number_everywhere() -> None:
    # Computed with Python's own integers; a change here changes every seeded text.
    pinned = {
        (0, 0, 0): 0x568A9B0B1A2C05EC,
        (1, 0, 0): 0x6EC85F1F8547BC0C,
        (0, 1, 0): 0x238275BC38FCBE91,
        (0, 0, 1): 0x44E5B8B147EF718B,
        (2**64 - 1, 1023, 151935): 0x7C1E00AC41932286,
        (123456789, 17, 42): 0x5440DB78BC82D6A5,
    }
    for (seed, index, token), expected in pinned.items():
        bits = noise_bits(words(seed_key(seed)), words(index), words(token))
        assert bits.item() == expected
        uniform = ((expected >> 12) + 0.5) / 2**52
        assert exponentials(bits).item() == pytest.approx(-math.log(uniform), rel=1e-12)


def test_exponentials_are_above_zero_and_finite_at_both_ends() -> None:
    least, most = exponentials(words(2**64 - 1, 0)).tolist()
    assert 0 < least < 1e-15
    assert 36 < most < 37


@pytest.mark.parametrize("vocabulary", [11, 300, 6000])
def test_a_draw_is_the_keyed_race_among_what_transformers_lets_survive(vocabulary: int) -> None:
    rows = 120
    logits, parameters = spread_logits(rows, vocabulary), various_parameters(rows)
    chosen = sample(logits, columns_of(parameters), np.arange(rows))
    for row, requested in enumerate(parameters):
        weights = processed(logits[row], requested).double().softmax(-1)
        bits = noise_bits(words(seed_key(5)), words(row), words(*range(vocabulary)))
        assert chosen[row] == (weights.numpy() / exponentials(bits)[0]).argmax(), requested


def test_a_row_is_drawn_the_same_beside_others_as_alone() -> None:
    rows = 60
    logits, parameters = spread_logits(rows, 3000, sharpness=0.5), various_parameters(rows)
    together = sample(logits, columns_of(parameters), np.arange(rows))
    for row, own in enumerate(parameters):
        alone = sample(logits[row : row + 1], columns_of([own]), np.array([row]))
        assert together[row] == alone[0]


@pytest.mark.parametrize("shape", [{}, {"top_p": 0.9999}, {"top_k": 8}], ids=str)
def test_draws_are_distributed_as_the_weights_are(shape: dict[str, float]) -> None:
    count = 20_000
    weights = torch.tensor([0.3, 0.2, 0.15, 0.1, 0.1, 0.08, 0.05, 0.02])
    logits = weights.log().expand(count, -1)
    requested = replace(SamplingParameters(max_tokens=8), **shape)  # type: ignore[arg-type]
    chosen = sample(logits, columns_of([requested] * count), np.arange(count))
    expected = weights * count
    chi_square = (
        ((torch.bincount(torch.from_numpy(chosen), minlength=8) - expected) ** 2 / expected)
        .sum()
        .item()
    )
    assert chi_square < 24.3  # seven degrees of freedom: one deterministic try in a thousand


def test_tokens_that_tie_at_the_edge_all_survive() -> None:
    logits = torch.tensor([3.0, 1.0, 1.0, 1.0, 0.5]).expand(400, -1)
    requested = SamplingParameters(max_tokens=8, top_k=2)
    chosen = sample(logits, columns_of([requested] * 400), np.arange(400))
    assert set(chosen.tolist()) == {0, 1, 2, 3}


def test_a_temperature_next_to_nothing_is_greedy() -> None:
    logits = spread_logits(20, 300)
    parameters = [SamplingParameters(max_tokens=8, temperature=1e-30)] * 20
    assert (
        sample(logits, columns_of(parameters), np.arange(20)).tolist() == logits.argmax(-1).tolist()
    )


def test_greedy_takes_the_lowest_id_of_the_highest_and_reports_rows_that_are_not_finite() -> None:
    nan, inf = math.nan, math.inf
    rows = [[1, 5, 5, -inf], [nan, 1, 2, 3], [1, 2, inf, 0], [-inf] * 4, [0, 0, 0, 0]]
    token_ids, finite = argmax(torch.tensor(rows, dtype=torch.float32))
    assert finite.tolist() == [True, False, False, False, True]
    assert (token_ids[0], token_ids[4]) == (1, 0)


def penalised(parameters: SamplingParameters, logits: Tensor) -> Tensor:
    """One row's logits, changed for the sequence with prompt 1, 2 and output 3, 4, 3, 3."""
    penalties = Penalties(4, logits.shape[-1])
    penalties.admit(2, Sequence(1, (1, 2), (3, 4), parameters, seed=0))
    penalties.record([2, 0], [3, 5])
    penalties.record([2, 0], [3, 5])
    rows = torch.stack((logits, logits))
    penalties.apply(rows, [0, 2])
    assert torch.equal(rows[0], logits), "the neighbour changed"
    return rows[1]


def test_the_repetition_penalty_is_transformers_own() -> None:
    logits = spread_logits(1, 50)[0]
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([[1, 2, 3, 4]]), logits[None])[0]
    ours = penalised(replace(GREEDY, repetition_penalty=1.3), logits)
    assert torch.equal(ours, theirs)


def test_presence_and_frequency_penalties_count_the_output_only() -> None:
    logits = spread_logits(1, 50)[0]
    requested = replace(GREEDY, presence_penalty=0.5, frequency_penalty=0.25)
    expected = logits.clone()
    expected[3] -= 0.5 + 3 * 0.25
    expected[4] -= 0.5 + 0.25
    torch.testing.assert_close(penalised(requested, logits), expected)


def test_bias_is_added_before_the_penalties() -> None:
    logits = torch.zeros(50)
    requested = replace(GREEDY, logit_bias={3: 4.0, 9: -100.0}, repetition_penalty=2.0)
    changed = penalised(requested, logits)
    assert changed[[3, 9, 1]].tolist() == [2.0, -100.0, 0.0]


def test_each_slot_is_sampled_by_its_own_parameters() -> None:
    chooser = Sampler(slots=8, vocabulary_size=50)
    logits = spread_logits(4, 50)
    best = logits.argmax(-1).tolist()
    requested = {
        1: GREEDY,
        2: replace(GREEDY, temperature=1.0, top_k=1),
        5: replace(GREEDY, logit_bias={17: 1000.0}),
        6: replace(GREEDY, temperature=1.0),
    }
    for slot, parameters in requested.items():
        chooser.admit(slot, Sequence(slot, (1,), (), parameters, seed=slot))
    slots, indices = np.array(list(requested)), np.array([0, 1, 2, 3])
    choice = chooser.sample(logits.clone(), slots, indices)
    drawn = sample(logits[3:], columns_of([requested[6]], seed=6), np.array([3]))
    assert choice.token_ids == [best[0], best[1], 17, drawn.item()]
    assert choice.finite == [True] * 4


def masked(parameters: SamplingParameters, output: tuple[int, ...], logits: Tensor) -> list[int]:
    """Tokens that may still come, of one sequence that ends with token 9."""
    chooser = Sampler(slots=2, vocabulary_size=len(logits))
    chooser.admit(1, Sequence(1, (1,), output, parameters, seed=1), frozenset((9,)))
    left = logits.clone()[None]
    chooser.sample(left, np.array([1]), np.array([len(output)]))
    return torch.isfinite(left[0]).nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("changes", "output", "left"),
    [
        ({"allowed_token_ids": frozenset((2, 3))}, (), {2, 3}),
        ({"min_tokens": 2}, (), {*range(10)} - {9}),
        ({"min_tokens": 2}, (5,), {*range(10)} - {9}),
        ({"min_tokens": 2}, (5, 6), {*range(10)}),
        ({"bad_words": ((4,), (5, 6), (7, 5, 8))}, (), {*range(10)} - {4}),
        ({"bad_words": ((4,), (5, 6), (7, 5, 8))}, (5,), {*range(10)} - {4, 6}),
        ({"bad_words": ((4,), (5, 6), (7, 5, 8))}, (7, 5), {*range(10)} - {4, 6, 8}),
        ({"bad_words": ((4,), (5, 6), (7, 5, 8))}, (5, 7), {*range(10)} - {4}),
        ({"bad_words": ((5, 6),), "allowed_token_ids": frozenset((6, 7))}, (5,), {7}),
    ],
)
def test_masks_follow_from_the_output_so_far(
    changes: dict[str, Any], output: tuple[int, ...], left: set[int]
) -> None:
    assert set(masked(replace(GREEDY, **changes), output, torch.zeros(10))) == left


def test_a_row_whose_masks_leave_no_token_is_a_dead_end_and_one_of_nans_is_not() -> None:
    chooser = Sampler(slots=3, vocabulary_size=10)
    nothing = replace(GREEDY, allowed_token_ids=frozenset((2,)), bad_words=((2,),))
    for slot, parameters in ((0, nothing), (1, replace(GREEDY, min_tokens=1)), (2, GREEDY)):
        chooser.admit(slot, Sequence(slot, (1,), (), parameters, seed=slot))
    logits = torch.zeros(3, 10)
    logits[1:] = math.nan
    choice = chooser.sample(logits, np.array([0, 1, 2]), np.array([0, 0, 0]))
    assert choice.dead_ends == {0}
    assert choice.finite == [False, False, False]


def test_a_released_slot_leaves_nothing_to_the_next_sequence() -> None:
    chooser = Sampler(slots=2, vocabulary_size=50)
    logits = spread_logits(1, 50)
    biased = replace(
        GREEDY,
        logit_bias={17: 1000.0},
        frequency_penalty=2.0,
        allowed_token_ids=frozenset((17,)),
        bad_words=((3, 4),),
        min_tokens=5,
    )
    for parameters, expected in ((biased, 17), (GREEDY, int(logits.argmax()))):
        chooser.admit(1, Sequence(1, (1,), (), parameters, seed=1))
        choice = chooser.sample(logits.clone(), np.array([1]), np.array([0]))
        assert choice.token_ids == [expected]
        chooser.release(1)


def test_a_row_that_is_not_finite_does_not_change_the_sample_of_its_neighbour() -> None:
    chooser = Sampler(slots=2, vocabulary_size=50)
    logits = spread_logits(2, 50)
    for slot in (0, 1):
        chooser.admit(slot, Sequence(slot, (1,), (), SamplingParameters(max_tokens=8), seed=slot))
    alone = chooser.sample(logits[1:].clone(), np.array([1]), np.array([0]))
    logits[0, 3] = math.nan
    both = chooser.sample(logits, np.array([0, 1]), np.array([0, 0]))
    assert both.finite == [False, True]
    assert both.token_ids[1] == alone.token_ids[0]
