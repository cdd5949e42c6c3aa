"""The engine of models that make vectors: each step is a pass over inputs of similar length."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from headrace_worker.engine.base import interface
from headrace_worker.engine.base.interface import (
    EngineFacts,
    EngineStatistics,
    FinishReason,
    NoFreeSlot,
    SequenceRefused,
    StepOutput,
)
from headrace_worker.engine.core.counters import EngineCounters
from headrace_worker.engine.encoder.batching import BatchMode, choose_batch, validate_input

log = logging.getLogger(__name__)


class ModelRunner(Protocol):
    def run(self, rows: Sequence[interface.Sequence]) -> Tensor:
        """Vectors `(rows, dimensions)` in float32; any exception is some row's fault."""
        ...


class EncoderEngine:
    """An engine whose sequences are inputs, each one step to a vector.

    Results vary with the batch in the last bits of float32, as padding and the size of a product
    do; `EngineFacts.batch_invariant` says so.
    """

    def __init__(
        self,
        forward: ModelRunner,
        facts: EngineFacts,
        *,
        batch_tokens: int,
        batch_mode: BatchMode = BatchMode.PADDED,
    ) -> None:
        """`batch_tokens` bounds a step, padding included, unless one input alone is longer."""
        self._forward, self.facts = forward, facts
        self._batch_tokens, self._batch_mode = batch_tokens, batch_mode
        self._held: dict[int, interface.Sequence] = {}
        """By sequence id, oldest first."""
        self._counters = EngineCounters()

    @property
    def has_work(self) -> bool:
        return bool(self._held)

    def admit(self, sequence: interface.Sequence) -> None:
        facts = self.facts
        if sequence.sequence_id in self._held:
            raise SequenceRefused(f"sequence {sequence.sequence_id} is already held")
        validate_input(sequence, facts)
        if len(self._held) >= facts.max_slots:
            raise NoFreeSlot(f"all {facts.max_slots} slots are taken")
        self._held[sequence.sequence_id] = sequence

    def step(self) -> StepOutput:
        output = StepOutput()
        if self._held:
            began_s = time.perf_counter()
            lengths = {number: len(one.prompt_ids) for number, one in self._held.items()}
            chosen = choose_batch(
                lengths, batch_tokens=self._batch_tokens, batch_mode=self._batch_mode
            )
            with torch.inference_mode():
                self._compute([self._held[number] for number in chosen], output)
            self._counters.steps += 1
            self._counters.busy_s += time.perf_counter() - began_s
        return output

    def park(self, sequence_id: int) -> tuple[int, ...]:
        del self._held[sequence_id]
        return ()

    def cancel(self, sequence_id: int) -> None:
        self._held.pop(sequence_id, None)

    def statistics(self) -> EngineStatistics:
        facts = self.facts
        return self._counters.statistics(
            running=len(self._held),
            free_slots=facts.max_slots - len(self._held),
            # There is no cache; what is held waits for its pass.
            cache_tokens_used=sum(len(one.prompt_ids) for one in self._held.values()),
            cache_tokens_total=facts.max_slots * facts.context_tokens,
        )

    def check_integrity(self) -> None:
        assert len(self._held) <= self.facts.max_slots
        assert all(number == one.sequence_id for number, one in self._held.items())

    def _compute(self, rows: list[interface.Sequence], output: StepOutput) -> None:
        """Compute the rows; if that fails, bisect until the failing row is alone."""
        try:
            vectors = self._forward.run(rows)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the others
            if len(rows) == 1:
                self._fail(rows[0], f"{type(error).__name__}: {error}", output)
                return
            log.warning("engine.pass_failed", extra={"rows": len(rows), "error": repr(error)})
            half = len(rows) // 2
            self._compute(rows[:half], output)
            self._compute(rows[half:], output)
            return
        finite = vectors.isfinite().all(dim=1).tolist()
        values = vectors.cpu().numpy().astype(np.dtype("<f4"), copy=False)
        for row, vector, is_finite in zip(rows, values, finite, strict=True):
            if not is_finite:
                self._fail(row, "its vector is not finite", output)
                continue
            del self._held[row.sequence_id]
            self._counters.prompt_tokens += len(row.prompt_ids)
            output.vectors[row.sequence_id] = vector.tobytes()
            output.finished.append((row.sequence_id, FinishReason.STOP))

    def _fail(self, row: interface.Sequence, fact: str, output: StepOutput) -> None:
        del self._held[row.sequence_id]
        output.failed.append((row.sequence_id, fact))
