"""Who may write, read and empty the stream of usage records."""

from __future__ import annotations

import asyncio

from headrace.bus import subjects
from headrace.bus.stores import USAGE_STREAM
from headrace.bus.usage import KEEPER
from headrace.supervisor.servers.nats_permissions import BrokerUser
from helpers.broker_users import Connect, refused, synced


async def test_leaders_publish_usage_which_the_keeper_and_control_read(connected: Connect) -> None:
    scheduler, control = await connected(BrokerUser.SCHEDULER), await connected(BrokerUser.CONTROL)
    gateway, worker = await connected(BrokerUser.GATEWAY), await connected(BrokerUser.WORKER)
    assert (await scheduler.request_sources()).current.startswith("requests:")
    await scheduler.publish_usage(b"records")
    for reader in (scheduler, control):
        (found,) = await reader.usage_after(None, max_messages=9, timeout_s=5)
    await scheduler.put_usage_position(KEEPER, found.position)
    assert (await gateway.usage_state()).messages == 1
    for other in (worker, control):
        assert await refused(other.publish_usage(b"forged"))
    for other in (gateway, worker, control):
        assert await refused(other.put_usage_position(KEEPER, found.position))
    for other in (gateway, worker):
        assert await refused(other.usage_after(None, max_messages=9, timeout_s=0.3))
        assert await refused(other.jetstream.purge_stream(USAGE_STREAM))
    await control.purge_usage(found.position)
    assert (await control.usage_state()).messages == 0


async def test_headers_of_a_publisher_are_not_taken_for_those_of_the_broker(
    connected: Connect,
) -> None:
    gateway, control = await connected(BrokerUser.GATEWAY), await connected(BrokerUser.CONTROL)
    assert await control.usage_after(None, max_messages=9, timeout_s=0) == []
    reading = asyncio.create_task(control.usage_after(None, max_messages=9, timeout_s=20))
    await synced(control)
    forged = {"Nats-Sequence": "1000", "Nats-Time-Stamp": "2000-01-01T00:00:00Z"}
    await gateway.jetstream.publish(subjects.USAGE, b"records", headers=forged)
    (found,) = await reading
    assert (found.position.sequence, found.payload) == (1, b"records")
    await gateway.jetstream.publish(subjects.USAGE, b"more", headers=forged)
    (more,) = await control.usage_after(found.position, max_messages=9, timeout_s=20)
    assert (more.position.sequence, more.payload) == (2, b"more")
