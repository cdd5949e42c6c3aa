"""What every engine keeps, whatever computes its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from headrace_worker.engine.backends.remote_engine import RemoteEngine
from headrace_worker.engine.base.interface import (
    Engine,
    FinishReason,
    Grammar,
    GrammarKind,
    NoFreeSlot,
    SamplingParameters,
    Sequence,
    SequenceRefused,
)
from helpers import other_engines
from helpers.engine_kinds import STEPPED, Kind
from helpers.running_engine import GREEDY, SAMPLED, History, alone, run, sequence

LONG = SamplingParameters(max_tokens=64, temperature=0)


FOLLOWING = ("llama-cpp", "openai")
"""Engines whose sequences run elsewhere, at a pace of their own."""
REFUSED_ELSEWHERE = sequence(3, replace(GREEDY, repetition_penalty=0.0))
"""A divisor; every server says no to it."""


@pytest.fixture(params=[*STEPPED, *FOLLOWING])
def kind(request: pytest.FixtureRequest, files: Path) -> Iterator[Kind]:
    if request.param in STEPPED:
        yield STEPPED[request.param]
        return
    made: list[RemoteEngine] = []

    def make() -> Engine:
        if request.param == "openai":
            mesh = request.getfixturevalue("upstream_mesh")
            loaded = other_engines.upstream(files, f"{mesh.url}/v1", mesh.model)
        else:
            loaded = other_engines.llama_cpp(files)
        assert isinstance(loaded.engine, RemoteEngine)
        made.append(loaded.engine)
        return loaded.engine

    yield Kind(make, make, REFUSED_ELSEWHERE)
    for engine in made:
        engine.close()


@pytest.fixture
def engine(kind: Kind) -> Engine:
    return kind.make()


@pytest.fixture(params=STEPPED)
def stepped(request: pytest.FixtureRequest) -> Engine:
    return STEPPED[request.param].make()


def drawn(engine: Engine) -> SamplingParameters:
    """Sampled, where the engine promises equal draws; else greedy."""
    return SAMPLED if engine.facts.batch_invariant else GREEDY


def greedy(_: Engine) -> SamplingParameters:
    return GREEDY


@pytest.mark.parametrize("choose", [greedy, drawn])
def test_a_sequence_gets_the_same_tokens_beside_others_as_alone(
    engine: Engine, choose: Callable[[Engine], SamplingParameters]
) -> None:
    parameters = choose(engine)
    sequences = [sequence(number, parameters) for number in range(10)]
    together = run(engine, sequences)
    assert together.finished.keys() == {one.sequence_id for one in sequences}
    for one in sequences:
        assert together.tokens[one.sequence_id] == alone(engine, one)


@pytest.mark.parametrize("choose", [greedy, drawn])
def test_a_sequence_continues_exactly_from_any_cut(
    engine: Engine, choose: Callable[[Engine], SamplingParameters]
) -> None:
    parameters = choose(engine)
    whole = run(engine, [sequence(3, parameters)])
    tokens = whole.tokens[3]
    for cut in range(len(tokens)):
        rest = run(engine, [sequence(3, parameters, output_ids=tuple(tokens[:cut]))])
        assert rest.tokens[3] == tokens[cut:]
        assert rest.finished == whole.finished


def test_a_sequence_whose_end_was_lost_is_finished_again_without_a_token(engine: Engine) -> None:
    for number in range(12):
        whole = run(engine, [sequence(number, LONG)])
        again = run(engine, [sequence(number, LONG, output_ids=tuple(whole.tokens[number]))])
        assert again.tokens == {}
        assert again.finished == whole.finished


def test_another_seed_gives_other_tokens_only_where_there_is_a_temperature(engine: Engine) -> None:
    for parameters, differs in ((GREEDY, False), (SAMPLED, True)):
        one = sequence(1, parameters)
        other = replace(one, seed=one.seed + 1)
        assert (alone(engine, one) != alone(engine, other)) == differs


def test_max_tokens_counts_what_earlier_attempts_made(engine: Engine) -> None:
    parameters = replace(GREEDY, max_tokens=9, ignore_eos=True)
    tokens = alone(engine, sequence(2, parameters))
    assert len(tokens) == 9
    rest = run(engine, [sequence(2, parameters, output_ids=tuple(tokens[:6]))])
    assert rest.tokens[2] == tokens[6:]
    assert rest.finished == {2: FinishReason.LENGTH}


def test_a_full_context_ends_a_sequence_by_length(engine: Engine) -> None:
    one = sequence(0, replace(LONG, max_tokens=1000, ignore_eos=True), prompt_tokens=100)
    history = run(engine, [one])
    assert len(history.tokens[0]) == engine.facts.context_tokens - 100
    assert history.finished == {0: FinishReason.LENGTH}


def test_a_stop_token_is_the_last_token(engine: Engine) -> None:
    tokens = alone(engine, sequence(4))
    stop = tokens[10]
    history = run(engine, [sequence(4, replace(GREEDY, stop_token_ids=frozenset({stop})))])
    assert history.tokens[4] == tokens[: tokens.index(stop) + 1]
    assert history.finished == {4: FinishReason.STOP}


def test_a_stop_token_at_the_last_place_is_a_stop(engine: Engine) -> None:
    tokens = alone(engine, sequence(4))
    last = replace(GREEDY, stop_token_ids=frozenset({tokens[0]}), max_tokens=1)
    assert run(engine, [sequence(4, last)]).finished == {4: FinishReason.STOP}


def test_end_of_sequence_ends_a_sequence_unless_it_is_ignored(engine: Engine) -> None:
    (eos,) = engine.facts.eos_token_ids
    rechecked = run(engine, [sequence(number, LONG) for number in range(40)])
    ignored = run(engine, [sequence(n, replace(LONG, ignore_eos=True)) for n in range(40)])
    stopped = [n for n, reason in rechecked.finished.items() if reason is FinishReason.STOP]
    assert stopped, "no answer of forty ended of itself"
    for number, tokens in rechecked.tokens.items():
        assert eos not in tokens[:-1]
        assert (tokens[-1] == eos) == (number in stopped)
        assert len(ignored.tokens[number]) == LONG.max_tokens
        assert ignored.tokens[number][: len(tokens) - 1] == tokens[:-1]


def test_a_full_engine_refuses_and_takes_again_once_a_slot_is_free(engine: Engine) -> None:
    for number in range(4):
        engine.admit(sequence(number))
    with pytest.raises(NoFreeSlot, match="4"):
        engine.admit(sequence(4))
    engine.cancel(2)
    engine.admit(sequence(4))
    engine.check_integrity()


@pytest.mark.parametrize(
    ("refused", "fact"),
    [
        (sequence(1, prompt_tokens=0), "no tokens"),
        (sequence(1, prompt_tokens=128), "128 prompt"),
        (sequence(1, prompt_tokens=100, output_ids=(9,) * 29), "29 output"),
        (sequence(1, replace(GREEDY, max_tokens=0)), "max_tokens is 0"),
        (replace(sequence(1), prompt_ids=(5, 100_000)), "100000"),
        (replace(sequence(1), prompt_ids=(5, -1)), "-1"),
        (sequence(1, replace(GREEDY, logit_bias={100_000: 1.0})), "100000"),
        (replace(sequence(1), seed=2**64), "64 bits"),
        (replace(sequence(1), grammar=Grammar(GrammarKind.REGEX, "a")), "grammars"),
        (sequence(9), "already held"),
    ],
)
def test_what_cannot_run_is_refused_with_the_fact_and_holds_nothing(
    engine: Engine, refused: Sequence, fact: str
) -> None:
    engine.admit(sequence(9))
    with pytest.raises(SequenceRefused, match=fact):
        engine.admit(refused)
    assert engine.statistics().running == 1
    engine.check_integrity()


def test_a_long_prompt_takes_steps_in_which_others_get_tokens(stepped: Engine) -> None:
    history = History()
    stepped.admit(sequence(0))
    history.step(stepped)
    stepped.admit(sequence(1, prompt_tokens=60))
    for _ in range(7):
        history.step(stepped)
    assert 1 not in history.tokens
    assert len(history.tokens[0]) == 8
    history.step(stepped)
    assert len(history.tokens[1]) == 1


def test_a_sequence_cancelled_in_its_prefill_leaves_nothing_and_affects_no_other(
    stepped: Engine,
) -> None:
    expected = alone(stepped, sequence(0))
    history = History()
    stepped.admit(sequence(0))
    stepped.admit(sequence(1, prompt_tokens=60))
    for _ in range(3):
        history.step(stepped)
    stepped.cancel(1)
    stepped.check_integrity()
    assert stepped.statistics().free_slots == 3
    while stepped.has_work:
        history.step(stepped)
    assert history.tokens == {0: expected}


def test_a_sequence_cancelled_at_any_time_affects_no_other(engine: Engine) -> None:
    expected = alone(engine, sequence(0))
    for steps in range(4):
        history = History()
        engine.admit(sequence(0))
        engine.admit(sequence(1, prompt_tokens=60))
        for _ in range(steps):
            history.step(engine)
        engine.cancel(1)
        engine.check_integrity()
        assert engine.statistics().free_slots == 3
        before = len(history.tokens.get(1, []))
        while engine.has_work:
            history.step(engine)
        assert history.tokens[0] == expected
        assert len(history.tokens.get(1, [])) == before


def test_parking_returns_all_output_and_another_engine_goes_on_from_it(
    engine: Engine, kind: Kind
) -> None:
    parameters = replace(drawn(engine), ignore_eos=True)
    expected = alone(engine, sequence(5, parameters))
    history = History()
    engine.admit(sequence(5, parameters, output_ids=tuple(expected[:2])))
    while len(history.tokens.get(5, [])) < 4:
        history.step(engine)
    parked = engine.park(5)
    assert parked == tuple(expected[:6])
    assert not engine.has_work
    engine.check_integrity()
    assert alone(kind.make(), sequence(5, parameters, output_ids=parked)) == expected[6:]


def test_logprobs_are_returned_to_sequences_that_want_them_and_equal_for_any_chunks(
    stepped: Engine,
) -> None:
    assert stepped.facts.capabilities.logprobs
    wishes = [replace(GREEDY, logprobs=3, prompt_logprobs=0), GREEDY, replace(SAMPLED, logprobs=0)]
    sequences = [sequence(number, wishes[number % 3]) for number in range(9)]
    whole = run(stepped, sequences)
    assert sorted(whole.logprobs) == [0, 2, 3, 5, 6, 8]
    assert sorted(whole.prompt_logprobs) == [0, 3, 6]
    for number, told in whole.logprobs.items():
        assert len(told) == len(whole.tokens[number])
        assert told.width == (3 if number % 3 == 0 else 0)
        assert all(top == sorted(top, reverse=True) and own <= 0 for own, _, top in told.rows())
    for number, told in whole.prompt_logprobs.items():
        assert (len(told), told.width) == (len(sequences[number].prompt_ids) - 1, 0)
    tokens = whole.tokens[0]
    for cut in range(1, len(tokens)):
        rest = run(stepped, [replace(sequences[0], output_ids=tuple(tokens[:cut]))])
        assert rest.prompt_logprobs == {}, "they are known"
        told = whole.logprobs[0].cut(cut)
        assert rest.logprobs[0].top_ids == told.top_ids
        assert rest.logprobs[0].own.tolist() == pytest.approx(told.own.tolist(), abs=1e-4)


def test_releasing_what_is_not_held_is_an_error_only_for_park(engine: Engine) -> None:
    engine.cancel(77)
    with pytest.raises(KeyError):
        engine.park(77)


def test_an_idle_engine_steps_to_nothing(engine: Engine) -> None:
    output = engine.step()
    assert (output.sequence_ids, output.finished, output.failed) == ([], [], [])
    assert engine.statistics().steps == 0


def test_statistics_add_up(engine: Engine) -> None:
    sequences = [sequence(number) for number in range(6)]
    history = run(engine, sequences)
    statistics = engine.statistics()
    assert statistics.prompt_tokens == sum(len(one.prompt_ids) for one in sequences)
    assert statistics.output_tokens == sum(len(tokens) for tokens in history.tokens.values())
    assert statistics.steps == history.steps
    assert (statistics.cache_tokens_used, statistics.free_slots) == (0, 4)
    engine.admit(sequences[0])
    engine.step()
    # A store of pages counts whole ones.
    assert engine.statistics().cache_tokens_used in (len(sequences[0].prompt_ids), 16)


def test_a_sequence_that_cannot_be_computed_fails_alone(kind: Kind) -> None:
    engine = kind.make_poisoned()
    healthy = [sequence(number) for number in (0, 1, 2)]
    expected = {one.sequence_id: alone(engine, one) for one in healthy}
    history = run(engine, [healthy[0], kind.poisoned, *healthy[1:]])
    assert history.failed.keys() == {3}
    assert history.tokens == expected
