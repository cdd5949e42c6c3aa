"""Fails requests that neither scheduler nor worker has ended at their deadline."""

from __future__ import annotations

import asyncio
import logging

from headrace.clock import Clock
from headrace.errors import DeadlineExceeded
from headrace_gateway.base import metrics
from headrace_gateway.stream.open_requests import OpenRequests

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25


async def watch_deadlines(requests: OpenRequests, clock: Clock, *, slack_s: float) -> None:
    """Fail requests `slack_s` after their deadline. Runs until cancelled."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        metrics.open_requests.set(len(requests))
        for open_request in requests.overdue(clock.monotonic_s(), slack_s=slack_s):
            metrics.overdue_total.labels(open_request.admitted.model).inc()
            log.warning("request.overdue", extra={"request_id": open_request.request_id})
            open_request.fail(DeadlineExceeded("the request passed its deadline without an answer"))
