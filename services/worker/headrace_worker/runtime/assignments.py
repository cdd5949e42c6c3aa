"""The sequences of a worker: to which request, attempt and gateway each belongs.

No engine, no network, no clock. A sequence is held from its acceptance until
its gateway has acknowledged its end, and occupies a slot until it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from google.rpc import status_pb2

from headrace.internal.v1.reports_pb2 import ParkCause, ResumePoint
from headrace.internal.v1.request_pb2 import ChoiceProgress, RequestRecord
from headrace.logprobs import Logprobs
from headrace.v1.common_pb2 import FinishReason
from headrace_worker.engine.base.interface import EngineFacts, Sequence, SequenceRefused
from headrace_worker.engine.core.stop_conditions import validate_sequence
from headrace_worker.engine.encoder.batching import validate_input
from headrace_worker.runtime.records import (
    masks_of,
    prompts_of,
    sequence_of,
    task_mismatch,
    unfinished,
)


@dataclass(slots=True, eq=False)
class HeldSequence:
    """One choice of one request on this worker."""

    sequence_id: int
    request_id: str
    choice: int
    attempt: int
    gateway_id: str
    first_index: int
    """Number of output tokens of earlier attempts; the gateway has them."""
    output_ids: list[int]
    """The whole output, that of earlier attempts included."""
    accepted_s: float
    """On this process's monotonic clock."""
    last_token_s: float | None = None
    finish_reason: FinishReason.ValueType | None = None
    """Set once the sequence has ended; it has no slot then."""
    error: status_pb2.Status | None = None
    logprobs: Logprobs | None = None
    """Of the output from `first_index` on; None if not requested."""
    prompt_logprobs: Logprobs | None = None
    """Those computed so far; None if not requested, or if the gateway has them."""
    is_probe: bool = False
    """Whether it is a gateway's own request, which no metric of requests counts."""
    cached_prompt: int | None = None
    """Prompt tokens that the first attempt with output found in a cache; None while unknown."""
    vector: bytes = b""
    """The result of an input; kept, as output is, until the gateway has it."""


@dataclass(slots=True)
class Assignment:
    """A request as it was dispatched, and its sequences that are still held."""

    record: RequestRecord
    held: dict[int, HeldSequence] = field(default_factory=dict)
    """By choice."""
    done: list[ChoiceProgress] = field(default_factory=list)
    """Ended choices that are not held any more, while others run."""

    @property
    def running(self) -> int:
        """Number of held choices that have not ended."""
        return sum(held.finish_reason is None for held in self.held.values())


class Assignments:
    """Everything held, by request and by sequence."""

    def __init__(self, facts: EngineFacts) -> None:
        self._facts = facts
        self._requests: dict[str, Assignment] = {}
        self._sequences: dict[int, HeldSequence] = {}
        self._next_id = 0
        self.running_sequences = 0

    @property
    def free_slots(self) -> int:
        return self._facts.max_slots - self.running_sequences

    def attempt_of(self, request_id: str) -> int | None:
        found = self._requests.get(request_id)
        return found.record.attempt if found else None

    def slots_for(self, record: RequestRecord) -> int:
        """Return the slots it may have: the free ones and those of its older attempt."""
        older = self._requests.get(record.request_id)
        return self.free_slots + (older.running if older else 0)

    def why_not_runnable(self, record: RequestRecord) -> str | None:
        """Return why a request could never run here; None if it could."""
        facts = self._facts
        if record.sampling.HasField("grammar") and not facts.capabilities.grammar:
            return "this worker's engine takes no grammars"
        if masks_of(record.sampling) and not facts.capabilities.token_masks:
            return "this worker's engine masks no tokens"
        if record.cache_salt and not facts.capabilities.cache_salt:
            return "this worker's engine keeps no caches apart by a salt"
        if record.n > facts.max_slots:
            return f"{record.n} choices do not fit {facts.max_slots} slots"
        if not unfinished(record):
            return f"all of its {max(1, record.n)} choices are at their end"
        if why_not_runnable := task_mismatch(record, facts):
            return why_not_runnable
        validate = validate_input if facts.makes_vectors else validate_sequence
        try:
            prompts = prompts_of(record)
            for choice, output_ids in unfinished(record):
                validate(
                    sequence_of(record, prompts[choice], choice, output_ids, sequence_id=0),
                    facts,
                )
        except SequenceRefused as refusal:
            return str(refusal)
        return None

    def why_not_resumable(self, record: RequestRecord) -> str | None:
        """Return why a request cannot be resumed here after its output so far; None if it can."""
        delivered = sum(len(output_ids) for _, output_ids in unfinished(record))
        if self._facts.capabilities.resume or not delivered:
            return None
        return (
            f"{delivered} tokens of the answer have been delivered, and engine {self._facts.name}"
            f" of model {record.model} does not support resuming a partial answer"
        )

    def accept(self, record: RequestRecord, *, now_s: float) -> list[Sequence]:
        """Hold a request that fits and has room; return the sequences for the engine.

        No older attempt of it may be held.
        """
        assert record.request_id not in self._requests
        assignment = Assignment(record, done=[p for p in record.progress if p.finish_reason])
        self._requests[record.request_id] = assignment
        prompts = prompts_of(record)
        return [
            sequence_of(record, prompts[choice], choice, output_ids, sequence_id=held.sequence_id)
            for choice, output_ids in unfinished(record)
            for held in [self._hold(assignment, choice, output_ids, now_s)]
        ]

    def _hold(
        self, assignment: Assignment, choice: int, output_ids: list[int], now_s: float
    ) -> HeldSequence:
        record = assignment.record
        held = HeldSequence(
            sequence_id=self._next_id,
            request_id=record.request_id,
            choice=choice,
            attempt=record.attempt,
            gateway_id=record.gateway_id,
            first_index=len(output_ids),
            output_ids=output_ids,
            accepted_s=now_s,
            is_probe=record.probe,
            logprobs=Logprobs() if record.sampling.HasField("logprobs") else None,
            prompt_logprobs=(
                Logprobs()
                if record.sampling.HasField("prompt_logprobs") and not output_ids
                else None
            ),
            cached_prompt=_cached_before(record, choice),
        )
        self._next_id += 1
        self.running_sequences += 1
        assignment.held[choice] = held
        self._sequences[held.sequence_id] = held
        return held

    def binding_field(self, request_id: str) -> str:
        """Return the field that constrains its output, as the caller named it."""
        sampling = self._requests[request_id].record.sampling
        return sampling.grammar.field or next(iter(masks_of(sampling)), "parameters")

    def running_sequence(self, sequence_id: int) -> HeldSequence | None:
        """Return a sequence that has not ended; None if it has, or is not held."""
        held = self._sequences.get(sequence_id)
        return held if held is not None and held.finish_reason is None else None

    def running_of(self, request_id: str) -> int:
        """Return how many choices of a request have not ended."""
        found = self._requests.get(request_id)
        return found.running if found else 0

    def continuation(self, held: HeldSequence) -> Sequence:
        """Return the sequence by which the engine resumes a choice that it has parked."""
        record = self._requests[held.request_id].record
        prompt = prompts_of(record)[held.choice]
        return sequence_of(
            record, prompt, held.choice, held.output_ids, sequence_id=held.sequence_id
        )

    def of_request(self, request_id: str) -> list[HeldSequence]:
        found = self._requests.get(request_id)
        return list(found.held.values()) if found else []

    def of_gateway(self, gateway_id: str) -> list[HeldSequence]:
        return [h for h in self._sequences.values() if h.gateway_id == gateway_id]

    def end(
        self,
        held: HeldSequence,
        reason: FinishReason.ValueType,
        error: status_pb2.Status | None = None,
    ) -> None:
        """End a sequence: its slot is free, its output stays until it is acknowledged."""
        if held.finish_reason is None:
            held.finish_reason = reason
            held.error = error
            self.running_sequences -= 1

    def forget(self, held: HeldSequence) -> None:
        """Drop a sequence that is acknowledged, cancelled or parked."""
        if self._sequences.pop(held.sequence_id, None) is None:
            return
        if held.finish_reason is None:
            self.running_sequences -= 1
        assignment = self._requests[held.request_id]
        del assignment.held[held.choice]
        if not assignment.held:
            del self._requests[held.request_id]
        elif held.finish_reason is not None:
            assignment.done.append(_progress(held))

    def running(self) -> list[tuple[str, int]]:
        """Return the requests that occupy slots, and which attempt of each."""
        return [
            (request_id, assignment.record.attempt)
            for request_id, assignment in self._requests.items()
            if assignment.running
        ]

    def running_adapters(self) -> list[str]:
        """Return the names of the adapters in use, ascending."""
        running = (a.record.adapter for a in self._requests.values() if a.running)
        return sorted(set(filter(None, running)))

    def resume_point(
        self, request_id: str, cause: ParkCause.ValueType, error: status_pb2.Status | None = None
    ) -> ResumePoint:
        """Return the point from which another worker resumes a request, ended choices included.

        Choices with a vector are left out: a point has no field for it, so they are computed
        again.
        """
        assignment = self._requests[request_id]
        held = (each for each in assignment.held.values() if not each.vector)
        return ResumePoint(
            request_id=request_id,
            attempt=assignment.record.attempt,
            progress=[*assignment.done, *map(_progress, held)],
            error=error,
            cause=cause,
        )

    def __iter__(self) -> Iterator[HeldSequence]:
        return iter(list(self._sequences.values()))

    def __len__(self) -> int:
        return len(self._sequences)

    def check_integrity(self) -> None:
        """Raise AssertionError unless both indices and the count of slots agree."""
        by_request: Iterable[HeldSequence] = (
            h for a in self._requests.values() for h in a.held.values()
        )
        assert {h.sequence_id for h in by_request} == set(self._sequences)
        assert all(assignment.held for assignment in self._requests.values())
        running = sum(h.finish_reason is None for h in self._sequences.values())
        assert running == self.running_sequences, f"{running} run, {self.running_sequences} counted"
        assert 0 <= self.running_sequences <= self._facts.max_slots


def _progress(held: HeldSequence) -> ChoiceProgress:
    return ChoiceProgress(
        choice=held.choice,
        output_ids=held.output_ids,
        finish_reason=held.finish_reason or FinishReason.FINISH_REASON_UNSPECIFIED,
        cached_prompt_tokens=held.cached_prompt,
    )


def _cached_before(record: RequestRecord, choice: int) -> int | None:
    """Return the cached prompt tokens that an earlier attempt reported."""
    of_choice = (p for p in record.progress if p.choice == choice)
    known = (p.cached_prompt_tokens for p in of_choice if p.HasField("cached_prompt_tokens"))
    return next(known, None)
