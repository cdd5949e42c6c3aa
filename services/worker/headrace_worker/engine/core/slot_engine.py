"""Continuous batching: every step is one forward pass over whatever is held.

Decode rows come first, then prefill, oldest first, up to a budget of tokens. How
they pass through the model is the `Forward`'s: packed into one row, or one by one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace_worker.engine.base.interface import (
    EngineFacts,
    EngineStatistics,
    FinishReason,
    FittedAdapter,
    Sequence,
    SequenceRefused,
    StepOutput,
)
from headrace_worker.engine.base.model_runner import Decode, Forward, Prefill, Room, StepRows
from headrace_worker.engine.core.counters import Tally
from headrace_worker.engine.core.slots import Occupant, Slots
from headrace_worker.engine.core.stop_conditions import (
    already_over,
    finish_reason,
    require_fit,
    stop_ids,
)
from headrace_worker.engine.grammar.compiler import Compile
from headrace_worker.engine.grammar.slot_grammars import Grammars
from headrace_worker.engine.lora.adapters import Adapters, Fitted
from headrace_worker.engine.sampling.logprobs import part, run_logprobs
from headrace_worker.engine.sampling.sampler import Choice, Chooser

Ints = NDArray[np.int64]

GROWTH_TOKENS = 32
"""Left free for each that runs when a newcomer enters a shared cache. Too small: newcomers are
parked soon after. Too large: cache lies idle."""

log = logging.getLogger(__name__)


class SlotEngine:
    """The engine for transformers models; `building` finds the forward pass that is right."""

    def __init__(
        self,
        forward: Forward,
        facts: EngineFacts,
        *,
        adapters: Adapters | None = None,
        prefill_chunk_tokens: int = 128,
        compile_grammar: Compile | None = None,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`adapters` are those that the forward pass applies.

        `prefill_chunk_tokens` bounds the prompt tokens of a step, all sequences together.

        Too small: a long prompt takes many steps to its first token. Too large:
        everyone who decodes waits for it. Prompts that must come whole come
        whole, however long.
        """
        self._forward, self._facts = forward, facts
        self._adapters = adapters or Adapters()
        self._prefill_chunk_tokens, self._now_s = prefill_chunk_tokens, now_s
        self._slots = Slots(facts.max_slots)
        self._grammars = Grammars(compile_grammar, facts.max_slots, facts.vocabulary_size)
        self._chooser = Chooser(facts.max_slots, facts.vocabulary_size, self._grammars)
        self._tally = Tally()

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    @property
    def forward(self) -> Forward:
        """What it runs its steps through."""
        return self._forward

    def known_blocks(self) -> list[bytes]:
        return list(self._forward.names)

    @property
    def has_work(self) -> bool:
        return bool(self._slots.occupants)

    def admit(self, sequence: Sequence) -> None:
        facts = self._facts
        context_tokens, eos_token_ids = facts.context_tokens, facts.eos_token_ids
        if sequence.sequence_id in self._slots.occupants:
            raise SequenceRefused(f"sequence {sequence.sequence_id} is already held")
        require_fit(sequence, context_tokens=context_tokens, vocabulary_size=facts.vocabulary_size)
        self._grammars.require(sequence)
        self._adapters.require(sequence.adapter)
        context_ids = np.array(sequence.prompt_ids + sequence.output_ids, dtype=np.int64)
        # What is told of a prompt is known of no other's beginning.
        free, reuse = self._slots.require_free(), sequence.prompt_width is None
        adapter, salt = sequence.adapter, sequence.cache_salt
        slot = self._forward.place(free, context_ids, adapter, salt=salt, reuse=reuse)
        occupant = Occupant(
            sequence,
            slot,
            context_ids,
            list(sequence.output_ids),
            stop_ids(sequence, eos_token_ids),
            already_over(sequence, eos_token_ids=eos_token_ids, context_tokens=context_tokens),
        )
        self._slots.occupy(occupant)
        self._chooser.admit(slot, sequence, occupant.stop_ids)
        self._grammars.admit(slot, sequence)

    def step(self) -> StepOutput:
        columns = StepOutput()
        if self.has_work:
            began_s = self._now_s()
            with torch.inference_mode():
                self._settle_grammars(columns)
                self._say_what_is_over(columns)
                self._make_room(columns)
                self._advance(self._plan(), columns)
            self._tally.steps += 1
            self._tally.output_tokens += len(columns.token_ids)
            self._tally.busy_s += self._now_s() - began_s
        return columns

    def park(self, sequence_id: int) -> tuple[int, ...]:
        occupant = self._slots.occupants[sequence_id]
        self._release(occupant)
        return tuple(occupant.output_ids)

    def cancel(self, sequence_id: int) -> None:
        occupant = self._slots.occupants.get(sequence_id)
        if occupant is not None:
            self._release(occupant)

    def fit_adapter(self, folder: Path) -> FittedAdapter:
        return self._adapters.fit(folder)

    def hold_adapter(self, fitted: FittedAdapter) -> None:
        assert isinstance(fitted, Fitted)
        self._adapters.hold(fitted)

    def let_go_of_adapter(self, digest: str) -> None:
        self._adapters.let_go(digest)

    def statistics(self) -> EngineStatistics:
        room = self._room()
        return self._tally.statistics(
            running=len(self._slots.occupants),
            free_slots=len(self._slots.free),
            cache_tokens_used=room.total - room.free,
            cache_tokens_total=room.total,
            adapter_bytes=self._adapters.bytes,
        )

    def check_integrity(self) -> None:
        self._slots.check_integrity()
        self._grammars.check_integrity(self._slots.free)
        self._forward.check_integrity(self._slots.free)

    def _room(self) -> Room:
        if self._forward.room is None:
            total = self._facts.max_slots * self._facts.context_tokens
            return Room(total - int(self._slots.lengths.sum()), total)
        # What has been taken and has not entered yet will need its room soon.
        owed = sum(len(o.context_ids) for o in self._slots.prefilling if not o.entered)
        room = self._forward.room
        return Room(max(0, room.free - owed), room.total)

    def _settle_grammars(self, columns: StepOutput) -> None:
        """Let in whose grammar is ready, refuse whose is none; the others are left out of steps."""
        nothing_else = all(not self._grammars.is_ready(slot) for slot in self._slots.taken)
        for slot, refusal in self._grammars.settle(wait=nothing_else):
            occupant = self._occupant(slot)
            if refusal is not None:
                self._refuse(occupant, refusal, columns)
            elif self._grammars.is_over(slot):
                occupant.over = FinishReason.STOP

    def _say_what_is_over(self, columns: StepOutput) -> None:
        """Finish the sequences that earlier attempts ended, without a forward pass."""
        ready = [each for each in self._slots.prefilling if self._grammars.is_ready(each.slot)]
        for occupant in ready:
            if occupant.over is None:
                continue
            columns.finished.append((occupant.sequence.sequence_id, occupant.over))
            self._release(occupant)

    def _make_room(self, columns: StepOutput) -> None:
        """See that all who decode can grow by a token: park the least urgent until they can."""
        while not self._may_grow():
            parked = self._slots.least_urgent()
            columns.parked.append(parked.sequence.sequence_id)
            self._release(parked)

    def _may_grow(self) -> bool:
        slots = self._growing()
        return self._forward.reserve(slots, self._slots.lengths[slots] + 1)

    def _growing(self) -> Ints:
        """Slots that get a token by the next pass, ascending."""
        return self._slots.decoding

    def _plan(self) -> StepRows:
        budget = self._prefill_chunk_tokens
        prefills = []
        for occupant in self._slots.prefilling:
            if budget <= 0:
                break
            if not self._grammars.is_ready(occupant.slot):
                continue
            if not occupant.entered and not self._enter(occupant):
                # Nobody overtakes: what is large would wait for ever.
                break
            start = int(self._slots.lengths[occupant.slot])
            end = start + budget if self._forward.chunks_prompts else None
            token_ids = occupant.context_ids[start:end]
            completes = start + len(token_ids) == len(occupant.context_ids)
            every = occupant.sequence.prompt_width is not None
            prefills.append(Prefill(occupant.slot, start, token_ids, completes, every))
            budget -= len(token_ids)
        return StepRows(self._growing(), tuple(prefills))

    def _enter(self, occupant: Occupant) -> bool:
        others = len(self._slots.entered)
        spare_tokens = (others + 1) * GROWTH_TOKENS if others else 0
        known = self._forward.enter(occupant.slot, spare_tokens=spare_tokens)
        if known is None:
            return False
        self._slots.lengths[occupant.slot] = known
        occupant.entered, occupant.known = True, known
        if self._forward.shares_prefixes and occupant.sequence.prompt_width is None:
            self._tally.prefix_queries += len(occupant.context_ids)
            self._tally.prefix_hits += known
        return True

    def _advance(self, rows: StepRows, columns: StepOutput) -> None:
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

    def _complete(self, rows: StepRows, logits: Tensor, columns: StepOutput) -> None:
        """Count what was cached, tell of prompts, and give every row that is due its token."""
        logits, told = part(logits, len(rows.decoding), rows.prefills)
        for prefill, behind in told:
            self._tell(prefill, behind, columns)
        self._slots.lengths[rows.decoding] += 1
        completed = []
        for prefill in rows.prefills:
            self._slots.lengths[prefill.slot] += len(prefill.token_ids)
            self._tally.prompt_tokens += len(prefill.token_ids)
            if prefill.completes:
                completed.append(prefill.slot)
                self._slots.start_decoding(self._occupant(prefill.slot))
        slots = np.concatenate((rows.decoding, np.array(completed, dtype=np.int64)))
        if len(slots):
            choice = self._chooser.choose(logits, slots, self._slots.output_indices[slots])
            self._slots.latest[slots] = choice.token_ids
            self._slots.output_indices[slots] += 1
            self._record(slots.tolist(), choice, columns)

    def _tell(self, prefill: Prefill, logits: Tensor, columns: StepOutput) -> None:
        """Say how likely the prompt's tokens were, each by the logits behind the one before it."""
        occupant = self._occupant(prefill.slot)
        begin = prefill.start + 1
        token_ids = occupant.context_ids[begin : begin + len(logits)]
        width = occupant.sequence.prompt_width
        if len(token_ids) and width is not None:
            run = run_logprobs(logits[: len(token_ids)], token_ids, width)
            columns.prompt_logprobs[occupant.sequence.sequence_id] = run

    def _record(self, slots: list[int], choice: Choice, columns: StepOutput) -> None:
        for row, run in choice.logprobs.items():
            if choice.sound[row]:
                columns.logprobs[self._occupant(slots[row]).sequence.sequence_id] = run
        chosen = zip(slots, choice.token_ids, choice.sound, strict=True)
        for row, (slot, token_id, sound) in enumerate(chosen):
            occupant = self._occupant(slot)
            if self._grammars.is_stuck(slot) or row in choice.stuck:
                self._refuse(occupant, "after this output it allows no token", columns)
                continue
            if not sound:
                self._fail(occupant, "its logits are not finite", columns)
                continue
            if not self._grammars.accept(slot, token_id):
                self._fail(occupant, f"its grammar takes back token {token_id}", columns)
                continue
            sequence_id = occupant.sequence.sequence_id
            if len(occupant.output_ids) == len(occupant.sequence.output_ids):
                cached = min(occupant.known, len(occupant.sequence.prompt_ids))
                columns.cached_prompts[sequence_id] = cached
            occupant.output_ids.append(token_id)
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
            if self._grammars.is_over(slot):
                reason = FinishReason.STOP
            if reason is not None:
                columns.finished.append((sequence_id, reason))
                self._release(occupant)

    def _occupant(self, slot: int) -> Occupant:
        occupant = self._slots.by_slot[slot]
        assert occupant is not None
        return occupant

    def _fail(self, occupant: Occupant, fact: str, columns: StepOutput) -> None:
        columns.failed.append((occupant.sequence.sequence_id, fact))
        columns.logprobs.pop(occupant.sequence.sequence_id, None)
        self._release(occupant, sound=False)

    def _refuse(self, occupant: Occupant, fact: str, columns: StepOutput) -> None:
        columns.refused.append((occupant.sequence.sequence_id, fact))
        self._release(occupant)

    def _release(self, occupant: Occupant, *, sound: bool = True) -> None:
        """The one way out of a slot, whatever the reason."""
        cached = int(self._slots.lengths[occupant.slot]) if sound else 0
        with torch.inference_mode():
            self._forward.leave(occupant.slot, occupant.token_ids[:cached])
        self._chooser.release(occupant.slot)
        self._grammars.release(occupant.slot)
        self._slots.vacate(occupant)
