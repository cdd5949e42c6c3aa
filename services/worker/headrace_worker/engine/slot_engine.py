"""Continuous batching: every step is one forward pass over whatever is held.

Decode rows come first, then prefill, oldest first, up to a budget of tokens. How
they pass through the model is the `Forward`'s: packed into one row, or one by one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace_worker.engine.choosing import Choice, Chooser
from headrace_worker.engine.endings import already_over, finish_reason, require_fit, stop_ids
from headrace_worker.engine.forward import Decode, Forward, Prefill
from headrace_worker.engine.interface import (
    EngineFacts,
    EngineStatistics,
    Sequence,
    SequenceRefused,
    StepOutput,
)
from headrace_worker.engine.slots import Occupant, Slots

Ints = NDArray[np.int64]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What one forward pass is about: slots that decode, and pieces of prompts."""

    decoding: Ints
    prefills: tuple[Prefill, ...]

    def __len__(self) -> int:
        return len(self.decoding) + len(self.prefills)

    def halves(self) -> tuple[_Rows, _Rows]:
        cut = len(self) // 2
        decode, prefill = min(cut, len(self.decoding)), max(0, cut - len(self.decoding))
        return (
            _Rows(self.decoding[:decode], self.prefills[:prefill]),
            _Rows(self.decoding[decode:], self.prefills[prefill:]),
        )


@dataclass(slots=True)
class _Totals:
    steps: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    busy_s: float = 0.0
    prefix_queries: int = 0
    prefix_hits: int = 0


class SlotEngine:
    """The engine for transformers models; `building` finds the forward pass that is right."""

    def __init__(
        self,
        forward: Forward,
        facts: EngineFacts,
        *,
        prefill_chunk_tokens: int = 128,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`prefill_chunk_tokens` bounds the prompt tokens of a step, all sequences together.

        Too small: a long prompt takes many steps to its first token. Too large:
        everyone who decodes waits for it. Prompts that must come whole come
        whole, however long.
        """
        self._forward, self._facts = forward, facts
        self._prefill_chunk_tokens, self._now_s = prefill_chunk_tokens, now_s
        self._slots = Slots(facts.max_slots)
        self._chooser = Chooser(facts.max_slots, facts.vocabulary_size)
        self._totals = _Totals()

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    @property
    def has_work(self) -> bool:
        return bool(self._slots.occupants)

    def admit(self, sequence: Sequence) -> None:
        facts = self._facts
        context_tokens, eos_token_ids = facts.context_tokens, facts.eos_token_ids
        if sequence.sequence_id in self._slots.occupants:
            raise SequenceRefused(f"sequence {sequence.sequence_id} is already held")
        require_fit(sequence, context_tokens=context_tokens, vocabulary_size=facts.vocabulary_size)
        context_ids = np.array(sequence.prompt_ids + sequence.output_ids, dtype=np.int64)
        occupant = Occupant(
            sequence,
            self._forward.place(self._slots.require_free(), context_ids),
            context_ids,
            list(sequence.output_ids),
            stop_ids(sequence, eos_token_ids),
            already_over(sequence, eos_token_ids=eos_token_ids, context_tokens=context_tokens),
        )
        self._slots.occupy(occupant)
        self._chooser.admit(occupant.slot, sequence)

    def step(self) -> StepOutput:
        columns = StepOutput()
        if self.has_work:
            began_s = self._now_s()
            with torch.inference_mode():
                self._say_what_is_over(columns)
                self._advance(self._plan(), columns)
            self._totals.steps += 1
            self._totals.output_tokens += len(columns.token_ids)
            self._totals.busy_s += self._now_s() - began_s
        return columns

    def park(self, sequence_id: int) -> tuple[int, ...]:
        occupant = self._slots.occupants[sequence_id]
        self._release(occupant)
        return tuple(occupant.output_ids)

    def cancel(self, sequence_id: int) -> None:
        occupant = self._slots.occupants.get(sequence_id)
        if occupant is not None:
            self._release(occupant)

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            running=len(self._slots.occupants),
            free_slots=len(self._slots.free),
            cache_tokens_used=int(self._slots.lengths.sum()),
            cache_tokens_total=self._facts.max_slots * self._facts.context_tokens,
            steps=self._totals.steps,
            prompt_tokens=self._totals.prompt_tokens,
            output_tokens=self._totals.output_tokens,
            busy_s=self._totals.busy_s,
            prefix_queries=self._totals.prefix_queries,
            prefix_hits=self._totals.prefix_hits,
        )

    def check_integrity(self) -> None:
        self._slots.check_integrity()
        self._forward.check_integrity(self._slots.free)

    def _say_what_is_over(self, columns: StepOutput) -> None:
        """Finish the sequences that earlier attempts ended, without a forward pass."""
        for occupant in [each for each in self._slots.prefilling if each.over is not None]:
            assert occupant.over is not None
            columns.finished.append((occupant.sequence.sequence_id, occupant.over))
            self._release(occupant)

    def _plan(self) -> _Rows:
        budget = self._prefill_chunk_tokens
        prefills = []
        for occupant in self._slots.prefilling:
            if budget <= 0:
                break
            if not occupant.entered:
                self._enter(occupant)
            start = int(self._slots.lengths[occupant.slot])
            end = start + budget if self._forward.chunks_prompts else None
            token_ids = occupant.context_ids[start:end]
            completes = start + len(token_ids) == len(occupant.context_ids)
            prefills.append(Prefill(occupant.slot, start, token_ids, completes))
            budget -= len(token_ids)
        return _Rows(self._slots.decoding, tuple(prefills))

    def _enter(self, occupant: Occupant) -> None:
        known = self._forward.enter(occupant.slot)
        self._slots.lengths[occupant.slot] = known
        occupant.entered = True
        if self._forward.shares_prefixes:
            self._totals.prefix_queries += len(occupant.context_ids)
            self._totals.prefix_hits += known

    def _advance(self, rows: _Rows, columns: StepOutput) -> None:
        """Run some rows; where that fails, run fewer at a time until the culprit is alone."""
        if not len(rows):
            return
        try:
            logits = self._forward.run(self._decode(rows.decoding), rows.prefills)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the others
            if len(rows) == 1:
                slot = int(rows.decoding[0]) if len(rows.decoding) else rows.prefills[0].slot
                self._fail(self._occupant(slot), f"{type(error).__name__}: {error}", columns)
                return
            log.warning("engine.pass_failed", extra={"rows": len(rows), "error": repr(error)})
            for half in rows.halves():
                self._advance(half, columns)
            return
        self._complete(rows, logits, columns)

    def _decode(self, slots: Ints) -> Decode:
        return Decode(slots, self._slots.latest[slots], self._slots.lengths[slots])

    def _complete(self, rows: _Rows, logits: Tensor, columns: StepOutput) -> None:
        """Count what was cached, and give every row with logits its token."""
        self._slots.lengths[rows.decoding] += 1
        completed = []
        for prefill in rows.prefills:
            self._slots.lengths[prefill.slot] += len(prefill.token_ids)
            self._totals.prompt_tokens += len(prefill.token_ids)
            if prefill.completes:
                completed.append(prefill.slot)
                self._slots.start_decoding(self._occupant(prefill.slot))
        slots = np.concatenate((rows.decoding, np.array(completed, dtype=np.int64)))
        if len(slots):
            choice = self._chooser.choose(logits, slots, self._slots.output_indices[slots])
            self._slots.latest[slots] = choice.token_ids
            self._slots.output_indices[slots] += 1
            self._record(slots.tolist(), choice, columns)

    def _record(self, slots: list[int], choice: Choice, columns: StepOutput) -> None:
        for slot, token_id, sound in zip(slots, choice.token_ids, choice.sound, strict=True):
            occupant = self._occupant(slot)
            if not sound:
                self._fail(occupant, "its logits are not finite", columns)
                continue
            occupant.output_ids.append(token_id)
            sequence_id = occupant.sequence.sequence_id
            columns.sequence_ids.append(sequence_id)
            columns.token_ids.append(token_id)
            reason = finish_reason(
                token_id,
                stop_ids=occupant.stop_ids,
                output_tokens=len(occupant.output_ids),
                max_tokens=occupant.sequence.parameters.max_tokens,
                total_tokens=len(occupant.sequence.prompt_ids) + len(occupant.output_ids),
                context_tokens=self._facts.context_tokens,
            )
            if reason is not None:
                columns.finished.append((sequence_id, reason))
                self._release(occupant)

    def _occupant(self, slot: int) -> Occupant:
        occupant = self._slots.by_slot[slot]
        assert occupant is not None
        return occupant

    def _fail(self, occupant: Occupant, fact: str, columns: StepOutput) -> None:
        columns.failed.append((occupant.sequence.sequence_id, fact))
        self._release(occupant, sound=False)

    def _release(self, occupant: Occupant, *, sound: bool = True) -> None:
        """The one way out of a slot, whatever the reason."""
        cached = int(self._slots.lengths[occupant.slot]) if sound else 0
        with torch.inference_mode():
            self._forward.leave(occupant.slot, occupant.token_ids[:cached])
        self._chooser.release(occupant.slot)
        self._slots.vacate(occupant)
