"""Continuous batching that never waits for a token before it starts the next step.

While a device computes one step of rows that only decode, the next is launched: its
input is on the device already. What was made is read one step later. A row that
turns out to have ended meanwhile has been computed once too often, which nobody
sees; ends that can be counted are known before.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch

from headrace_worker.engine.base.interface import EngineFacts, Sequence, StepOutput
from headrace_worker.engine.base.model_runner import Forward, Ints, StepRows
from headrace_worker.engine.core.slot_engine import SlotEngine
from headrace_worker.engine.core.slots import Occupant
from headrace_worker.engine.gpu.decode_graphs import DecodeGraphs, Flight
from headrace_worker.engine.gpu.device_sampling import Kind, Parameters
from headrace_worker.engine.grammar.compiler import Compile
from headrace_worker.engine.lora.adapters import Adapters
from headrace_worker.engine.sampling.noise import seed_key
from headrace_worker.engine.sampling.sampler import Choice

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A step that has not been read: its rows, and who was in them."""

    slots: Ints
    occupants: list[Occupant | None]
    flight: Flight


class AheadEngine(SlotEngine):
    """A `SlotEngine` whose plain decode steps run one ahead of what has been read.

    Steps with prefills, and those in which a sequence has an adapter or wants what
    only the host can do (penalties, bias, grammars, log probabilities), are run and
    read at once, behind what is under way.
    """

    def __init__(
        self,
        forward: Forward,
        facts: EngineFacts,
        *,
        graphs: DecodeGraphs,
        adapters: Adapters | None = None,
        prefill_chunk_tokens: int = 2048,
        compile_grammar: Compile | None = None,
    ) -> None:
        super().__init__(
            forward,
            facts,
            adapters=adapters,
            prefill_chunk_tokens=prefill_chunk_tokens,
            compile_grammar=compile_grammar,
        )
        self._graphs = graphs
        self._pending: _Pending | None = None
        self._careful = False
        """A launch failed: the next step is run by hand, to find the culprit."""
        self._kinds = np.zeros(facts.max_slots, dtype=np.int64)
        self._most_outputs = np.zeros(facts.max_slots, dtype=np.int64)

    def admit(self, sequence: Sequence) -> None:
        super().admit(sequence)
        slot = self._slots.occupants[sequence.sequence_id].slot
        room = self._facts.context_tokens - len(sequence.prompt_ids)
        self._most_outputs[slot] = min(sequence.parameters.max_tokens, room)
        self._kinds[slot] = kind_of(sequence)
        self._graphs.set_parameters(np.array([slot]), drawn(sequence))

    def step(self) -> StepOutput:
        was_careful = self._careful
        output = super().step()
        if was_careful:
            self._careful = False
        return output

    def _growing(self) -> Ints:
        slots = self._slots.decoding
        return slots[self._slots.output_indices[slots] < self._most_outputs[slots]]

    def _advance(self, rows: StepRows, columns: StepOutput) -> None:
        previous, self._pending = self._pending, None
        if self._runs_ahead(rows):
            self._launch(rows.decoding, previous)
        elif previous is None:
            super()._advance(rows, columns)
        # Else what is under way is read first, and alone: no sequence gets two tokens at once.
        if previous is not None:
            self._collect(previous, columns)

    def _runs_ahead(self, rows: StepRows) -> bool:
        is_plain = self._chooser.is_plain and self._grammars.idle and self._adapters.idle
        return is_plain and not rows.prefills and len(rows.decoding) > 0 and not self._careful

    def _launch(self, slots: Ints, previous: _Pending | None) -> None:
        occupants = [self._slots.by_slot[slot] for slot in slots]
        try:
            self._tell_latest(slots, previous)
            flight = self._graphs.launch(
                slots,
                self._slots.lengths[slots],
                self._slots.output_indices[slots],
                Kind(int(self._kinds[slots].max())),
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the others
            log.warning("engine.launch_failed", extra={"rows": len(slots), "error": repr(error)})
            self._careful = True
            return
        self._slots.lengths[slots] += 1
        self._slots.output_indices[slots] += 1
        self._pending = _Pending(slots, occupants, flight)

    def _tell_latest(self, slots: Ints, previous: _Pending | None) -> None:
        """The device knows the latest tokens of those it has just fed, and of no others."""
        fed = [] if previous is None else self._still_there(previous)
        others = np.setdiff1d(slots, np.array(fed, dtype=np.int64))
        if len(others):
            self._graphs.set_latest(others, self._slots.latest[others])

    def _collect(self, pending: _Pending, columns: StepOutput) -> None:
        tokens, sound = pending.flight.read()
        there = set(self._still_there(pending))
        kept = [row for row, slot in enumerate(pending.slots.tolist()) if slot in there]
        slots = [int(pending.slots[row]) for row in kept]
        choice = Choice([tokens[row] for row in kept], [sound[row] for row in kept])
        self._slots.latest[slots] = choice.token_ids
        self._record(slots, choice, columns)

    def _still_there(self, pending: _Pending) -> list[int]:
        """Slots whose sequence is the one that the step was about."""
        pairs = zip(pending.slots.tolist(), pending.occupants, strict=True)
        return [slot for slot, occupant in pairs if self._slots.by_slot[slot] is occupant]


def kind_of(sequence: Sequence) -> Kind:
    parameters = sequence.parameters
    if parameters.temperature == 0:
        return Kind.GREEDY
    return Kind.CUT if parameters.top_k > 0 or parameters.top_p < 1 else Kind.OPEN


def drawn(sequence: Sequence) -> Parameters:
    """How a sequence is drawn, in columns of one row."""
    parameters = sequence.parameters
    key = np.array([seed_key(sequence.seed)], dtype=np.uint64).view(np.int64)
    return Parameters(
        temperature=torch.tensor([parameters.temperature], dtype=torch.float32),
        top_k=torch.tensor([parameters.top_k]),
        top_p=torch.tensor([parameters.top_p], dtype=torch.float64),
        min_p=torch.tensor([parameters.min_p], dtype=torch.float32),
        seed_keys=torch.from_numpy(key),
    )
