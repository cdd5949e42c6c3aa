"""Continuous batching: every step is one forward pass over all running sequences.

Decode rows come first, then prefill chunks, oldest first, up to a budget of tokens. The
`ModelRunner` decides how they pass through the model: packed into one row, or one by one.
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
from torch import Tensor

from headrace_worker.engine.base.interface import (
    EngineFacts,
    EngineStatistics,
    FinishReason,
    Sequence,
    SequenceRefused,
    StepOutput,
)
from headrace_worker.engine.base.model_runner import (
    CacheSpace,
    DecodeBatch,
    Ints,
    ModelRunner,
    PrefillChunk,
    SequenceContext,
    StepBatch,
)
from headrace_worker.engine.core.counters import EngineCounters
from headrace_worker.engine.core.slots import ActiveSequence, SlotTable
from headrace_worker.engine.core.stop_conditions import (
    finish_reason,
    finish_reason_so_far,
    stop_ids,
    validate_sequence,
)
from headrace_worker.engine.grammar.compiler import CompileFunction
from headrace_worker.engine.grammar.slot_grammars import SlotGrammars
from headrace_worker.engine.lora.adapters import Adapters
from headrace_worker.engine.sampling.logprobs import run_logprobs, split_logits
from headrace_worker.engine.sampling.sampler import SampledTokens, Sampler

GROWTH_TOKENS = 32
"""Tokens left free for each running sequence when another enters a shared cache. Too small: new
sequences are parked soon after. Too large: cache lies idle."""

log = logging.getLogger(__name__)


class SlotEngine:
    """The engine for transformers models; `builder` chooses the model runner."""

    def __init__(
        self,
        runner: ModelRunner,
        facts: EngineFacts,
        adapters: Adapters,
        *,
        prefill_chunk_tokens: int,
        compile_grammar: CompileFunction | None,
    ) -> None:
        """Args:
        adapters: those that the model runner applies.
        prefill_chunk_tokens: prompt tokens of a step, all sequences together. Too small: a
            long prompt takes many steps to its first token. Too large: all decoding sequences
            wait for it. A runner without chunked prefill gets whole prompts.
        """
        self.runner, self.facts, self.adapters = runner, facts, adapters
        self._prefill_chunk_tokens = prefill_chunk_tokens
        self._slots = SlotTable(facts.max_slots)
        self._grammars = SlotGrammars(compile_grammar, facts.max_slots, facts.vocabulary_size)
        self._sampler = Sampler(facts.max_slots, facts.vocabulary_size, self._grammars)
        self._counters = EngineCounters()

    def cached_blocks(self) -> list[bytes]:
        return list(self.runner.cached_hashes)

    @property
    def has_work(self) -> bool:
        return bool(self._slots.sequences)

    def admit(self, sequence: Sequence) -> None:
        facts = self.facts
        if sequence.sequence_id in self._slots.sequences:
            raise SequenceRefused(f"sequence {sequence.sequence_id} is already held")
        validate_sequence(sequence, facts)
        self._grammars.require(sequence)
        self.adapters.require(sequence.adapter)
        context_ids = np.array(sequence.prompt_ids + sequence.output_ids, dtype=np.int64)
        # Prompt log probabilities need a pass over the whole prompt: no prefix is reused.
        reuse = sequence.prompt_logprobs_width is None
        context = SequenceContext(context_ids, sequence.adapter, sequence.cache_salt, reuse)
        slot = self.runner.assign_slot(self._slots.require_free(), context)
        active = ActiveSequence(
            sequence,
            slot,
            context_ids,
            list(sequence.output_ids),
            stop_ids(sequence, facts.eos_token_ids),
            finish_reason_so_far(sequence, facts),
        )
        self._slots.add(active)
        self._sampler.admit(slot, sequence, active.stop_ids)
        self._grammars.admit(slot, sequence)

    def step(self) -> StepOutput:
        output = StepOutput()
        if self.has_work:
            began_s = time.perf_counter()
            with torch.inference_mode():
                self._poll_grammars(output)
                self._finish_ended(output)
                self._park_for_space(output)
                self._run_batch(self._schedule(), output)
            self._counters.steps += 1
            self._counters.output_tokens += len(output.token_ids)
            self._counters.busy_s += time.perf_counter() - began_s
        return output

    def park(self, sequence_id: int) -> tuple[int, ...]:
        active = self._slots.sequences[sequence_id]
        self._release(active)
        return tuple(active.output_ids)

    def cancel(self, sequence_id: int) -> None:
        if (active := self._slots.sequences.get(sequence_id)) is not None:
            self._release(active)

    def statistics(self) -> EngineStatistics:
        space = self._cache_space()
        return self._counters.statistics(
            running=len(self._slots.sequences),
            free_slots=len(self._slots.free),
            cache_tokens_used=space.total - space.free,
            cache_tokens_total=space.total,
            adapter_bytes=self.adapters.bytes,
        )

    def check_integrity(self) -> None:
        self._slots.check_integrity()
        self._grammars.check_integrity(self._slots.free)
        self.runner.check_integrity(self._slots.free)

    def _cache_space(self) -> CacheSpace:
        if self.runner.cache_space is None:
            total = self.facts.max_slots * self.facts.context_tokens
            return CacheSpace(total - int(self._slots.lengths.sum()), total)
        # Admitted sequences without cache will need space soon.
        owed = sum(len(o.context_ids) for o in self._slots.prefilling if not o.has_cache)
        space = self.runner.cache_space
        return CacheSpace(max(0, space.free - owed), space.total)

    def _poll_grammars(self, output: StepOutput) -> None:
        """Admit sequences whose grammar is compiled and refuse those whose grammar is invalid."""
        nothing_else = all(not self._grammars.is_ready(slot) for slot in self._slots.by_slot)
        for slot, refusal in self._grammars.poll(wait=nothing_else):
            active = self._slots.by_slot[slot]
            if refusal is not None:
                self._refuse(active, refusal, output)
            elif self._grammars.is_terminated(slot):
                active.previous_finish = FinishReason.STOP

    def _finish_ended(self, output: StepOutput) -> None:
        """Finish the sequences that earlier attempts ended, without a forward pass."""
        ready = [each for each in self._slots.prefilling if self._grammars.is_ready(each.slot)]
        for active in ready:
            if active.previous_finish is not None:
                output.finished.append((active.sequence.sequence_id, active.previous_finish))
                self._release(active)

    def _park_for_space(self, output: StepOutput) -> None:
        """Park the least urgent sequences until all decoding ones can grow by a token."""
        slots = self._decoding_slots()
        while not self.runner.reserve(slots, self._slots.lengths[slots] + 1):
            parked = self._slots.least_urgent()
            output.parked.append(parked.sequence.sequence_id)
            self._release(parked)
            slots = self._decoding_slots()

    def _decoding_slots(self) -> Ints:
        """Return the slots that get a token in the next pass, ascending."""
        return self._slots.decoding

    def _schedule(self) -> StepBatch:
        budget = self._prefill_chunk_tokens
        prefills = []
        for active in self._slots.prefilling:
            if budget <= 0:
                break
            if not self._grammars.is_ready(active.slot):
                continue
            if not active.has_cache and not self._allocate(active):
                # Later sequences must not overtake: a large one would wait for ever.
                break
            start = int(self._slots.lengths[active.slot])
            end = start + budget if self.runner.supports_chunked_prefill else None
            token_ids = active.context_ids[start:end]
            is_last_chunk = start + len(token_ids) == len(active.context_ids)
            all_logits = active.sequence.prompt_logprobs_width is not None
            prefills.append(PrefillChunk(active.slot, start, token_ids, is_last_chunk, all_logits))
            budget -= len(token_ids)
        return StepBatch(self._decoding_slots(), tuple(prefills))

    def _allocate(self, active: ActiveSequence) -> bool:
        others = len(self._slots.with_cache)
        spare_tokens = (others + 1) * GROWTH_TOKENS if others else 0
        cached = self.runner.allocate(active.slot, spare_tokens=spare_tokens)
        if cached is None:
            return False
        self._slots.lengths[active.slot] = cached
        active.has_cache, active.cached_tokens = True, cached
        if self.runner.supports_prefix_caching and active.sequence.prompt_logprobs_width is None:
            self._counters.prefix_queries += len(active.context_ids)
            self._counters.prefix_hits += cached
        return True

    def _run_batch(self, rows: StepBatch, output: StepOutput) -> None:
        """Run the rows; if the pass fails, bisect until the failing row is alone."""
        if not len(rows):
            return
        slots = rows.decoding
        decode = DecodeBatch(slots, self._slots.last_tokens[slots], self._slots.lengths[slots])
        try:
            logits = self.runner.run(decode, rows.prefills)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the others
            if len(rows) == 1:
                slot = int(slots[0]) if len(slots) else rows.prefills[0].slot
                self._fail(self._slots.by_slot[slot], f"{type(error).__name__}: {error}", output)
                return
            log.warning("engine.pass_failed", extra={"rows": len(rows), "error": repr(error)})
            for half in rows.split():
                self._run_batch(half, output)
            return
        self._process_logits(rows, logits, output)

    def _process_logits(self, rows: StepBatch, logits: Tensor, output: StepOutput) -> None:
        """Update counters and prompt log probabilities, and sample a token for every row that is
        due."""
        logits, prompt_logits = split_logits(logits, len(rows.decoding), rows.prefills)
        for prefill, behind in prompt_logits:
            self._add_prompt_logprobs(prefill, behind, output)
        self._slots.lengths[rows.decoding] += 1
        completed = []
        for prefill in rows.prefills:
            self._slots.lengths[prefill.slot] += len(prefill.token_ids)
            self._counters.prompt_tokens += len(prefill.token_ids)
            if prefill.is_last_chunk:
                completed.append(prefill.slot)
                self._slots.start_decoding(self._slots.by_slot[prefill.slot])
        slots = np.concatenate((rows.decoding, np.array(completed, dtype=np.int64)))
        if len(slots):
            choice = self._sampler.sample(logits, slots, self._slots.output_indices[slots])
            self._slots.last_tokens[slots] = choice.token_ids
            self._slots.output_indices[slots] += 1
            self._append_tokens(slots.tolist(), choice, output)

    def _add_prompt_logprobs(
        self, prefill: PrefillChunk, logits: Tensor, output: StepOutput
    ) -> None:
        """Add the logprobs of prompt tokens, each by the logits of the position before it."""
        active = self._slots.by_slot[prefill.slot]
        begin = prefill.start + 1
        token_ids = active.context_ids[begin : begin + len(logits)]
        width = active.sequence.prompt_logprobs_width
        if len(token_ids) and width is not None:
            run = run_logprobs(logits[: len(token_ids)], token_ids, width)
            output.prompt_logprobs[active.sequence.sequence_id] = run

    def _append_tokens(self, slots: list[int], choice: SampledTokens, output: StepOutput) -> None:
        rows = zip(slots, choice.token_ids, choice.finite, strict=True)
        for row, (slot, token_id, finite) in enumerate(rows):
            active = self._slots.by_slot[slot]
            if self._grammars.is_dead_end(slot) or row in choice.dead_ends:
                self._refuse(active, "after this output it allows no token", output)
                continue
            if not finite:
                self._fail(active, "its logits are not finite", output)
                continue
            if not self._grammars.accept(slot, token_id):
                self._fail(active, f"its grammar does not accept token {token_id}", output)
                continue
            sequence_id = active.sequence.sequence_id
            if len(active.output_ids) == len(active.sequence.output_ids):
                prompt_tokens = len(active.sequence.prompt_ids)
                output.cached_prompts[sequence_id] = min(active.cached_tokens, prompt_tokens)
            active.output_ids.append(token_id)
            output.sequence_ids.append(sequence_id)
            output.token_ids.append(token_id)
            if row in choice.logprobs:
                output.logprobs[sequence_id] = choice.logprobs[row]
            reason = finish_reason(
                active.sequence, active.output_ids, active.stop_ids, self.facts.context_tokens
            )
            if self._grammars.is_terminated(slot):
                reason = FinishReason.STOP
            if reason is not None:
                output.finished.append((sequence_id, reason))
                self._release(active)

    def _fail(self, active: ActiveSequence, fact: str, output: StepOutput) -> None:
        output.failed.append((active.sequence.sequence_id, fact))
        self._release(active, finite=False)

    def _refuse(self, active: ActiveSequence, reason: str, output: StepOutput) -> None:
        output.refused.append((active.sequence.sequence_id, reason))
        self._release(active)

    def _release(self, active: ActiveSequence, *, finite: bool = True) -> None:
        """Free the slot; every sequence leaves through here, whatever the reason."""
        cached = int(self._slots.lengths[active.slot]) if finite else 0
        with torch.inference_mode():
            self.runner.release(active.slot, active.token_ids[:cached])
        self._sampler.release(active.slot)
        self._grammars.release(active.slot)
        self._slots.remove(active)
