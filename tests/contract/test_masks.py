"""What tokens a sequence may not get, and what it shares of the cache, whatever computes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace_worker.engine.base.interface import Engine, SequenceRefused
from helpers.engine_kinds import STEPPED
from helpers.running_engine import GREEDY, SAMPLED, alone, run, sequence


@pytest.fixture(params=STEPPED)
def stepped(request: pytest.FixtureRequest) -> Engine:
    return STEPPED[request.param].make()


MASKED = replace(
    SAMPLED,
    min_tokens=9,
    bad_words=((11,), (12, 13), (14, 15, 14)),
    allowed_token_ids=frozenset((7, *range(10, 20))),
)
"""Few tokens, of which some may not follow on others; 7 ends an answer."""


@pytest.fixture
def masking(stepped: Engine) -> Engine:
    if not stepped.facts.capabilities.token_masks:
        pytest.skip("it masks no tokens, as its capabilities report")
    return stepped


def test_masks_hold_and_a_sequence_under_them_continues_exactly_from_any_cut(
    masking: Engine,
) -> None:
    for number in range(6):
        whole = run(masking, [sequence(number, MASKED)])
        tokens = whole.tokens[number]
        assert set(tokens) <= MASKED.allowed_token_ids
        assert 7 not in tokens[: MASKED.min_tokens]
        for word in MASKED.bad_words:
            runs = zip(*(tokens[place:] for place in range(len(word))), strict=False)
            assert word not in list(runs)
        for cut in range(len(tokens)):
            rest = run(masking, [sequence(number, MASKED, output_ids=tuple(tokens[:cut]))])
            assert rest.tokens[number] == tokens[cut:]
            assert rest.finished == whole.finished


def test_masks_are_one_sequences_own(masking: Engine) -> None:
    sequences = [sequence(n, (MASKED, GREEDY, SAMPLED)[n % 3]) for n in range(9)]
    together = run(masking, sequences)
    for one in sequences:
        assert together.tokens[one.sequence_id] == alone(masking, one)


def test_a_sequence_that_may_get_no_token_is_refused_and_others_continue(
    masking: Engine,
) -> None:
    nothing = replace(GREEDY, allowed_token_ids=frozenset((11,)), bad_words=((11,),))
    done = run(masking, [sequence(0), sequence(1, nothing), sequence(2)])
    assert done.refused.keys() == {1}
    assert done.failed == {}
    assert done.tokens[2] == alone(masking, sequence(2))


def test_a_mask_of_a_token_that_is_none_is_refused(masking: Engine) -> None:
    for wrong in ({"bad_words": ((1, 300),)}, {"allowed_token_ids": frozenset((300,))}):
        with pytest.raises(SequenceRefused, match="outside the vocabulary"):
            masking.admit(sequence(0, replace(GREEDY, **wrong)))
    assert not masking.has_work


def test_what_is_cached_under_a_salt_is_found_under_that_alone(stepped: Engine) -> None:
    one = sequence(3, replace(GREEDY, max_tokens=4), prompt_tokens=60)

    def hits(salt: str) -> int:
        before = stepped.statistics().prefix_hits
        salted = run(stepped, [replace(one, cache_salt=salt)])
        assert salted.tokens == plain.tokens
        return stepped.statistics().prefix_hits - before

    plain = run(stepped, [one])
    shares = hits("") > 0
    assert hits("a") == 0
    assert (hits("a") > 0) == shares
    assert hits("b") == 0
    assert (hits("") > 0) == shares
