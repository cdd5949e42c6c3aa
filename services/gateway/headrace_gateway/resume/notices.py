"""Notices of a leader to this gateway, and the answers to them.

A notice names requests that ended without a worker, attempts to be fenced, and background requests
that this gateway is to continue:

    leader -> g   ended: req_1 (DEADLINE_EXCEEDED); fences: req_2 at attempt 5, req_3 at attempt 9;
                  req_4 at attempt 2 with its record
    g             fails req_1; fences req_2: tokens of attempts up to 5 are not accepted any more;
                  opens req_4 from its record and reads it in the background
    g -> leader   points: req_2 with its output ids, req_4 likewise; unknown: req_3

req_3 is not open at g, so the leader orphans or drops it. Points that do not fit the message
are left out, though fenced; the leader repeats what was not answered.
"""

from __future__ import annotations

import logging

from headrace.bus import BusError, Results
from headrace.bus.outbox import portions
from headrace.errors import GatewayUnreachable, HeadraceError, RequestExists
from headrace.internal.v1.reports_pb2 import (
    FenceNotice,
    NoticeRequest,
    NoticeResponse,
    ResultRecord,
    ResumePoint,
)
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace.rpc.status import from_status
from headrace_gateway.queue.settlements import Settlements
from headrace_gateway.quota.reservations import Quotas
from headrace_gateway.resume.takeovers import Takeovers
from headrace_gateway.stream.open_request import OpenRequest
from headrace_gateway.stream.open_requests import OpenRequests

log = logging.getLogger(__name__)

_ELSEWHERE = (GatewayUnreachable, RequestExists)
"""Errors that end a request here because another gateway holds it."""


class Notices:
    def __init__(
        self,
        requests: OpenRequests,
        settlements: Settlements,
        takeovers: Takeovers,
        results: Results,
        *,
        quotas: Quotas,
    ) -> None:
        self._requests, self._quotas = requests, quotas
        self._settlements, self._results = settlements, results
        self._takeovers = takeovers

    async def answer(self, payload: bytes) -> bytes:
        """NoticeRequest -> NoticeResponse.

        Of more fences than fit one answer the rest is left out, though fenced; the leader
        repeats what it has no answer for.
        """
        notice = NoticeRequest.FromString(payload)
        unknown: list[str] = []
        for ended in notice.ended:
            if (open_request := self._requests.find(ended.request_id)) is not None:
                self._end(open_request, from_status(ended.error))
            else:
                self._note_unknown(ended.request_id, unknown)
        points: list[ResumePoint] = []
        for fence in notice.fences:
            if (open_request := await self._held(fence)) is not None:
                open_request.fence(fence.attempt)
                points.append(open_request.resume_point())
            else:
                self._note_unknown(fence.request_id, unknown)
        fitting = next(portions(points, ResumePoint.ByteSize), [])
        response = NoticeResponse(points=fitting, unknown_request_ids=unknown)
        return response.SerializeToString()

    def _end(self, open_request: OpenRequest, error: HeadraceError) -> None:
        if isinstance(error, _ELSEWHERE):
            # Its readers are notified; the other gateway settles it and stores its result.
            self._requests.remove(open_request)
            open_request.release(error)
            if isinstance(error, RequestExists):
                # Its leader runs the other message of this id, which has a reservation of its own.
                self._quotas.release(open_request.record)
        else:
            open_request.fail(error)

    async def _held(self, fence: FenceNotice) -> OpenRequest | None:
        """Return the open request, taken over if need be; None: another gateway is needed."""
        held = self._requests.find(fence.request_id)
        if held is not None or not fence.HasField("record"):
            return held
        try:
            if await self._has_ended(fence.record):
                return None
            return self._requests.find(fence.request_id) or self._takeovers.take(fence.record)
        except (BusError, HeadraceError) as refusal:
            facts = {"request_id": fence.request_id, "why": str(refusal)}
            log.warning("request.not_taken_over", extra=facts)
            return None

    async def _has_ended(self, record: RequestRecord) -> bool:
        """Settle a request whose gateway died after it had stored the result."""
        if self._settlements.find(record.request_id) is not None:
            return True
        stored = await self._results.get_result(record.request_id)
        if stored is None:
            return False
        result = ResultRecord.FromString(stored)
        # Why arrivals: the name may have been another request's before.
        if result.request.arrival != record.arrival:
            return False
        self._settlements.settle_kept(record, result.outcome)
        return True

    def _note_unknown(self, request_id: str, unknown: list[str]) -> None:
        # What is being settled is known: its settlement is on its way.
        is_ours = self._settlements.find(request_id) or self._requests.has_released(request_id)
        if not is_ours:
            unknown.append(request_id)
