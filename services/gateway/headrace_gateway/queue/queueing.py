"""Reports to waiting requests their place in the queue, and keeps their streams alive."""

from __future__ import annotations

import asyncio

from headrace.auth.scopes import DEFAULT_TENANT
from headrace.clock import Clock
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.queue.lanes import LaneView
from headrace_gateway.request.generation import Queued
from headrace_gateway.stream.open_request import OpenRequest
from headrace_gateway.stream.open_requests import OpenRequests

LOOK_EVERY_S = 0.25
"""As often as leaders report."""
NEWS_EVERY_S = 1.0
"""Of one request, at most."""
QUOTA_NEWS_EVERY_S = 10.0
"""Of one request that waits for quota."""
WAITS_FOR_QUOTA = Queued(waits_for_quota=True)


async def report_queued(
    requests: OpenRequests, lanes: LaneView, clock: Clock, settings: GatewaySettings
) -> None:
    """Report to requests that have waited for `queue_told_after_s`, and then at least every
    `stream_keepalive_s`. Runs until cancelled."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        now_s = clock.monotonic_s()
        for open_request in requests:
            if not open_request.is_waiting:
                continue
            if queued := news(open_request, lanes, now_s, settings):
                open_request.report_queued(queued)


def news(
    open_request: OpenRequest, lanes: LaneView, now_s: float, settings: GatewaySettings
) -> Queued | None:
    """Return the place to report to a waiting request, if a report is due."""
    silent_s = now_s - open_request.reported_s
    if open_request.waits_for_quota:
        is_known = open_request.queued == WAITS_FOR_QUOTA and silent_s < QUOTA_NEWS_EVERY_S
        return None if is_known else WAITS_FOR_QUOTA
    is_first = open_request.queued == Queued()
    if silent_s < (settings.queue_told_after_s if is_first else NEWS_EVERY_S):
        return None
    record = open_request.record
    queued = lanes.place(
        record.model,
        record.priority,
        tenant=record.tenant or DEFAULT_TENANT,
        sequence=open_request.sequence,
        now_s=now_s,
    )
    has_changed = queued.ahead is not None and queued != open_request.queued
    return queued if has_changed or silent_s >= settings.stream_keepalive_s else None
