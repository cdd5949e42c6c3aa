"""Stops a gateway: refuses new requests, lets open ones finish, ends the rest with an error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sized

from headrace.errors import GatewayDraining
from headrace_gateway.stream.open_requests import OpenRequests
from headrace_gateway.wiring import Mesh

log = logging.getLogger(__name__)

BACKGROUND_HANDOVER_S = 2.0
"""Time for other gateways to take over background requests."""
ERROR_EVENT_S = 2.0
"""Time for the APIs to send the error event of a request that was ended early."""
_POLL_INTERVAL_S = 0.02


async def shut_down(mesh: Mesh) -> None:
    """Return when no request is open and all are settled, or when the times have run out."""
    settings, requests, unsettled = mesh.settings, mesh.requests, mesh.settlements
    log.info("gateway.draining", extra={"open": len(requests)})
    await asyncio.sleep(settings.lame_duck_s)
    # This also reports the drain to the leaders, which then move background requests.
    await mesh.drain()
    if await _wait_until(lambda: not _has_foreground(requests), within_s=settings.drain_s):
        # Why no longer: without another gateway, background requests wait for the next to start.
        await _empty(requests, within_s=BACKGROUND_HANDOVER_S)
    if len(requests):
        log.warning("gateway.cut", extra={"open": len(requests)})
        for open_request in requests:
            error = GatewayDraining("this gateway had to stop before the end", retry_after_s=1)
            if open_request.record.attachable:
                # Its caller can resume it at another gateway, as after a crash of this one.
                requests.release(open_request)
                open_request.release(error)
            else:
                open_request.fail(error)
        await _empty(requests, within_s=ERROR_EVENT_S)
    if not await _empty(unsettled, within_s=settings.settle_s):
        log.warning("gateway.unsettled", extra={"unsettled": len(unsettled)})


def _has_foreground(requests: OpenRequests) -> bool:
    """Return whether a request is open that does not run in the background."""
    return any(not open_request.record.detached for open_request in requests)


async def _empty(held: Sized, *, within_s: float) -> bool:
    return await _wait_until(lambda: not len(held), within_s=within_s)


async def _wait_until(holds: Callable[[], bool], *, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            while not holds():
                await asyncio.sleep(_POLL_INTERVAL_S)
    except TimeoutError:
        return False
    return True
