"""How a gateway stops: nothing new, what is open goes on for a while, everybody gets an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sized

from headrace.errors import GatewayDraining
from headrace_gateway.base.settings import GatewaySettings
from headrace_gateway.stream.open_requests import OpenRequests

log = logging.getLogger(__name__)

BACKGROUND_HANDOVER_S = 2.0
"""For detached requests to go to other gateways."""
ERROR_EVENT_S = 2.0
"""For doors to write the error event of a request that was cut short."""
_LOOK_EVERY_S = 0.02


async def shut_down(
    requests: OpenRequests,
    unsettled: Sized,
    refuse_all: Callable[[], Awaitable[None]],
    settings: GatewaySettings,
) -> None:
    """Returns when nothing is held, or when the times have run out.

    `refuse_all` also says so to leaders, who then give detached requests to other gateways.
    """
    log.info("gateway.draining", extra={"open": len(requests)})
    await asyncio.sleep(settings.lame_duck_s)
    await refuse_all()
    if await _wait_until(lambda: not _has_foreground(requests), within_s=settings.drain_s):
        # Without another gateway the rest waits for the next one; that is no reason to stay.
        await _empty(requests, within_s=BACKGROUND_HANDOVER_S)
    if len(requests):
        log.warning("gateway.cut", extra={"open": len(requests)})
        for open_request in requests:
            error = GatewayDraining("this gateway had to stop before the end", retry_after_s=1)
            if open_request.admitted.record.attachable:
                # It is had from another gateway, as after our death.
                requests.release(open_request)
                open_request.release(error)
            else:
                open_request.fail(error)
        await _empty(requests, within_s=ERROR_EVENT_S)
    if not await _empty(unsettled, within_s=settings.settle_s):
        log.warning("gateway.unsettled", extra={"unsettled": len(unsettled)})


def _has_foreground(requests: OpenRequests) -> bool:
    """Whether there is anything that ends with its readers, or with us."""
    return any(not open_request.admitted.record.detached for open_request in requests)


async def _empty(held: Sized, *, within_s: float) -> bool:
    return await _wait_until(lambda: not len(held), within_s=within_s)


async def _wait_until(holds: Callable[[], bool], *, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            while not holds():
                await asyncio.sleep(_LOOK_EVERY_S)
    except TimeoutError:
        return False
    return True
