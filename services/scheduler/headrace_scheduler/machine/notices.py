"""Notices to gateways: ends without a worker, and fences of lost requests.

A fence asks a gateway to accept nothing more of the attempts up to a number, and to answer how
much output its client has. One notice per gateway is unanswered at a time. For example:

    10.0 s  worker w is lost: a (attempt 7) is lost; b was cancelled and is ending
            SendNotice(g, ended=((b, RequestCancelled),), fences=((a, 7),))
    10.1 s  c (attempt 3) is lost too: it waits, because g has a notice to answer
    10.2 s  g answers points=[a: 12 tokens]: a waits in its lane with 12 tokens of progress, and
            its next attempt is 8. b is ending still: its notice is repeated at 11.2 s
            SendNotice(g, ended=(), fences=((c, 3),))
    10.3 s  g settles b: acknowledged and gone
    12.2 s  no answer within notice_timeout_s: c's fence is repeated at 13.2 s
            SendNotice(g, ended=(), fences=((c, 3),))
    13.3 s  g answers unknown_request_ids=[c]: c is orphaned or abandoned (`machine.orphans`)

A gateway that waits for quota answers so: its request stays lost, which is to run nowhere, and is
asked for again after `QUOTA_NOTICE_S`, or at once when the gateway reports that it was granted.
"""

from __future__ import annotations

from headrace.bus.outbox import portions
from headrace.internal.v1.reports_pb2 import ParkCause, ResumePoint
from headrace.internal.v1.request_pb2 import RequestRecord
from headrace_scheduler.machine.attempts import end_if_exhausted
from headrace_scheduler.machine.gateways import Gateways
from headrace_scheduler.machine.orphans import Orphans
from headrace_scheduler.request.live_request import Ending, Lost, Request, without_prompt
from headrace_scheduler.state.events import (
    CancelOnWorker,
    NoticeAnswered,
    NoticeUnanswered,
    SendNotice,
)
from headrace_scheduler.state.live import LiveRequests

QUOTA_NOTICE_S = 5.0
"""Time between two notices about a request that its gateway holds back for lack of quota. It
reports by itself when there is some; the notice finds those whose report was lost."""
MAX_REQUESTS = 32
"""Requests of one notice: its answer holds the output so far of each of them."""


class Notices:
    """Plans the notices to gateways and applies their answers."""

    def __init__(self, live: LiveRequests, gateways: Gateways, orphans: Orphans) -> None:
        self._live, self._gateways, self._orphans = live, gateways, orphans
        self._unanswered: set[str] = set()

    @property
    def next_due_s(self) -> float:
        if not self._live.has_notices:
            return float("inf")
        free = (g for g in self._gateways.ids if g not in self._unanswered)
        due = (_due_s(r) for g in free for r in self._live.notices_for(g))
        return min(due, default=float("inf"))

    def plan(self, *, now_s: float) -> list[SendNotice]:
        if not self._live.has_notices and not self._gateways.suspects:
            return []
        return [
            notice
            for gateway_id in self._gateways.ids
            if gateway_id not in self._unanswered
            and (notice := self._next_notice(gateway_id, now_s=now_s)) is not None
        ]

    def _next_notice(self, gateway_id: str, *, now_s: float) -> SendNotice | None:
        due = [r for r in self._live.notices_for(gateway_id) if _due_s(r) <= now_s][:MAX_REQUESTS]
        if not due and gateway_id not in self._gateways.suspects:
            return None
        self._unanswered.add(gateway_id)
        ended = [(r.request_id, r.state.error) for r in due if isinstance(r.state, Ending)]
        lost = [(r, r.state) for r in due if isinstance(r.state, Lost)]
        assigned = [without_prompt(r.record) for r, state in lost if state.sends_record]
        records: list[RequestRecord] = next(portions(assigned, RequestRecord.ByteSize), [])
        sent = {record.request_id for record in records}
        fences = [
            (r.request_id, state.attempt)
            for r, state in lost
            if not state.sends_record or r.request_id in sent
        ]
        return SendNotice(gateway_id, tuple(ended), tuple(fences), tuple(records))

    def on_answered(self, event: NoticeAnswered, *, now_s: float) -> None:
        gateway_id = event.notice.gateway_id
        self._unanswered.discard(gateway_id)
        self._gateways.suspects.discard(gateway_id)
        points = {p.request_id: p for p in event.points}
        unknown = set(event.unknown_request_ids)
        repeat_s = now_s + self._live.settings.notice_repeat_s
        for request_id, error in event.notice.ended:
            request = self._live.get(request_id)
            if request is None or request.gateway_id != gateway_id:
                continue  # It has left, or another gateway has taken it over.
            if isinstance(request.state, Ending):
                if request_id in unknown:
                    self._orphans.on_end_unknown(request, error)
                else:
                    request.state.notice_due_s = repeat_s
        for request_id, attempt in event.notice.fences:
            request = self._live.get(request_id)
            if request is None or not _is_lost(request, attempt, gateway_id):
                continue
            if request_id in unknown:
                self._orphans.on_request_unknown(request, now_s=now_s)
            elif request_id in points:
                self.resume(request, points[request_id], now_s=now_s)
            else:
                _postpone(request, repeat_s)

    def on_unanswered(self, event: NoticeUnanswered, *, now_s: float) -> None:
        notice = event.notice
        self._unanswered.discard(notice.gateway_id)
        if notice.gateway_id in self._gateways.suspects:
            self._gateways.suspects.remove(notice.gateway_id)
            if event.is_disconnected:
                # Neither another gateway nor the broker has a connection to it: it is gone.
                self._orphans.gateway_gone(notice.gateway_id, "gateway gone", now_s=now_s)
        repeat_s = now_s + self._live.settings.notice_repeat_s
        for request_id in [i for i, _ in notice.ended] + [i for i, _ in notice.fences]:
            if (request := self._live.get(request_id)) is not None:
                _postpone(request, repeat_s)

    def resume(self, request: Request, point: ResumePoint, *, now_s: float) -> None:
        """Return a lost request to its lane: its gateway has fenced and reported its progress.

        It stays lost where the gateway holds it back, for lack of quota.
        """
        lost = request.state
        assert isinstance(lost, Lost)
        if (worker_id := lost.worker_id) is not None:
            self._live.command(CancelOnWorker(worker_id, request.request_id, lost.attempt))
            lost.worker_id = None
        request.replace_progress(point.progress)
        request.reset_failures_on_progress()
        # Why below: a gateway may name the fence itself as the newest attempt that it knows.
        was_attempted = 0 < point.attempt < lost.attempt
        request.has_started |= was_attempted or request.output_tokens > 0
        if point.HasField("error"):
            request.count_failure(point.error.message)
        if request.is_finished:
            # It will be settled; if that got lost, the next fence finds it unknown.
            lost.notice_due_s = now_s + self._live.settings.settle_grace_s
        elif point.cause == ParkCause.PARK_CAUSE_QUOTA:
            lost.waits_for_quota, lost.notice_due_s = True, now_s + QUOTA_NOTICE_S
        elif not end_if_exhausted(self._live, request, now_s=now_s):
            self._live.wait(request, now_s=now_s)


def _due_s(request: Request) -> float:
    match request.state:
        case Ending(notice_due_s=due_s) | Lost(notice_due_s=due_s):
            return due_s
    return float("inf")


def _is_lost(request: Request, attempt: int, gateway_id: str) -> bool:
    lost = request.state
    return isinstance(lost, Lost) and lost.attempt == attempt and request.gateway_id == gateway_id


def _postpone(request: Request, due_s: float) -> None:
    if isinstance(request.state, Ending | Lost):
        request.state.notice_due_s = due_s
