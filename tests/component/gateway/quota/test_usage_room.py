"""A gateway refuses what would not be billed, by the state of a real stream."""

from __future__ import annotations

import asyncio

import pytest

from headrace.bus.jetstream import JetStreamBus
from headrace.errors import QuotaUnavailable
from headrace_gateway.quota.usage_room import UsageRoom
from helpers.eventually import eventually


async def test_keys_are_refused_while_the_stream_is_nearly_full_and_no_others(
    bus: JetStreamBus,
) -> None:
    config = (await bus.jetstream.stream_info("USAGE")).config
    config.max_bytes = 4096
    await bus.jetstream.update_stream(config)
    await bus.publish_usage(b"x" * 3000)
    room = UsageRoom(bus)
    room.check("key_1")
    running = asyncio.create_task(room.run())

    def is_refused() -> bool:
        try:
            room.check("", "key_1")
        except QuotaUnavailable as error:
            return error.retry_after_s is not None
        return False

    await eventually(is_refused)
    room.check()
    room.check("", "")
    (found,) = await bus.usage_after(None, max_messages=9, timeout_s=0.0)
    await bus.put_usage_position("keeper", found.position)
    await bus.purge_usage(found.position)
    await eventually(lambda: not is_refused())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
