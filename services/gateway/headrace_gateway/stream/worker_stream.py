"""One worker's delivery stream without its transport: messages in, messages out.

A slot is bound from its opening until its ending is acknowledged or the slot is cancelled; the
worker is sent exactly one of the two for each binding. Tokens of a slot that the worker does not
yet know to be cancelled have no binding, and are counted as stale.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from headrace.errors import EngineFailed, RequestCancelled
from headrace.internal.v1.delivery_pb2 import (
    CachedPrompt,
    DeliverRequest,
    DeliverResponse,
    Ending,
    Opening,
    PromptLogprobs,
)
from headrace.rpc.status import from_status
from headrace.v1.common_pb2 import FinishReason
from headrace_gateway.base import metrics
from headrace_gateway.request.logprob_columns import UnequalColumns, by_row, read_run
from headrace_gateway.stream.open_request import OpenRequest, SlotBinding
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.stream.output_log import SenderFault, Verdict

log = logging.getLogger(__name__)

_FAILURES = (FinishReason.FINISH_REASON_ERROR, FinishReason.FINISH_REASON_CANCELLED)


OnFault = Callable[[SlotBinding, str, EngineFailed], None]
"""Fences the attempt of a binding, for this worker and this error."""


class Budgets(Protocol):
    """`OutputBudgets`, as it is used here."""

    def ask(self, open_request: OpenRequest) -> None: ...

    def stop(self, binding: SlotBinding, worker_id: str) -> None: ...


class WorkerStream:
    def __init__(
        self, worker_id: str, requests: OpenRequests, on_fault: OnFault, budgets: Budgets
    ) -> None:
        self.worker_id, self._budgets = worker_id, budgets
        self._news = asyncio.Event()
        self._requests = requests
        self._on_fault = on_fault
        self._bindings: dict[int, SlotBinding] = {}
        self._response = DeliverResponse()
        self._finished = False

    @property
    def bound_slots(self) -> int:
        return len(self._bindings)

    def take(self, message: DeliverRequest) -> bool:
        """Apply one message; return whether any token or vector in it was new.

        Raises:
            UnequalColumns: the columns differ in length. All that follows may be malformed, too.
        """
        for opening in message.openings:
            self._open(opening)
        for piece in message.prompt_logprobs:
            self._take_prompt(piece)
        for cached in message.cached_prompts:
            self._take_cached(cached)
        is_new = bool(message.slots) and self._take_tokens(message)
        for ending in message.endings:
            is_new = self._end(ending) or is_new
        return is_new

    def cancel(self, slot: int) -> None:
        self._bindings.pop(slot, None)
        self._response.cancelled_slots.append(slot)
        self._news.set()

    async def response(self) -> DeliverResponse | None:
        """Wait for a response to the worker and return it; None after `finish`."""
        if not self._finished:
            await self._news.wait()
        self._news.clear()
        response, self._response = self._response, DeliverResponse()
        return response if response.ByteSize() else None

    def finish(self) -> None:
        """The worker sends no more; `response` returns what is left, then None."""
        self._finished = True
        self._news.set()

    def unbind_all(self) -> list[SlotBinding]:
        """Unbind every slot of a broken stream; return the bindings."""
        bindings = list(self._bindings.values())
        self._bindings.clear()
        for binding in bindings:
            binding.open_request.unbind(binding)
        return bindings

    def _open(self, opening: Opening) -> None:
        if (old := self._bindings.pop(opening.slot, None)) is not None:
            old.open_request.unbind(old)
        open_request = self._requests.find(opening.request_id)
        if open_request is None:
            self.cancel(opening.slot)
            return
        binding = SlotBinding(self, opening.slot, open_request, opening.choice, opening.attempt)
        self._bindings[opening.slot] = binding
        try:
            if not open_request.bind(binding):
                self.cancel(opening.slot)
        except SenderFault as fault:
            self._fault(binding, fault)

    def _take_prompt(self, piece: PromptLogprobs) -> None:
        binding, run = self._bindings.get(piece.slot), read_run(piece.logprobs)
        if binding is None:
            return
        try:
            binding.open_request.output.take_prompt(
                binding.choice, binding.attempt, piece.first_index, run
            )
        except SenderFault as fault:
            self._fault(binding, fault)

    def _take_cached(self, cached: CachedPrompt) -> None:
        if (binding := self._bindings.get(cached.slot)) is not None:
            binding.open_request.output.take_cached(binding.choice, binding.attempt, cached.tokens)

    def _take_tokens(self, message: DeliverRequest) -> bool:
        slots, indices, token_ids = message.slots, message.indices, message.token_ids
        if not len(slots) == len(indices) == len(token_ids):
            raise UnequalColumns(
                f"columns of {len(slots)} slots, {len(indices)} indices, {len(token_ids)} tokens"
            )
        columns = zip(slots, indices, token_ids, by_row(message), strict=True)
        bindings, taken, is_new, late = self._bindings, Verdict.TAKEN, False, 0
        for slot, index, token_id, logprobs in columns:
            binding = bindings.get(slot)
            if binding is None:
                late += 1
                continue
            open_request = binding.open_request
            try:
                verdict = open_request.output.take(
                    binding.choice, binding.attempt, index, token_id, logprobs
                )
            except SenderFault as fault:
                self._fault(binding, fault)
                continue
            if verdict is taken:
                is_new = True
                open_request.wake()
                if open_request.output.is_low:
                    self._budgets.ask(open_request)
            else:
                self._count_verdict(binding, verdict)
        if late:
            metrics.stale_tokens_total.inc(late)
        return is_new

    def _count_verdict(self, binding: SlotBinding, verdict: Verdict) -> None:
        match verdict:
            case Verdict.REPEATED:
                metrics.repeated_tokens_total.inc()
            case Verdict.MISMATCHED:
                metrics.replay_mismatch_total.inc()
            case Verdict.BEYOND_BUDGET:
                self._budgets.stop(binding, self.worker_id)
            case Verdict.STALE:
                metrics.stale_tokens_total.inc()
                binding.open_request.unbind(binding)
                self.cancel(binding.slot)

    def _end(self, ending: Ending) -> bool:
        """End a choice; return whether it brought a new vector."""
        binding = self._bindings.get(ending.slot)
        if binding is None:
            return False
        if ending.finish_reason in _FAILURES:
            self._end_in_failure(binding, ending)
            return False
        open_request = binding.open_request
        reason, output_tokens = ending.finish_reason, ending.output_tokens
        try:
            verdict = open_request.output.end(
                binding.choice, binding.attempt, reason, output_tokens, ending.vector
            )
        except SenderFault as fault:
            self._fault(binding, fault)
            return False
        if verdict is not Verdict.TAKEN:
            self._count_verdict(binding, verdict)
        if verdict is not Verdict.STALE:
            self._acknowledge(binding)
            open_request.wake()
        return verdict is Verdict.TAKEN and bool(ending.vector)

    def _end_in_failure(self, binding: SlotBinding, ending: Ending) -> None:
        if not binding.open_request.output.accepts(binding.attempt):
            self._count_verdict(binding, Verdict.STALE)
            return
        self._acknowledge(binding)
        if ending.HasField("error"):
            binding.open_request.fail(from_status(ending.error))
        elif ending.finish_reason == FinishReason.FINISH_REASON_CANCELLED:
            binding.open_request.fail(RequestCancelled("the request was cancelled"))
        else:
            binding.open_request.fail(EngineFailed("the engine failed without an error message"))

    def _acknowledge(self, binding: SlotBinding) -> None:
        del self._bindings[binding.slot]
        binding.open_request.unbind(binding)
        self._response.acknowledged_slots.append(binding.slot)
        self._news.set()

    def _fault(self, binding: SlotBinding, fault: SenderFault) -> None:
        log.error(
            "delivery.sender_fault",
            extra={
                "worker_id": self.worker_id,
                "request_id": binding.open_request.request_id,
                "attempt": binding.attempt,
                "fault": str(fault),
            },
        )
        metrics.sender_faults_total.inc()
        self._on_fault(binding, self.worker_id, EngineFailed(f"worker {self.worker_id}: {fault}"))
        if self._bindings.get(binding.slot) is binding:  # an opening that was never bound
            binding.open_request.unbind(binding)
            self.cancel(binding.slot)
