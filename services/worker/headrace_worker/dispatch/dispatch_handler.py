"""Serves dispatches, cancellations and parks from schedulers."""

from __future__ import annotations

import logging

from headrace.errors import DeadlineExceeded, HeadraceError, RequestCancelled
from headrace.internal.v1.dispatch_pb2 import (
    DispatchRefusal,
    DispatchRefusalCause,
    DispatchRequest,
    DispatchResponse,
    WorkerCancelRequest,
    WorkerCancelResponse,
    WorkerParkRequest,
    WorkerParkResponse,
)
from headrace.internal.v1.model_card_pb2 import ModelCard
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_worker.dispatch.step_watchdog import StepWatchdog
from headrace_worker.runtime.metrics import REFUSED
from headrace_worker.runtime.records import unfinished
from headrace_worker.runtime.worker import Worker

log = logging.getLogger(__name__)

_DEADLINE_EXCEEDED = 4
Refusal = tuple[DispatchRefusalCause.ValueType, str]


class DispatchHandler:
    """Answers at once; never waits for the engine."""

    def __init__(self, worker: Worker, card: ModelCard, watchdog: StepWatchdog) -> None:
        self._worker, self._card, self._watchdog = worker, card, watchdog
        self.draining = False
        self.epoch = 0
        """Newest leadership that has dispatched here."""
        self.number = 0
        """Last dispatch of that leadership that was answered."""

    async def dispatch(self, payload: bytes) -> bytes:
        """Answer a DispatchRequest; what is not refused will run."""
        request = DispatchRequest.FromString(payload)
        response = DispatchResponse()
        if request.epoch < self.epoch:
            cause = DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_STALE_LEADER
            stale = cause, f"epoch {request.epoch} is older than {self.epoch}"
            for record in request.requests:
                self._refuse(response, record.request_id, stale)
            return response.SerializeToString()
        all_left_s = request.seconds_left or [None] * len(request.requests)
        for record, left_s in zip(request.requests, all_left_s, strict=True):
            if refusal := self._refusal(record):
                self._refuse(response, record.request_id, refusal)
            elif not self._has(record):
                self._worker.accept(record, left_s=left_s)
        # Why max: a repeated dispatch that comes late must not hide that later ones were counted.
        answered = request.epoch, request.number
        self.epoch, self.number = max(answered, (self.epoch, self.number))
        return response.SerializeToString()

    def _has(self, record: RequestRecord) -> bool:
        """Return whether this attempt, or a newer one that overtook it, is here already."""
        here = self._worker.assignments.attempt_of(record.request_id)
        return here is not None and here >= record.attempt

    def _refusal(self, record: RequestRecord) -> Refusal | None:
        assignments, card = self._worker.assignments, self._card
        if self._has(record):
            return None
        if self.draining:
            return DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_DRAINING, "this worker is draining"
        if (record.model, record.weights_digest) != (card.model, card.weights_digest):
            return (
                DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_WRONG_MODEL,
                f"this worker serves {card.model} with weights {card.weights_digest}, "
                f"not {record.model} with weights {record.weights_digest}",
            )
        if record.adapter_digest not in ("", *(each.digest for each in card.adapters)):
            return (
                DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_WRONG_MODEL,
                f"this worker has no adapter {record.adapter} with digest {record.adapter_digest}",
            )
        if why_not_runnable := assignments.why_not_runnable(record):
            return DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_INVALID, why_not_runnable
        if why_not_resumable := assignments.why_not_resumable(record):
            return DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_NOT_RESUMABLE, why_not_resumable
        if refusing := self._watchdog.unavailable_reason:
            return DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_FULL, refusing
        needed, free = len(unfinished(record)), assignments.slots_for(record)
        if needed > free:
            return (
                DispatchRefusalCause.DISPATCH_REFUSAL_CAUSE_FULL,
                f"{needed} slots needed, {free} free",
            )
        return None

    def _refuse(self, response: DispatchResponse, request_id: str, refusal: Refusal) -> None:
        cause, message = refusal
        name = DispatchRefusalCause.Name(cause).removeprefix("DISPATCH_REFUSAL_CAUSE_").lower()
        REFUSED.labels(self._card.model, name).inc()
        log.warning("dispatch.refused", extra={"request_id": request_id, "why": message})
        response.refusals.append(
            DispatchRefusal(request_id=request_id, cause=cause, message=message)
        )

    async def cancel(self, payload: bytes) -> bytes:
        """Answer a WorkerCancelRequest."""
        request = WorkerCancelRequest.FromString(payload)
        error: HeadraceError = (
            DeadlineExceeded(f"request {request.request_id} ran out of time")
            if request.code == _DEADLINE_EXCEEDED
            else RequestCancelled(f"request {request.request_id} was cancelled")
        )
        found = self._worker.cancel(request.request_id, request.attempt, error)
        return WorkerCancelResponse(found=found).SerializeToString()

    async def park(self, payload: bytes) -> bytes:
        """Answer a WorkerParkRequest; the resume point is sent to the leader separately."""
        request = WorkerParkRequest.FromString(payload)
        is_stale = request.epoch < self.epoch
        park = self._worker.park_orphaned if request.orphaned else self._worker.park_preempted
        found = not is_stale and park(request.request_id, request.attempt)
        return WorkerParkResponse(found=found).SerializeToString()
