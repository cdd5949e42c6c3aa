"""An engine without a model: its tokens follow from the prompt and the output index.

It keeps every promise of the interface at no cost, so the mesh around it can be tested and
demonstrated, with faults on purpose.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace.sampling import names_in
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.scripted_text import (
    end_token,
    script_key,
    script_length,
    script_logprobs,
    script_token,
    scripted_tokenizer_files,
    vocabulary_size,
)
from headrace_worker.engine.base.interface import (
    Capabilities,
    EngineFacts,
    EngineStatistics,
    FinishReason,
    NoFreeSlot,
    Sequence,
    SequenceRefused,
    StepOutput,
)
from headrace_worker.engine.base.loaded_model import LoadedModel
from headrace_worker.engine.core.counters import EngineCounters
from headrace_worker.engine.core.stop_conditions import (
    finish_reason,
    finish_reason_so_far,
    stop_ids,
    validate_sequence,
)

_WORKER_SLOTS = 256
_CONTEXT_TOKENS = 4096


def kill_this_process() -> None:
    """Kill this process as a crash would: no clean-up, no exit handlers."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class ScriptedFaults:
    """Faults on purpose; none unless set."""

    refuse_all: bool = False
    """Every `admit` is refused."""
    fail_prompts_containing: int | None = None
    """A sequence with this token in its prompt fails in its first step."""
    fail_at_output_index: int | None = None
    """Every sequence fails instead of making this token."""
    crash_after_steps: int | None = None
    """The process dies in the step after so many."""
    crash_prompts_containing: int | None = None
    """The process dies in the first step of a sequence with this token in its prompt."""


@dataclass(frozen=True, slots=True)
class ScriptedSettings:
    """How fast and how large the scripted engine is."""

    step_s: float = 0.0
    """Time a step takes, however many sequences it serves. 0 does not wait."""
    max_slots: int = 32
    context_tokens: int = _CONTEXT_TOKENS
    prefill_chunk_tokens: int = 128
    """Prompt tokens a sequence advances per step before its first token."""
    faults: ScriptedFaults = ScriptedFaults()


@dataclass(slots=True)
class _Held:
    sequence: Sequence
    key: int
    length: int
    stop_ids: frozenset[int]
    over: FinishReason | None
    output_ids: list[int]
    prefilled: int = 0

    @property
    def prefill_tokens(self) -> int:
        return len(self.sequence.prompt_ids) + len(self.sequence.output_ids)

    @property
    def cached_tokens(self) -> int:
        # As with a real cache, the latest token enters it with the next step.
        return self.prefilled + max(0, len(self.output_ids) - len(self.sequence.output_ids) - 1)


class ScriptedEngine:
    """Generates readable words; the same prompt always gets the same ones.

    Greedy output depends on the prompt only, sampled output (temperature above 0) on prompt and
    seed. An answer ends after 16 to 64 tokens, or never with `ignore_eos`. Log probabilities follow
    from prompt and position. The other sampling parameters have no effect.
    """

    def __init__(
        self,
        settings: ScriptedSettings | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        now_s: Callable[[], float] = time.perf_counter,
        crash: Callable[[], None] = kill_this_process,
    ) -> None:
        self._settings = settings or ScriptedSettings()
        self._sleep, self._now_s, self._crash = sleep, now_s, crash
        self._held: dict[int, _Held] = {}
        self._counters = EngineCounters()
        self._facts = EngineFacts(
            name="scripted",
            dtype="none",
            max_slots=self._settings.max_slots,
            context_tokens=self._settings.context_tokens,
            vocabulary_size=vocabulary_size(),
            eos_token_ids=(end_token(),),
            weights_digest="scripted-1",
            batch_invariant=True,
            capabilities=Capabilities(
                logprobs=True, cache_salt=True, sampling=names_in("scripted").keys()
            ),
        )

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    @property
    def has_work(self) -> bool:
        return bool(self._held)

    def admit(self, sequence: Sequence) -> None:
        facts = self._facts
        if self._settings.faults.refuse_all:
            raise SequenceRefused("this engine is configured to refuse everything")
        if sequence.grammar is not None:
            raise SequenceRefused("this engine takes no grammars")
        if sequence.sequence_id in self._held:
            raise SequenceRefused(f"sequence {sequence.sequence_id} is already held")
        validate_sequence(sequence, facts)
        if len(self._held) >= facts.max_slots:
            raise NoFreeSlot(f"all {facts.max_slots} slots are taken")
        key = script_key(
            sequence.prompt_ids, sequence.seed if sequence.parameters.temperature > 0 else None
        )
        self._held[sequence.sequence_id] = _Held(
            sequence,
            key,
            script_length(key),
            stop_ids(sequence, facts.eos_token_ids),
            finish_reason_so_far(sequence, facts),
            list(sequence.output_ids),
        )

    def step(self) -> StepOutput:
        columns = StepOutput()
        if not self._held:
            return columns
        began_s = self._now_s()
        self._crash_if_told()
        if self._settings.step_s > 0:
            self._sleep(self._settings.step_s)
        for held in list(self._held.values()):
            self._advance(held, columns)
        for sequence_id, _ in (*columns.finished, *columns.failed):
            del self._held[sequence_id]
        self._counters.steps += 1
        self._counters.output_tokens += len(columns.token_ids)
        self._counters.busy_s += self._now_s() - began_s
        return columns

    def park(self, sequence_id: int) -> tuple[int, ...]:
        return tuple(self._held.pop(sequence_id).output_ids)

    def cancel(self, sequence_id: int) -> None:
        self._held.pop(sequence_id, None)

    def statistics(self) -> EngineStatistics:
        return self._counters.statistics(
            running=len(self._held),
            free_slots=self._facts.max_slots - len(self._held),
            cache_tokens_used=sum(held.cached_tokens for held in self._held.values()),
            cache_tokens_total=self._facts.max_slots * self._facts.context_tokens,
        )

    def check_integrity(self) -> None:
        assert len(self._held) <= self._facts.max_slots
        for sequence_id, held in self._held.items():
            assert held.sequence.sequence_id == sequence_id
            assert held.cached_tokens <= self._facts.context_tokens

    def _crash_if_told(self) -> None:
        faults = self._settings.faults
        poisoned = faults.crash_prompts_containing is not None and any(
            faults.crash_prompts_containing in held.sequence.prompt_ids
            for held in self._held.values()
        )
        if poisoned or self._counters.steps == faults.crash_after_steps:
            self._crash()

    def _advance(self, held: _Held, columns: StepOutput) -> None:
        sequence_id = held.sequence.sequence_id
        fault = self._fault(held)
        if fault is not None:
            columns.failed.append((sequence_id, fault))
            return
        if held.over is not None:
            columns.finished.append((sequence_id, held.over))
            return
        if not self._prefilled(held, columns):
            return
        token_id = self._next_token(held)
        width = held.sequence.parameters.logprobs
        if width is not None:
            columns.logprobs[sequence_id] = script_logprobs(
                held.key, len(held.output_ids), [token_id], width
            )
        held.output_ids.append(token_id)
        columns.sequence_ids.append(sequence_id)
        columns.token_ids.append(token_id)
        reason = finish_reason(
            held.sequence, held.output_ids, held.stop_ids, self._facts.context_tokens
        )
        if reason is not None:
            columns.finished.append((sequence_id, reason))

    def _fault(self, held: _Held) -> str | None:
        faults = self._settings.faults
        if faults.fail_prompts_containing in held.sequence.prompt_ids:
            return f"the prompt has token {faults.fail_prompts_containing}"
        if faults.fail_at_output_index == len(held.output_ids):
            return f"configured to fail at output index {faults.fail_at_output_index}"
        return None

    def _prefilled(self, held: _Held, columns: StepOutput) -> bool:
        """Advance the prefill by a chunk; return True once the sequence may get a token."""
        left = held.prefill_tokens - held.prefilled
        chunk = min(left, self._settings.prefill_chunk_tokens)
        width, begin = held.sequence.prompt_logprobs_width, held.prefilled + 1
        token_ids = held.sequence.prompt_ids[begin : begin + chunk]
        if width is not None and token_ids:
            run = script_logprobs(
                held.key, -len(held.sequence.prompt_ids) + begin, token_ids, width
            )
            columns.prompt_logprobs[held.sequence.sequence_id] = run
        held.prefilled += chunk
        self._counters.prompt_tokens += chunk
        return chunk == left

    def _next_token(self, held: _Held) -> int:
        index = len(held.output_ids)
        if index == held.length and not held.sequence.parameters.ignore_eos:
            return end_token()
        return script_token(held.key, index)


def load_scripted(settings: WorkerSettings) -> LoadedModel:
    """Return the scripted engine with its tokenizer, as other engines are loaded."""
    faults = ScriptedFaults(
        fail_prompts_containing=settings.scripted_fail_token,
        crash_prompts_containing=settings.scripted_crash_token,
    )
    engine = ScriptedEngine(
        ScriptedSettings(
            step_s=settings.scripted_step_s,
            max_slots=settings.max_slots or _WORKER_SLOTS,
            context_tokens=settings.context_tokens or _CONTEXT_TOKENS,
            faults=faults,
        )
    )
    return LoadedModel(engine, scripted_tokenizer_files(), {}, parameters=0)
