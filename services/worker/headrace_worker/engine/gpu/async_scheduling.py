"""Async scheduling: decode steps are launched before the previous step has been read.

While the device computes a step of decode rows, the next one is launched: its input is on the
device already. Results are read one step later. A row that turns out to have ended has been
computed once too often, and is discarded; ends by length are known before.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from headrace_worker.engine.base.interface import EngineFacts, Sequence, StepOutput
from headrace_worker.engine.base.model_runner import Ints, ModelRunner, StepBatch
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.core.slots import ActiveSequence
from headrace_worker.engine.gpu.decode_graphs import DecodeGraphs, InFlightStep
from headrace_worker.engine.gpu.device_sampling import SamplingKind, sampling_kind
from headrace_worker.engine.grammar.compiler import CompileFunction
from headrace_worker.engine.lora.adapters import Adapters
from headrace_worker.engine.sampling.sampler import SampledTokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A step that has not been read: its rows and their sequences."""

    slots: Ints
    sequences: list[ActiveSequence]
    step: InFlightStep


class AsyncSlotEngine(SlotEngine):
    """A `SlotEngine` whose plain decode steps run one ahead of what has been read.

    Steps with prefills, and steps in which a sequence has an adapter or needs the host (penalties,
    bias, grammars, logprobs), run and are read at once, behind the pending step.
    """

    def __init__(
        self,
        runner: ModelRunner,
        facts: EngineFacts,
        adapters: Adapters,
        *,
        graphs: DecodeGraphs,
        prefill_chunk_tokens: int,
        compile_grammar: CompileFunction | None,
    ) -> None:
        super().__init__(
            runner,
            facts,
            adapters,
            prefill_chunk_tokens=prefill_chunk_tokens,
            compile_grammar=compile_grammar,
        )
        self._graphs = graphs
        self._pending: _Pending | None = None
        self._run_synchronously = False
        """A launch failed: the next step runs synchronously, to find the row at fault."""
        self._kinds = np.zeros(facts.max_slots, dtype=np.int64)
        self._max_outputs = np.zeros(facts.max_slots, dtype=np.int64)

    def admit(self, sequence: Sequence) -> None:
        super().admit(sequence)
        slot = self._slots.sequences[sequence.sequence_id].slot
        room = self.facts.context_tokens - len(sequence.prompt_ids)
        self._max_outputs[slot] = min(sequence.parameters.max_tokens, room)
        self._kinds[slot] = sampling_kind(sequence.parameters)
        self._graphs.sampling.set(slot, sequence.parameters, sequence.seed)

    def step(self) -> StepOutput:
        ran_synchronously = self._run_synchronously
        output = super().step()
        if ran_synchronously:
            self._run_synchronously = False
        return output

    def _decoding_slots(self) -> Ints:
        slots = self._slots.decoding
        return slots[self._slots.output_indices[slots] < self._max_outputs[slots]]

    def _run_batch(self, rows: StepBatch, output: StepOutput) -> None:
        previous, self._pending = self._pending, None
        if self._can_launch(rows):
            self._launch(rows.decoding, previous)
        elif previous is None:
            super()._run_batch(rows, output)
        # Else what is under way is read first, and alone: no sequence gets two tokens at once.
        if previous is not None:
            self._read_step(previous, output)

    def _can_launch(self, rows: StepBatch) -> bool:
        return (
            self._sampler.only_samples
            and self._grammars.is_empty
            and self.adapters.is_empty
            and not rows.prefills
            and len(rows.decoding) > 0
            and not self._run_synchronously
        )

    def _launch(self, slots: Ints, previous: _Pending | None) -> None:
        sequences = [self._slots.by_slot[slot] for slot in slots]
        try:
            self._upload_last_tokens(slots, previous)
            step = self._graphs.launch(
                slots,
                self._slots.lengths[slots],
                self._slots.output_indices[slots],
                SamplingKind(int(self._kinds[slots].max())),
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the others
            log.warning("engine.launch_failed", extra={"rows": len(slots), "error": repr(error)})
            self._run_synchronously = True
            return
        self._slots.lengths[slots] += 1
        self._slots.output_indices[slots] += 1
        self._pending = _Pending(slots, sequences, step)

    def _upload_last_tokens(self, slots: Ints, previous: _Pending | None) -> None:
        """Upload the last tokens of slots that the pending step did not feed; the device has the
        others."""
        fed = [] if previous is None else self._live_slots(previous)
        others = np.setdiff1d(slots, np.array(fed, dtype=np.int64))
        if len(others):
            self._graphs.set_last_tokens(others, self._slots.last_tokens[others])

    def _read_step(self, pending: _Pending, output: StepOutput) -> None:
        tokens, finite = pending.step.read()
        live_slots = set(self._live_slots(pending))
        live = [row for row, slot in enumerate(pending.slots.tolist()) if slot in live_slots]
        slots = [int(pending.slots[row]) for row in live]
        choice = SampledTokens([tokens[row] for row in live], [finite[row] for row in live])
        self._slots.last_tokens[slots] = choice.token_ids
        self._append_tokens(slots, choice, output)

    def _live_slots(self, pending: _Pending) -> list[int]:
        """Return the slots that still have the step's sequence."""
        pairs = zip(pending.slots.tolist(), pending.sequences, strict=True)
        return [slot for slot, active in pairs if self._slots.by_slot.get(slot) is active]
