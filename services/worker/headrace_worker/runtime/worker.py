"""Runs requests: starts their sequences in the engine and sends their output to gateways.

Everything here runs on the event loop; the engine is behind the pump. Each end
of a sequence, whatever its cause, passes through `_end`, which reports it to its
gateway, or through `_forget`, which drops it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import isfinite

from google.rpc import status_pb2

from headrace.clock import Clock
from headrace.credentials.tls_files import TlsFiles
from headrace.errors import (
    DeadlineExceeded,
    EngineFailed,
    HeadraceError,
    InvalidStructure,
    RequestCancelled,
)
from headrace.internal.v1.reports_pb2 import ParkCause, ResumePoint
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.rpc.delivery_secret import DeliverySecret
from headrace.rpc.status import to_status
from headrace.v1.common_pb2 import FinishReason
from headrace_worker.engine.base import interface
from headrace_worker.engine.base.interface import Engine, EngineFacts, StepOutput
from headrace_worker.runtime.assignments import Assignments, HeldSequence
from headrace_worker.runtime.delivery import GatewayLink
from headrace_worker.runtime.metrics import WorkerMetrics
from headrace_worker.runtime.pump import Pump

log = logging.getLogger(__name__)

_REASONS = {
    interface.FinishReason.STOP: FinishReason.FINISH_REASON_STOP,
    interface.FinishReason.LENGTH: FinishReason.FINISH_REASON_LENGTH,
}


class Worker:
    """The requests of one engine.

    Args:
        group: every task of the worker lives in it.
        on_release: called when a slot has become free.
        on_park: called with each resume point, which is to be sent to the scheduler.
    """

    def __init__(
        self,
        worker_id: str,
        engine: Engine,
        *,
        clock: Clock,
        metrics: WorkerMetrics,
        group: asyncio.TaskGroup,
        orphan_grace_s: float,
        delivery_secret: DeliverySecret,
        tls: TlsFiles | None,
        on_release: Callable[[], None],
        on_park: Callable[[ResumePoint], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self.worker_id = worker_id
        self.facts: EngineFacts = engine.facts
        self.assignments = Assignments(engine.facts)
        self.metrics, self._clock, self._group = metrics, clock, group
        self._orphan_grace_s, self._secret, self._tls = orphan_grace_s, delivery_secret, tls
        self._on_release, self._on_park = on_release, on_park
        self._links: dict[str, tuple[GatewayLink, asyncio.Task[None]]] = {}
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self.pump = Pump(
            engine, on_step=self._on_step_output, on_refused=self._fail, on_death=on_death
        )

    # In

    def accept(self, record: RequestRecord, *, left_s: float | None = None) -> None:
        """Run a request that fits and has room; drop an older attempt of it.

        Args:
            left_s: time until its deadline; None if only the record has it.
        """
        for stale in self.assignments.of_request(record.request_id):
            self._forget(stale)
        now_s = self._clock.monotonic_s()
        sequences = self.assignments.accept(record, now_s=now_s)
        self.metrics.accepted(record)
        link = self._link(record.gateway_id, record.delivery_address)
        for held in self.assignments.of_request(record.request_id):
            link.open(held)
        for sequence in sequences:
            self.pump.admit(sequence)
        if left_s is None and record.HasField("deadline"):
            left_s = record.deadline.ToNanoseconds() / 1e9 - self._clock.unix_s()
        if left_s is not None and isfinite(left_s):
            self._expire_in(left_s, record)

    def _expire_in(self, left_s: float, record: RequestRecord) -> None:
        error = DeadlineExceeded(f"request {record.request_id} ran out of time while it ran")
        handle = asyncio.get_running_loop().call_later(
            max(0.0, left_s), self.cancel, record.request_id, record.attempt, error
        )
        self._deadlines[record.request_id] = handle

    def cancel(self, request_id: str, attempt: int, error: HeadraceError) -> bool:
        """End a request with an error, which its gateway gets; False if it does not run here."""
        held = [
            h
            for h in self.assignments.of_request(request_id)
            if h.attempt <= attempt and h.finish_reason is None
        ]
        for sequence in held:
            self.pump.cancel(sequence.sequence_id)
            self._end(sequence, _ending_reason(error), to_status(error))
        return bool(held)

    def fail_all(self, fact: str) -> None:
        """Stop all unfinished requests as failed: the engine cannot continue them."""
        for held in [h for h in self.assignments if h.finish_reason is None]:
            self._fail(held.sequence_id, fact)

    def park_orphaned(self, request_id: str, attempt: int) -> bool:
        """Park a request whose gateway is gone, ended and unacknowledged choices included.

        Returns:
            False if it is not held here.
        """
        held = [h for h in self.assignments.of_request(request_id) if h.attempt <= attempt]
        if held:
            self._park(request_id, ParkCause.PARK_CAUSE_ORPHANED)
        return bool(held)

    def park_all(self, cause: ParkCause.ValueType) -> None:
        """Park all unfinished requests."""
        for request_id, _ in self.assignments.running():
            self._park(request_id, cause)

    def park_preempted(self, request_id: str, attempt: int) -> bool:
        """Park an attempt for a more urgent request; return False if it does not run here."""
        here = self.assignments.attempt_of(request_id)
        if here != attempt or not self.assignments.running_of(request_id):
            return False
        self._park(request_id, ParkCause.PARK_CAUSE_PREEMPTED)
        return True

    def _park(self, request_id: str, cause: ParkCause.ValueType) -> None:
        point = self._withdraw(request_id, cause)
        self.metrics.parked.inc()
        log.info("request.parked", extra={"request_id": request_id, "attempt": point.attempt})

    def _withdraw(
        self, request_id: str, cause: ParkCause.ValueType, error: status_pb2.Status | None = None
    ) -> ResumePoint:
        """Drop a request and send the point from which another worker resumes it."""
        # Why not Engine.park: what has been delivered to the loop is the output; a token that
        # the engine has made since is made again, equal, by the next attempt.
        point = self.assignments.resume_point(request_id, cause, error)
        for held in self.assignments.of_request(request_id):
            self._forget(held)
        self._on_park(point)
        return point

    # Through

    def _on_step_output(self, output: StepOutput) -> None:
        now_s = self._clock.monotonic_s()
        self._record_logprobs(output)
        for sequence_id, tokens in output.cached_prompts.items():
            held = self.assignments.running_sequence(sequence_id)
            if held is not None and held.cached_prompt is None:
                self._links[held.gateway_id][0].cached(held, tokens)
        for gateway_id, news in self._record_tokens(output, now_s).items():
            self._links[gateway_id][0].tokens(news)
        for sequence_id, reason in output.finished:
            if (held := self.assignments.running_sequence(sequence_id)) is not None:
                held.vector = output.vectors.get(sequence_id, b"")
                self.metrics.ended(held, reason.value, now_s)
                self._end(held, _REASONS[reason])
        for sequence_id, message in output.failed:
            self._fail(sequence_id, message)
        for sequence_id, message in output.refused:
            self._refuse(sequence_id, message)
        for sequence_id in output.parked:
            self._on_engine_parked(sequence_id)

    def _record_logprobs(self, output: StepOutput) -> None:
        """Record log probabilities; the output tokens that they belong to are recorded next."""
        for sequence_id, run in output.prompt_logprobs.items():
            held = self.assignments.running_sequence(sequence_id)
            if held is not None and held.prompt_logprobs is not None:
                self._links[held.gateway_id][0].prompt(held, run)
                held.prompt_logprobs.extend(run)
        for sequence_id, run in output.logprobs.items():
            held = self.assignments.running_sequence(sequence_id)
            if held is not None and held.logprobs is not None:
                held.logprobs.extend(run)

    def _record_tokens(
        self, output: StepOutput, now_s: float
    ) -> dict[str, list[tuple[HeldSequence, int]]]:
        """Record the tokens; return them by gateway. This loop alone runs per token."""
        news: dict[str, list[tuple[HeldSequence, int]]] = {}
        waited: dict[float, int] = {}
        running = self.assignments.running_sequence
        for sequence_id, token_id in zip(output.sequence_ids, output.token_ids, strict=True):
            if (held := running(sequence_id)) is None:
                continue  # cancelled or parked while the step ran
            held.output_ids.append(token_id)
            if held.last_token_s is None:
                self.metrics.first_token(held, now_s)
            else:
                waited[held.last_token_s] = waited.get(held.last_token_s, 0) + 1
            held.last_token_s = now_s
            news.setdefault(held.gateway_id, []).append((held, token_id))
        self.metrics.step_tokens.observe(len(output.sequence_ids))
        for last_s, tokens in waited.items():
            self.metrics.further_tokens(now_s - last_s, tokens)
        return news

    def _on_engine_parked(self, sequence_id: int) -> None:
        """Handle a sequence that the engine has parked because its cache is full.

        Choices of one request stay together: while another of them runs here, this
        one waits here. Else the scheduler dispatches the request again.
        """
        if (held := self.assignments.running_sequence(sequence_id)) is None:
            return
        # Why: only another attempt can send the log probabilities of the prompt again.
        may_stay = bool(held.output_ids) or held.prompt_logprobs is None
        if may_stay and self.assignments.running_of(held.request_id) > 1:
            self.metrics.parked.inc()
            self.pump.admit(self.assignments.continuation(held))
        else:
            self._park(held.request_id, ParkCause.PARK_CAUSE_PREEMPTED)

    def _fail(self, sequence_id: int, message: str) -> None:
        """Stop a request that the engine cannot continue; the scheduler decides about a retry."""
        if (held := self.assignments.running_sequence(sequence_id)) is None:
            return
        self.metrics.failed.inc()
        error = to_status(EngineFailed(f"the engine failed at {held.request_id}: {message}"))
        self._withdraw(held.request_id, ParkCause.PARK_CAUSE_UNSPECIFIED, error)
        log.error("request.failed", extra={"request_id": held.request_id, "reason": message})

    def _refuse(self, sequence_id: int, fact: str) -> None:
        """End a request whose constraints no engine could meet; it is not retried."""
        if (held := self.assignments.running_sequence(sequence_id)) is None:
            return
        field = self.assignments.binding_field(held.request_id)
        error = InvalidStructure(f"{field}: {fact}", field=field)
        log.info("request.refused", extra={"request_id": held.request_id, "field": field})
        self.cancel(held.request_id, held.attempt, error)

    # Out

    def _end(
        self,
        held: HeldSequence,
        reason: FinishReason.ValueType,
        error: status_pb2.Status | None = None,
    ) -> None:
        self.assignments.end(held, reason, error)
        self._links[held.gateway_id][0].end(held)
        self._report_free_slot(held.request_id)

    def _forget(self, held: HeldSequence) -> None:
        if held.finish_reason is None:
            self.pump.cancel(held.sequence_id)
        self.assignments.forget(held)
        self._links[held.gateway_id][0].drop(held)
        self._report_free_slot(held.request_id)

    def _report_free_slot(self, request_id: str) -> None:
        """Have it reported that a slot is free; a request that has ended has no deadline."""
        running = self.assignments.running_of(request_id)
        if not running and (timer := self._deadlines.pop(request_id, None)):
            timer.cancel()
        self._on_release()

    # Links, whose `SequenceOwner` this worker is

    def _link(self, gateway_id: str, address: str) -> GatewayLink:
        if gateway_id not in self._links:
            link = GatewayLink(
                gateway_id,
                address,
                self.worker_id,
                self,
                grace_s=self._orphan_grace_s,
                secret=self._secret,
                tls=self._tls,
            )
            task = self._group.create_task(link.run(), name=f"link {gateway_id}")
            self._links[gateway_id] = (link, task)
        return self._links[gateway_id][0]

    def of_gateway(self, gateway_id: str) -> list[HeldSequence]:
        return self.assignments.of_gateway(gateway_id)

    def acknowledged(self, held: HeldSequence) -> None:
        self.assignments.forget(held)

    def cancelled(self, held: HeldSequence) -> None:
        self._forget(held)

    def unreachable(self, gateway_id: str) -> None:
        """Park the gateway's requests and remove its link."""
        held = self.assignments.of_gateway(gateway_id)
        running = {h.request_id for h in held if h.finish_reason is None}
        for request_id in running:
            self._park(request_id, ParkCause.PARK_CAUSE_ORPHANED)
        for ended in self.assignments.of_gateway(gateway_id):
            self._forget(ended)
        del self._links[gateway_id]
        self.metrics.orphaned.inc(len(running))
        log.warning("gateway.unreachable", extra={"gateway": gateway_id, "parked": len(running)})

    @property
    def idle(self) -> bool:
        """Whether nothing runs and every end has been acknowledged."""
        return len(self.assignments) == 0

    def check_integrity(self) -> None:
        """Raise AssertionError if a slot, link or timer belongs to no request, or is missing."""
        self.assignments.check_integrity()
        assert {h.gateway_id for h in self.assignments} <= set(self._links)
        running = {h.request_id for h in self.assignments if h.finish_reason is None}
        assert set(self._deadlines) <= running
        for link, _ in self._links.values():
            link.check_integrity()

    def close(self) -> None:
        """End the links. Sequences that are still held are lost with the process."""
        for timer in self._deadlines.values():
            timer.cancel()
        for _, task in self._links.values():
            task.cancel()


def _ending_reason(error: HeadraceError) -> FinishReason.ValueType:
    if isinstance(error, RequestCancelled):
        return FinishReason.FINISH_REASON_CANCELLED
    return FinishReason.FINISH_REASON_ERROR
