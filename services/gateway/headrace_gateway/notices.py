"""What a leader tells this gateway: requests that ended without a worker, workers that are gone."""

from __future__ import annotations

from headrace.errors import HeadraceError, RequestExists
from headrace.internal.v1.reports_pb2 import NoticeRequest, NoticeResponse, ResumePoint
from headrace.rpc.status import from_status
from headrace_gateway.losses import payloads
from headrace_gateway.open_requests import OpenRequests
from headrace_gateway.outlet import Outlet
from headrace_gateway.settling import Settling


class Notices:
    def __init__(self, requests: OpenRequests, settling: Settling) -> None:
        self._requests = requests
        self._settling = settling

    async def answer(self, payload: bytes) -> bytes:
        """NoticeRequest -> NoticeResponse.

        Of more fences than fit one answer the rest is left out, though fenced; the leader
        repeats what it has no answer for.
        """
        notice = NoticeRequest.FromString(payload)
        unknown: list[str] = []
        for ended in notice.ended:
            if (outlet := self._requests.find(ended.request_id)) is not None:
                self._end(outlet, from_status(ended.error))
            else:
                self._note_unknown(ended.request_id, unknown)
        points: list[ResumePoint] = []
        for fence in notice.fences:
            if (outlet := self._requests.find(fence.request_id)) is not None:
                outlet.fence(fence.attempt)
                points.append(outlet.resume_point())
            else:
                self._note_unknown(fence.request_id, unknown)
        response = NoticeResponse(points=next(payloads(points), []), unknown_request_ids=unknown)
        return response.SerializeToString()

    def _end(self, outlet: Outlet, error: HeadraceError) -> None:
        if isinstance(error, RequestExists):
            # Its readers are told; to settle it, and to keep its result, is the other's.
            self._requests.remove(outlet)
            outlet.let_go(error)
        else:
            outlet.fail(error)

    def _note_unknown(self, request_id: str, unknown: list[str]) -> None:
        # What is being settled is known: its settlement is on its way.
        is_ours = self._settling.find(request_id) or self._requests.has_released(request_id)
        if not is_ours:
            unknown.append(request_id)
