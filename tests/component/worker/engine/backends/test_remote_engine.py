"""An engine whose sequences run elsewhere: what becomes of what its backend yields."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from headrace_worker.engine.backends.remote_engine import (
    BackendError,
    RemoteEngine,
    TokenChunk,
    seed_of,
)
from headrace_worker.engine.base.interface import FinishReason, SequenceRefused
from helpers.running_engine import GREEDY, History, run, sequence
from helpers.written_source import ScriptedBackend, Written, remote_engine


@contextmanager
def running(*pieces: TokenChunk | Exception) -> Iterator[tuple[RemoteEngine, ScriptedBackend]]:
    source = ScriptedBackend(pieces)
    with closing(remote_engine(source)) as engine:
        yield engine, source


def test_tokens_that_arrive_together_are_returned_one_a_step() -> None:
    with running(TokenChunk((20, 21, 22)), TokenChunk((23,), FinishReason.STOP)) as (engine, _):
        history = run(engine, [sequence(1)])
    assert history.tokens == {1: [20, 21, 22, 23]}
    assert history.finished == {1: FinishReason.STOP}


def test_output_beyond_the_end_is_discarded_and_the_backend_is_cancelled() -> None:
    parameters = replace(GREEDY, max_tokens=2)
    with running(TokenChunk((20, 21, 22, 23))) as (engine, source):
        history = run(engine, [sequence(1, parameters)])
    assert history.tokens == {1: [20, 21]}
    assert history.finished == {1: FinishReason.LENGTH}
    assert source.closed == 1


def test_a_backend_gets_no_more_max_tokens_than_the_context_has_room_for() -> None:
    with running(TokenChunk((), FinishReason.LENGTH)) as (engine, source):
        run(engine, [sequence(1, replace(GREEDY, max_tokens=9999), prompt_tokens=100)])
    assert source.received[0].parameters.max_tokens == 28


@pytest.mark.parametrize(
    ("pieces", "fact"),
    [
        ((TokenChunk((20,)), BackendError("no more")), "no more"),
        ((TokenChunk((20,)), TokenChunk()), "the stream ended without a finish reason"),
    ],
)
def test_a_sequence_fails_after_its_tokens_are_returned(pieces: Written, fact: str) -> None:
    with running(*pieces) as (engine, _):
        history = run(engine, [sequence(1)])
    assert (history.tokens, history.failed) == ({1: [20]}, {1: fact})


def test_a_broken_backend_ends_the_engine() -> None:
    broken = running(RuntimeError("gone"))
    with broken as (engine, _), pytest.raises(RuntimeError, match="gone"):
        run(engine, [sequence(1)])


def test_while_its_backend_is_unavailable_it_admits_nothing_and_gives_the_reason() -> None:
    with running(TokenChunk((20,), FinishReason.STOP)) as (engine, source):
        source.unavailable_reason = "it rests"
        assert engine.statistics().unavailable_reason == "it rests"
        with pytest.raises(SequenceRefused, match="it rests"):
            engine.admit(sequence(1))
        source.unavailable_reason = ""
        assert run(engine, [sequence(1)]).tokens == {1: [20]}


def test_an_engine_that_cannot_resume_refuses_partial_answers_and_finishes_complete_ones() -> None:
    source = ScriptedBackend(())
    with closing(remote_engine(source, resume=False)) as engine:
        with pytest.raises(SequenceRefused, match=r"2 output tokens, .*does not support resuming"):
            engine.admit(sequence(1, output_ids=(20, 21)))
        history = run(engine, [sequence(2, output_ids=(20, 7))])
        assert history.finished == {2: FinishReason.STOP}
    assert source.received == []


def test_late_output_of_a_sequence_does_not_reach_the_next_one_of_the_same_id() -> None:
    with running(TokenChunk((20,))) as (engine, source):
        engine.admit(sequence(1))
        while not source.received:
            engine.step()
        engine.cancel(1)
        source.pieces = (TokenChunk((30,), FinishReason.STOP),)
        engine.admit(sequence(1))
        history = History()
        while engine.has_work:
            history.step(engine)
        assert history.tokens == {1: [30]}


def test_a_resumed_answer_gets_another_seed_and_always_the_same() -> None:
    fresh, later = sequence(3), sequence(3, output_ids=(20, 21))
    assert seed_of(fresh, bits=32) == fresh.seed % 2**32
    assert seed_of(later, bits=32) == seed_of(later, bits=32) != seed_of(fresh, bits=32)
