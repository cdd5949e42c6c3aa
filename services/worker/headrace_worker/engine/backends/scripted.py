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
from headrace_worker.engine.backends.held_sequences import HeldSequence, HoldingEngine
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
    Sequence,
    SequenceRefused,
    StepOutput,
)
from headrace_worker.engine.base.loaded_model import LoadedModel

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


class _Held(HeldSequence):
    def __init__(self, sequence: Sequence, facts: EngineFacts) -> None:
        super().__init__(sequence, facts)
        seed = sequence.seed if sequence.parameters.temperature > 0 else None
        self.key = script_key(sequence.prompt_ids, seed)


class ScriptedEngine(HoldingEngine[_Held]):
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
        self._sleep, self._crash = sleep, crash
        facts = EngineFacts(
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
        super().__init__(facts, now_s)

    def admit(self, sequence: Sequence) -> None:
        if self._settings.faults.refuse_all:
            raise SequenceRefused("this engine is configured to refuse everything")
        if sequence.grammar is not None:
            raise SequenceRefused("this engine takes no grammars")
        super().admit(sequence)

    def _start(self, sequence: Sequence) -> _Held:
        return _Held(sequence, self._facts)

    def _prepare_step(self) -> None:
        faults = self._settings.faults
        poisoned = faults.crash_prompts_containing is not None and any(
            faults.crash_prompts_containing in held.sequence.prompt_ids
            for held in self._held.values()
        )
        if poisoned or self._counters.steps == faults.crash_after_steps:
            self._crash()
        if self._settings.step_s > 0:
            self._sleep(self._settings.step_s)

    def _advance(self, held: _Held, output: StepOutput) -> None:
        sequence_id, reason = held.sequence.sequence_id, held.finish
        if (fault := self._fault(held)) is not None:
            output.failed.append((sequence_id, fault))
            return
        if reason is None:
            if not self._prefill(held, output):
                return
            token_id, width = self._next_token(held), held.sequence.parameters.logprobs
            if width is not None:
                run = script_logprobs(held.key, len(held.output_ids), [token_id], width)
                output.logprobs[sequence_id] = run
            reason = self._emit(held, token_id, output)
        if reason is not None:
            output.finished.append((sequence_id, reason))

    def _fault(self, held: _Held) -> str | None:
        faults = self._settings.faults
        if faults.fail_prompts_containing in held.sequence.prompt_ids:
            return f"the prompt has token {faults.fail_prompts_containing}"
        if faults.fail_at_output_index == len(held.output_ids):
            return f"configured to fail at output index {faults.fail_at_output_index}"
        return None

    def _prefill(self, held: _Held, output: StepOutput) -> bool:
        """Advance the prefill by a chunk; return True once the sequence may get a token."""
        left = held.context_tokens - held.prefilled
        chunk = min(left, self._settings.prefill_chunk_tokens)
        width, begin = held.sequence.prompt_logprobs_width, held.prefilled + 1
        token_ids = held.sequence.prompt_ids[begin : begin + chunk]
        if width is not None and token_ids:
            run = script_logprobs(
                held.key, -len(held.sequence.prompt_ids) + begin, token_ids, width
            )
            output.prompt_logprobs[held.sequence.sequence_id] = run
        held.prefilled += chunk
        self._counters.prompt_tokens += chunk
        return chunk == left

    def _next_token(self, held: _Held) -> int:
        index = len(held.output_ids)
        if index == script_length(held.key) and not held.sequence.parameters.ignore_eos:
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
