"""What the remote and the scripted engine have in common: sequences by id, and their ends."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from headrace_worker.engine.base.interface import (
    EngineFacts,
    EngineStatistics,
    FinishReason,
    NoFreeSlot,
    Sequence,
    SequenceRefused,
    StepOutput,
)
from headrace_worker.engine.core.counters import EngineCounters
from headrace_worker.engine.core.stop_conditions import (
    finish_reason,
    finish_reason_so_far,
    stop_ids,
    validate_sequence,
)


class HeldSequence:
    """A sequence that the engine has admitted."""

    def __init__(self, sequence: Sequence, facts: EngineFacts) -> None:
        self.sequence = sequence
        self.stop_ids = stop_ids(sequence, facts.eos_token_ids)
        self.output_ids = list(sequence.output_ids)
        self.finish = finish_reason_so_far(sequence, facts)
        """How it ends once no more tokens come; None if that is not known yet."""
        self.prefilled = 0
        """Tokens of the prompt and of earlier output that are in the cache."""

    @property
    def context_tokens(self) -> int:
        """The prompt and the output of earlier attempts."""
        return len(self.sequence.prompt_ids) + len(self.sequence.output_ids)

    @property
    def cached_tokens(self) -> int:
        # As with a cache of ours, the latest token enters it with the next step.
        made = len(self.output_ids) - len(self.sequence.output_ids)
        return self.prefilled + max(0, made - 1)


Held = TypeVar("Held", bound=HeldSequence)


class HoldingEngine(ABC, Generic[Held]):
    """An engine without a cache of its own; a subclass provides the tokens."""

    def __init__(self, facts: EngineFacts, now_s: Callable[[], float] = time.perf_counter) -> None:
        self._facts, self._now_s = facts, now_s
        self._held: dict[int, Held] = {}
        self._counters = EngineCounters()

    @abstractmethod
    def _start(self, sequence: Sequence) -> Held:
        """Begin a sequence; it has a `finish` already if earlier attempts completed it.

        Raises:
            SequenceRefused: the engine cannot run it.
        """

    @abstractmethod
    def _prepare_step(self) -> None:
        """Do what comes once in each step, before the sequences."""

    @abstractmethod
    def _advance(self, held: Held, output: StepOutput) -> None:
        """Add the sequence's next token, its finish or its failure to the output."""

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    @property
    def has_work(self) -> bool:
        return bool(self._held)

    @property
    def unavailable_reason(self) -> str:
        """Why nothing runs now; empty if it does."""
        return ""

    def admit(self, sequence: Sequence) -> None:
        facts = self._facts
        if sequence.sequence_id in self._held:
            raise SequenceRefused(f"sequence {sequence.sequence_id} is already held")
        validate_sequence(sequence, facts)
        if len(self._held) >= facts.max_slots:
            raise NoFreeSlot(f"all {facts.max_slots} slots are taken")
        self._held[sequence.sequence_id] = self._start(sequence)

    def step(self) -> StepOutput:
        output = StepOutput()
        if not self._held:
            return output
        began_s = self._now_s()
        self._prepare_step()
        for held in self._held.values():
            self._advance(held, output)
        for sequence_id, _ in (*output.finished, *output.failed):
            self.cancel(sequence_id)
        self._counters.steps += 1
        self._counters.output_tokens += len(output.token_ids)
        self._counters.busy_s += self._now_s() - began_s
        return output

    def _emit(self, held: Held, token_id: int, output: StepOutput) -> FinishReason | None:
        """Add the token to the output; return how the sequence ends with it, if it does."""
        held.output_ids.append(token_id)
        output.sequence_ids.append(held.sequence.sequence_id)
        output.token_ids.append(token_id)
        return finish_reason(
            held.sequence, held.output_ids, held.stop_ids, self._facts.context_tokens
        )

    def park(self, sequence_id: int) -> tuple[int, ...]:
        output_ids = tuple(self._held[sequence_id].output_ids)
        self.cancel(sequence_id)
        return output_ids

    def cancel(self, sequence_id: int) -> None:
        self._held.pop(sequence_id, None)

    def statistics(self) -> EngineStatistics:
        """Return statistics; cache figures are counted, for there is no cache to be seen."""
        return self._counters.statistics(
            running=len(self._held),
            free_slots=self._facts.max_slots - len(self._held),
            cache_tokens_used=sum(held.cached_tokens for held in self._held.values()),
            cache_tokens_total=self._facts.max_slots * self._facts.context_tokens,
            unavailable_reason=self.unavailable_reason,
        )

    def check_integrity(self) -> None:
        assert len(self._held) <= self._facts.max_slots
        for sequence_id, held in self._held.items():
            assert held.sequence.sequence_id == sequence_id
            assert held.cached_tokens <= self._facts.context_tokens
