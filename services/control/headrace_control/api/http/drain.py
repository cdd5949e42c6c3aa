"""Reads what is left of a body that is refused.

A client of HTTP/1.1 reads no answer before it has sent its body, and finds a broken connection
where the other side closes it until then: an error that names no reason, and that it retries.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from google.api.httpbody_pb2 import HttpBody

DRAIN_S = 60.0
DRAINED_BYTES = 256 << 20


async def drain(body: AsyncIterator[HttpBody]) -> None:
    """Take the rest of a body, within the bounds; it is not kept."""
    left = DRAINED_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            async for message in body:
                left -= len(message.data)
                if left <= 0:
                    return
