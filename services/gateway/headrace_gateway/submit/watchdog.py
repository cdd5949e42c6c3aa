"""Fails requests that neither scheduler nor worker has ended at their deadline."""

from __future__ import annotations

import asyncio
import logging

from headrace.clock import Clock
from headrace.errors import DeadlineExceeded
from headrace_gateway.base import metrics
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.stream.open_requests import OpenRequests

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25


async def watch_deadlines(requests: OpenRequests, clock: Clock, settings: GatewaySettings) -> None:
    """Fail requests `deadline_slack_s` after their deadline. Runs until cancelled."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        metrics.open_requests.set(len(requests))
        latest_s = clock.monotonic_s() - settings.deadline_slack_s
        for open_request in requests:
            if open_request.deadline_s >= latest_s or open_request.output.ended:
                continue
            metrics.overdue_total.labels(open_request.record.model).inc()
            log.warning("request.overdue", extra={"request_id": open_request.request_id})
            open_request.fail(DeadlineExceeded("the request passed its deadline without an answer"))
