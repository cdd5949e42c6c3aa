"""The running batch of one engine in this process: what a scheduler and a worker do in a mesh.

open_all([request])  ─►  waiting  ─slot is free─►  the engine's thread  ─steps─►  LocalOutput
                            ▲                               │
                            └───── parked: cache is full ───┘
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from headrace.errors import (
    DeadlineExceeded,
    EngineFailed,
    FailedPrecondition,
    HeadraceError,
    InvalidStructure,
    RequestCancelled,
)
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.logprobs import Logprobs
from headrace.v1 import common_pb2
from headrace.v1.common_pb2 import FinishReason
from headrace_gateway.request.generation import Generation, Tokens, ValidRequest
from headrace_gateway.request.payer import Payer, TokenRange
from headrace_gateway.request.record import request_record
from headrace_local.loading import NEVER_S
from headrace_local.local_output import LocalOutput
from headrace_worker.engine.base import interface
from headrace_worker.engine.base.interface import Engine, StepOutput
from headrace_worker.runtime.pump import Pump
from headrace_worker.runtime.records import masks_of, prompts_of, sequence_of

_REASONS = {
    interface.FinishReason.STOP: FinishReason.FINISH_REASON_STOP,
    interface.FinishReason.LENGTH: FinishReason.FINISH_REASON_LENGTH,
}


@dataclass(slots=True, eq=False)
class _Choice:
    """One choice of a request that has not ended."""

    output: LocalOutput
    index: int
    output_ids: list[int] = field(default_factory=list)
    prompt_logprobs: Logprobs | None = None
    """Those computed so far; they go with the first output token."""
    cached_prompt: int | None = None
    """Prompt tokens that were cached when it first ran."""

    @property
    def record(self) -> RequestRecord:
        return self.output.record


class RunningBatch:
    """An `Admission` that runs requests on the engine of this process, oldest first.

    Make it, and call it, on one event loop; the engine runs on a thread of its own.
    """

    def __init__(self, model: str, engine: Engine) -> None:
        """`model`: its name, for errors."""
        self._model = model
        self._slots = engine.facts.max_slots
        self._waiting: deque[_Choice] = deque()
        self._running: dict[int, _Choice] = {}
        """By sequence id."""
        self._ids = count()
        self._timers: dict[LocalOutput, asyncio.TimerHandle] = {}
        """Of requests that have a timeout and have not been settled."""
        self._refusal: HeadraceError | None = None
        """Why nothing runs any more."""
        self._pump = Pump(
            engine, on_step=self._on_step, on_refused=self._on_refused, on_death=self._on_death
        )
        self._pump.start()

    # The gateway's `Admission`

    def check(
        self,
        model: str,
        priority: common_pb2.Priority.ValueType,
        *,
        payer: Payer,
        tokens: TokenRange,
        patience_s: float,
    ) -> None:
        if self._refusal is not None:
            raise self._refusal

    def most_at_once(self, payer: Payer) -> int | None:
        return None

    async def open(self, request: ValidRequest) -> Generation:
        (generation,) = await self.open_all([request])
        return generation

    async def open_all(self, requests: Sequence[ValidRequest]) -> list[Generation]:
        if self._refusal is not None:
            raise self._refusal
        opened: list[Generation] = []
        for request in requests:
            output = LocalOutput(request_record(request, time.time()), self._cancel)
            self._waiting.extend(_Choice(output, index) for index in range(request.n))
            self._expire_in(output, request)
            opened.append(output)
        self._admit()
        return opened

    def close(self) -> None:
        """Fail what runs, refuse what comes, and let the engine's thread end."""
        if self._refusal is None:
            fact = f"model {self._model} was closed: load it again"
            self._end(FailedPrecondition(fact), RequestCancelled(fact))
        self._pump.end()

    def join(self) -> None:
        """Wait for the end of the engine's thread, which finishes its step; blocks."""
        self._pump.join()

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._running and not self._waiting

    def _expire_in(self, output: LocalOutput, request: ValidRequest) -> None:
        if request.timeout_s < NEVER_S:
            fact = f"request {request.request_id} ran out of time, of which it had"
            late = DeadlineExceeded(f"{fact} {request.timeout_s:g} s")
            self._timers[output] = asyncio.get_running_loop().call_later(
                request.timeout_s, self._fail, output, late
            )

    # To the engine

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            choice, sequence_id = self._waiting.popleft(), next(self._ids)
            self._running[sequence_id] = choice
            self._pump.admit(
                sequence_of(
                    choice.record,
                    prompts_of(choice.record)[choice.index],
                    choice.index,
                    choice.output_ids,
                    sequence_id=sequence_id,
                )
            )

    def _cancel(self, output: LocalOutput, index: int | None = None) -> None:
        """Stop one choice of an output, or all; those that have ended are fine."""

        def is_meant(choice: _Choice) -> bool:
            return choice.output is output and index in (None, choice.index)

        for sequence_id in [i for i, choice in self._running.items() if is_meant(choice)]:
            del self._running[sequence_id]
            self._pump.cancel(sequence_id)
        self._waiting = deque(choice for choice in self._waiting if not is_meant(choice))
        if index is None and (timer := self._timers.pop(output, None)) is not None:
            timer.cancel()
        self._admit()

    # From the engine

    def _on_step(self, step: StepOutput) -> None:
        self._record_prompts(step)
        self._record_tokens(step)
        for sequence_id, reason in step.finished:
            if (choice := self._running.pop(sequence_id, None)) is not None:
                vector = step.vectors.get(sequence_id, b"")
                choice.output.end(choice.index, _REASONS[reason], vector)
        for sequence_id, fact in step.failed:
            self._on_refused(sequence_id, fact)
        for sequence_id, fact in step.refused:
            self._on_invalid(sequence_id, fact)
        for sequence_id in step.parked:
            self._on_parked(sequence_id)
        # Why not for parked ones: they wait until another has ended and left its cache.
        if step.finished or step.failed or step.refused:
            self._admit()

    def _record_prompts(self, step: StepOutput) -> None:
        for sequence_id, cached in step.cached_prompts.items():
            choice = self._running.get(sequence_id)
            if choice is not None and choice.cached_prompt is None:
                choice.cached_prompt = cached
        for sequence_id, run in step.prompt_logprobs.items():
            if (choice := self._running.get(sequence_id)) is None:
                continue
            if choice.prompt_logprobs is None:
                choice.prompt_logprobs = Logprobs()
            choice.prompt_logprobs.extend(run)

    def _record_tokens(self, step: StepOutput) -> None:
        for sequence_id, token_id in zip(step.sequence_ids, step.token_ids, strict=True):
            if (choice := self._running.get(sequence_id)) is None:
                continue  # cancelled while the step ran
            index = len(choice.output_ids)
            choice.output_ids.append(token_id)
            choice.output.add(
                Tokens(
                    choice.index,
                    index,
                    [token_id],
                    step.logprobs.get(sequence_id),
                    None if index else choice.prompt_logprobs,
                    None if index else choice.cached_prompt,
                )
            )

    def _on_parked(self, sequence_id: int) -> None:
        if (choice := self._running.pop(sequence_id, None)) is None:
            return
        if not choice.output_ids:
            choice.prompt_logprobs = None  # they are computed again
        self._waiting.appendleft(choice)

    def _on_refused(self, sequence_id: int, fact: str) -> None:
        if (choice := self._running.get(sequence_id)) is not None:
            request_id = choice.record.request_id
            failure = EngineFailed(f"the engine failed at {request_id}: {fact}")
            self._fail(choice.output, failure)

    def _on_invalid(self, sequence_id: int, fact: str) -> None:
        """End a request whose constraints no engine could meet."""
        if (choice := self._running.get(sequence_id)) is not None:
            sampling = choice.record.sampling
            name = sampling.grammar.field or next(iter(masks_of(sampling)), "parameters")
            self._fail(choice.output, InvalidStructure(f"{name}: {fact}", field=name))

    def _fail(self, output: LocalOutput, error: HeadraceError) -> None:
        output.fail(error)
        self._cancel(output)

    def _on_death(self, error: BaseException) -> None:
        death = EngineFailed(f"the engine of model {self._model} has ended: {error!r}")
        self._end(death, death)

    def _end(self, refusal: HeadraceError, ending: HeadraceError) -> None:
        """Refuse everything from now on, and end with `ending` what runs."""
        self._refusal = refusal
        running = [*self._running.values(), *self._waiting]
        self._running.clear()
        self._waiting.clear()
        for choice in running:
            choice.output.fail(ending)
