"""What a worker holds, by request and by sequence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.internal.v1.reports_pb2 import ParkCause, ResumePoint
from headrace.internal.v1.request_pb2 import ChoiceProgress, Input, RequestRecord, Sampling
from headrace.v1.common_pb2 import FinishReason
from headrace_worker.engine.base.interface import EngineFacts, Sequence
from headrace_worker.runtime.assignments import Assignments, HeldSequence
from headrace_worker.runtime.records import unfinished

SLOTS = 6
FACTS = EngineFacts(
    name="none",
    dtype="none",
    max_slots=SLOTS,
    context_tokens=64,
    vocabulary_size=100,
    eos_token_ids=(0,),
    weights_digest="w",
    batch_invariant=True,
)
STOP = FinishReason.FINISH_REASON_STOP
DRAIN = ParkCause.PARK_CAUSE_DRAIN


def record(request_id: str = "r", *, n: int = 1, attempt: int = 1, **fields: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "request_id": request_id,
        "n": n,
        "attempt": attempt,
        "seed": 7,
        "prompt_ids": [1, 2, 3],
        "sampling": Sampling(max_tokens=20, top_p=1),
        "gateway_id": "gw",
    }
    return RequestRecord(**values | fields)


def accepted(
    request: RequestRecord, into: Assignments | None = None
) -> tuple[Assignments, list[HeldSequence], list[Sequence]]:
    # Why not `or`: an empty one is false.
    assignments = Assignments(FACTS) if into is None else into
    sequences = assignments.accept(request, now_s=1.0)
    return assignments, assignments.of_request(request.request_id), sequences


def progress(choice: int, output_ids: list[int], finished: bool = False) -> ChoiceProgress:
    return ChoiceProgress(
        choice=choice,
        output_ids=output_ids,
        finish_reason=STOP if finished else FinishReason.FINISH_REASON_UNSPECIFIED,
    )


def test_each_choice_is_a_sequence_with_a_seed_of_its_own() -> None:
    assignments, held, sequences = accepted(record(n=3))
    assert [h.choice for h in held] == [0, 1, 2]
    assert [s.seed for s in sequences] == [7, 8, 9]
    assert [s.sequence_id for s in sequences] == [h.sequence_id for h in held]
    assert assignments.free_slots == SLOTS - 3


def test_seeds_of_choices_wrap_at_their_64_bits() -> None:
    _, _, sequences = accepted(record(n=2, seed=2**64 - 1))
    assert [s.seed for s in sequences] == [2**64 - 1, 0]


def test_a_request_that_names_no_number_of_choices_has_one() -> None:
    _, held, _ = accepted(record(n=0))
    assert [h.choice for h in held] == [0]


def test_a_sequence_continues_after_the_output_of_earlier_attempts() -> None:
    _, (held,), (sequence,) = accepted(record(attempt=2, progress=[progress(0, [4, 5])]))
    assert sequence.output_ids == (4, 5)
    assert (held.first_index, held.output_ids) == (2, [4, 5])


def test_a_choice_that_is_at_its_end_is_not_run_again() -> None:
    done = progress(0, [4, 5], finished=True)
    _, held, _ = accepted(record(n=2, attempt=2, progress=[done]))
    assert [h.choice for h in held] == [1]
    assert len(unfinished(record(n=2, progress=[done]))) == 1


def test_a_request_whose_choices_are_all_at_their_end_is_refused() -> None:
    over = record(n=2, progress=[progress(0, [4], True), progress(1, [5], True)])
    assert Assignments(FACTS).why_not_runnable(over) == "all of its 2 choices are at their end"


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (record(n=7), "7 choices do not fit 6 slots"),
        (record(prompt_ids=[]), "the prompt has no tokens"),
        (record(prompt_ids=[1] * 64), "64 prompt and 0 output tokens leave no room"),
        (record(prompt_ids=[100]), "100 is outside the vocabulary of 100"),
        (record(sampling=Sampling()), "max_tokens is 0; at least 1 is made"),
        (record(progress=[progress(0, [1] * 62)]), "3 prompt and 62 output tokens leave no room"),
    ],
)
def test_a_refusal_names_the_numbers_that_do_not_fit(request_: RequestRecord, why: str) -> None:
    assert why in (Assignments(FACTS).why_not_runnable(request_) or "")


def test_a_request_that_could_run_is_runnable_however_full_the_worker_is() -> None:
    assignments, _, _ = accepted(record("a", n=6))
    assert assignments.why_not_runnable(record("b", n=6)) is None


def test_a_slot_is_free_when_its_sequence_ends_though_its_end_is_not_acknowledged() -> None:
    assignments, (held,), _ = accepted(record())
    assignments.end(held, STOP)
    assert assignments.free_slots == SLOTS
    assert assignments.of_gateway("gw") == [held]
    assert assignments.running() == []


ENCODER_FACTS = replace(FACTS, makes_vectors=True)


def inputs_record(*lengths: int, **fields: Any) -> RequestRecord:
    inputs = [Input(token_ids=[3] * length, second_begins=length // 2) for length in lengths]
    return record(n=len(inputs), inputs=inputs, prompt_ids=[], sampling=Sampling(), **fields)


def test_each_input_is_a_sequence_of_its_own() -> None:
    assignments = Assignments(ENCODER_FACTS)
    assert assignments.why_not_runnable(inputs_record(4, 64)) is None
    _, held, sequences = accepted(inputs_record(4, 64), assignments)
    assert [h.choice for h in held] == [0, 1]
    assert [(s.prompt_ids, s.second_begins) for s in sequences] == [((3,) * 4, 2), ((3,) * 64, 32)]


@pytest.mark.parametrize(
    ("facts", "request_", "why"),
    [
        (FACTS, inputs_record(4), "it has inputs for vectors, and this engine makes tokens"),
        (ENCODER_FACTS, record(), "it has 0 inputs for 1 vectors"),
        (ENCODER_FACTS, inputs_record(65), "65 tokens do not fit a context of 64"),
        (ENCODER_FACTS, inputs_record(4, 0), "the input has no tokens"),
    ],
)
def test_a_request_for_another_kind_of_engine_is_not_runnable(
    facts: EngineFacts, request_: RequestRecord, why: str
) -> None:
    assert Assignments(facts).why_not_runnable(request_) == why


def test_an_input_whose_vector_may_not_have_arrived_is_computed_again() -> None:
    assignments = Assignments(ENCODER_FACTS)
    _, held, _ = accepted(inputs_record(4, 5, 6), assignments)
    for ended in held[:2]:
        ended.vector = b"1234"
        assignments.end(ended, STOP)
    assignments.forget(held[0])  # its gateway has it
    point = assignments.resume_point("r", DRAIN)
    assert [(p.choice, p.finish_reason) for p in point.progress] == [(0, STOP), (2, 0)]
    again = inputs_record(4, 5, 6, attempt=2, progress=point.progress)
    assert len(unfinished(again)) == 2


def test_nothing_is_kept_of_an_acknowledged_sequence() -> None:
    assignments, (held,), _ = accepted(record())
    assignments.end(held, STOP)
    assignments.forget(held)
    assert (len(assignments), assignments.attempt_of("r")) == (0, None)
    assert assignments.running_sequence(held.sequence_id) is None


def test_ending_and_forgetting_twice_free_a_slot_once() -> None:
    assignments, (held,), _ = accepted(record())
    for _ in range(2):
        assignments.end(held, STOP)
    for _ in range(2):
        assignments.forget(held)
    assert assignments.free_slots == SLOTS
    assignments.check_integrity()


def test_the_first_end_of_a_sequence_is_the_one_that_counts() -> None:
    assignments, (held,), _ = accepted(record())
    assignments.end(held, STOP)
    assignments.end(held, FinishReason.FINISH_REASON_CANCELLED)
    assert held.finish_reason == STOP


def test_a_request_runs_as_long_as_one_of_its_choices_does() -> None:
    assignments, held, _ = accepted(record(n=2, attempt=9))
    assignments.end(held[0], STOP)
    assert assignments.running() == [("r", 9)]
    assignments.end(held[1], STOP)
    assert assignments.running() == []


def test_a_resume_point_has_every_choice_acknowledged_ones_too() -> None:
    assignments, held, _ = accepted(record(n=3))
    for choice in held:
        choice.output_ids.append(40 + choice.choice)
    assignments.end(held[0], STOP)
    assignments.forget(held[0])
    assignments.end(held[1], STOP)
    point = assignments.resume_point("r", DRAIN)
    assert {p.choice: (list(p.output_ids), p.finish_reason) for p in point.progress} == {
        0: ([40], STOP),
        1: ([41], STOP),
        2: ([42], 0),
    }


def test_a_resume_point_also_has_what_ended_in_earlier_attempts() -> None:
    done = progress(0, [4, 5], finished=True)
    assignments, _, _ = accepted(record(n=2, attempt=2, progress=[done]))
    assert list(assignments.resume_point("r", DRAIN).progress) == [done, progress(1, [])]


def test_a_newer_attempt_may_have_the_slots_of_its_older_one() -> None:
    assignments, held, _ = accepted(record("a", n=4))
    accepted(record("b", n=2), assignments)
    assert assignments.slots_for(record("a", n=4, attempt=2)) == 4
    assert assignments.slots_for(record("c")) == 0
    assignments.end(held[0], STOP)
    assert assignments.slots_for(record("a", n=4, attempt=2)) == 4


def test_a_gateways_sequences_are_its_own() -> None:
    assignments, held, _ = accepted(record("a", n=2))
    accepted(record("b", gateway_id="other"), assignments)
    assert assignments.of_gateway("gw") == held


class LifeOfAWorker(RuleBasedStateMachine):
    """Requests come, get tokens, end, are acknowledged, cancelled, parked and come again.

    The model beside it is what a caller would have: the whole output of each choice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.assignments = Assignments(FACTS)
        self.output: dict[tuple[str, int], list[int]] = {}
        self.ended: set[tuple[str, int]] = set()
        self.records: dict[str, RequestRecord] = {}
        self.points: dict[str, ResumePoint] = {}
        self.made = 0

    def choose(self, data: st.DataObject, held: list[HeldSequence]) -> HeldSequence:
        return data.draw(st.sampled_from(sorted(held, key=lambda h: h.sequence_id)))

    @property
    def running(self) -> list[HeldSequence]:
        return [h for h in self.assignments if h.finish_reason is None]

    @rule(n=st.integers(1, 4))
    def a_new_request(self, n: int) -> None:
        self.made += 1
        self.dispatch(record(f"r{self.made}", n=n))

    @precondition(lambda self: self.points)
    @rule(data=st.data())
    def a_parked_request_comes_again(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.points)))
        point = self.points[request_id]
        again = RequestRecord()
        again.CopyFrom(self.records[request_id])
        again.attempt += 1
        del again.progress[:]
        again.progress.extend(point.progress)
        self.dispatch(again)

    def dispatch(self, request: RequestRecord) -> None:
        assignments = self.assignments
        requested = len(unfinished(request))
        if assignments.why_not_runnable(request) or requested > assignments.slots_for(request):
            return
        sequences = assignments.accept(request, now_s=0.0)
        self.records[request.request_id] = request
        self.points.pop(request.request_id, None)
        held = assignments.of_request(request.request_id)
        assert len(held) == len(sequences) == requested
        for one, sequence in zip(held, sequences, strict=True):
            key = (one.request_id, one.choice)
            assert key not in self.ended, "a choice at its end ran again"
            assert list(sequence.output_ids) == self.output.setdefault(key, [])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), token_id=st.integers(0, 99))
    def a_token(self, data: st.DataObject, token_id: int) -> None:
        held = self.choose(data, self.running)
        held.output_ids.append(token_id)
        self.output[held.request_id, held.choice].append(token_id)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def an_end(self, data: st.DataObject) -> None:
        held = self.choose(data, self.running)
        self.assignments.end(held, STOP)
        self.ended.add((held.request_id, held.choice))

    @precondition(lambda self: len(self.assignments) > len(self.running))
    @rule(data=st.data())
    def an_acknowledgement(self, data: st.DataObject) -> None:
        ended = [h for h in self.assignments if h.finish_reason is not None]
        self.assignments.forget(self.choose(data, ended))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def a_whole_request_is_cancelled(self, data: st.DataObject) -> None:
        request_id = self.choose(data, self.running).request_id
        for held in self.assignments.of_request(request_id):
            self.assignments.forget(held)
        assert self.assignments.attempt_of(request_id) is None

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def a_request_is_parked(self, data: st.DataObject) -> None:
        request_id = self.choose(data, self.running).request_id
        point = self.assignments.resume_point(request_id, DRAIN)
        for held in self.assignments.of_request(request_id):
            self.assignments.forget(held)
        points = {p.choice: p for p in point.progress}
        assert len(points) == len(point.progress)
        for choice in range(self.records[request_id].n):
            key = (request_id, choice)
            assert list(points[choice].output_ids) == self.output[key]
            assert bool(points[choice].finish_reason) == (key in self.ended)
        self.points[request_id] = point

    @invariant()
    def its_indices_and_its_count_of_slots_agree(self) -> None:
        self.assignments.check_integrity()
        assert self.assignments.free_slots == SLOTS - len(self.running)
        assert self.assignments.running_sequences == len(self.running)
        assert {r for r, _ in self.assignments.running()} == {h.request_id for h in self.running}


TestLifeOfAWorker = LifeOfAWorker.TestCase
TestLifeOfAWorker.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
