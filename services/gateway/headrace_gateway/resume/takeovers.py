"""Requests of dead gateways, continued by this gateway.

The leader assigns a request to this gateway; it runs again once the leader has the resume point:

    leader -> h   the record of req_7: attempt 5, held_since_attempt 6, output ids 11 12 13
    h             opens req_7 with these ids, fenced up to attempt 5: late tokens of older workers
                  are stale, and index 3 is the next to be accepted
    h -> leader   LocateRequest(req_7, TAKE_OVER, point: attempt 5, output ids 11 12 13)
    leader        puts req_7 back into its lane; attempt 6 delivers its tokens to h
    h -> leader   reports req_7 as taken over since attempt 6, for leaders to come

If the leader does not confirm, h drops the request without settling it: the leader still has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from headrace.bus import Bus, BusError, subjects
from headrace.clock import Clock
from headrace.errors import GatewayUnreachable, HeadraceError, RequestExists
from headrace.internal.v1.reports_pb2 import (
    GatewayReport,
    LocateRequest,
    LocateResponse,
    TakenOver,
)
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_gateway.base import metrics
from headrace_gateway.queue.admission import GatewayAddress, LaneAdmission
from headrace_gateway.queue.lanes import DEFAULT_RETRY_S
from headrace_gateway.quota.reservations import Quotas
from headrace_gateway.request.generation import Generation
from headrace_gateway.stream.open_request import OpenRequest
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.stream.output_budgets import OutputBudgets
from headrace_gateway.stream.stored_record import wants_logprobs

log = logging.getLogger(__name__)

ANSWER_S = 1.0


class Takeovers:
    """Opens requests that a leader assigns to this gateway."""

    def __init__(
        self,
        address: GatewayAddress,
        bus: Bus,
        clock: Clock,
        requests: OpenRequests,
        admission: LaneAdmission,
        *,
        quotas: Quotas,
        budgets: OutputBudgets,
        read_in_background: Callable[[OpenRequest], None],
    ) -> None:
        self._address = address
        self._bus, self._clock = bus, clock
        self._requests, self._admission = requests, admission
        self._quotas, self._budgets = quotas, budgets
        self._read_in_background = read_in_background

    def report(self) -> GatewayReport:
        """Return this gateway's report, with the requests that it has taken over."""
        records = (open_request.record for open_request in self._requests)
        taken_over = [
            TakenOver(
                request_id=record.request_id,
                held_since_attempt=record.held_since_attempt,
                delivery_address=self._address.delivery_address,
            )
            for record in records
            if record.held_since_attempt
        ]
        return GatewayReport(
            taken_over=taken_over,
            draining=self._admission.draining,
            delivery_address=self._address.delivery_address,
        )

    async def open(self, record: RequestRecord) -> Generation:
        """Open the request here, and have its leader continue it.

        Raises:
            GatewayUnreachable: the leader does not confirm that this gateway continues it.
            CapacityError: this gateway admits nothing more.
        """
        self._admission.require_room()
        open_request = self._open_request(record)
        try:
            self._requests.add(open_request)
        except RequestExists:
            # Two clients have requested it at once.
            if (found := self._requests.find(record.request_id)) is None:
                raise
            return found.reader()
        reader = open_request.reader()
        if record.detached:
            # Before the leader confirms: this reader may leave meanwhile.
            self._read_in_background(open_request)
        try:
            await self._confirm(record.model, open_request)
        except HeadraceError as error:
            # Not settled: the leader still has the request.
            self._requests.remove(open_request)
            open_request.release(error)
            raise
        except BaseException:
            await reader.abandon()
            raise
        _count(record)
        return reader

    def take(self, record: RequestRecord) -> OpenRequest:
        """Open a background request that its leader assigns to this gateway.

        Raises:
            HeadraceError: this gateway admits nothing more, or does not know the model.
        """
        self._admission.require_room()
        open_request = self._open_request(record)
        self._read_in_background(open_request)
        self._requests.add(open_request)
        _count(record)
        return open_request

    def _open_request(self, record: RequestRecord) -> OpenRequest:
        left_s = record.deadline.ToNanoseconds() / 1e9 - self._clock.unix_s()
        deadline_s = self._clock.monotonic_s() + left_s
        open_request = OpenRequest(record, deadline_s, self._clock, self._admission.close)
        # Why: logprobs are not stored with the tokens, which are made again, equal.
        progress = () if wants_logprobs(record) else record.progress
        open_request.output.resume(record.attempt, progress)
        self._quotas.confirm(record)
        self._budgets.begin(open_request)
        return open_request

    async def _confirm(self, model: str, open_request: OpenRequest) -> None:
        message = LocateRequest(
            request_id=open_request.request_id,
            verb=LocateRequest.VERB_TAKE_OVER,
            gateway_id=self._address.gateway_id,
            delivery_address=self._address.delivery_address,
            point=open_request.resume_point(),
        )
        try:
            answer = await self._bus.request(
                subjects.locate(model), message.SerializeToString(), timeout_s=ANSWER_S
            )
        except BusError:
            fact = f"no scheduler answered for request {open_request.request_id}"
            raise GatewayUnreachable(fact, retry_after_s=DEFAULT_RETRY_S) from None
        if LocateResponse.FromString(answer).record.gateway_id != self._address.gateway_id:
            fact = f"request {open_request.request_id} went to another gateway"
            raise GatewayUnreachable(fact, retry_after_s=DEFAULT_RETRY_S)


def _count(record: RequestRecord) -> None:
    metrics.taken_over_total.labels(record.model).inc()
    log.info("request.taken_over", extra={"request_id": record.request_id})
