"""Calls of the users of a broker, and whether it allows them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headrace.bus import BusUnavailable, NoReply, NoResponders, subjects
from headrace.bus.jetstream import JetStreamBus
from headrace.supervisor.servers.nats_permissions import BrokerUser

PASSWORDS = {user: f"{user}-password" for user in BrokerUser}
MODEL = "pebble"
NOT_ALLOWED_S = 0.5
"""The broker does not answer what it does not allow."""
Connect = Callable[[BrokerUser], Awaitable[JetStreamBus]]


async def refused(call: Awaitable[object]) -> bool:
    """Return whether the broker leaves a call without an answer."""
    try:
        async with asyncio.timeout(NOT_ALLOWED_S):
            await call
    except NoResponders:
        return False
    except (TimeoutError, BusUnavailable, NoReply):
        return True
    return False


async def synced(bus: JetStreamBus) -> None:
    """Return once the broker has everything that was sent on this connection."""
    await bus.jetstream.find_stream_name_by_subject(subjects.lane(MODEL, "bulk"))
