"""Answers go to whoever asked, and to no subject that the asker may not publish."""

from __future__ import annotations

import asyncio

import pytest

from headrace.bus import subjects
from headrace.supervisor.servers.nats_permissions import BrokerUser, permissions
from helpers.broker_users import MODEL, Connect, synced

ROW = "$KV.headrace_keys.forged"


@pytest.mark.parametrize("user", [BrokerUser.GATEWAY, BrokerUser.SCHEDULER, BrokerUser.WORKER])
async def test_no_role_answers_itself_at_a_subject_that_it_may_not_publish(
    connected: Connect, user: BrokerUser
) -> None:
    """Watches the row's subject: its last value is the broker's own answer, which means nothing."""
    operator, other = await connected(BrokerUser.OPERATOR), await connected(user)
    writes = await operator.client.subscribe(ROW)
    await operator.client.flush()
    allowed, client = permissions(user), other.client
    mine = [
        await client.subscribe(subject)
        for subject in allowed.publish
        if not subject.startswith("$")
    ]
    for subscription in mine:
        await client.publish(subscription.subject.replace("*", "forged"), b"", reply=ROW)
    await client.flush()
    for subscription in mine:
        while subscription.pending_msgs:
            await subscription.next_msg()
            await client.publish(ROW, b"forged")
    await client.flush()
    await operator.client.flush()
    while writes.pending_msgs:
        assert (await writes.next_msg()).data != b"forged"


async def test_what_the_broker_publishes_once_it_is_stored_can_be_answered_nowhere(
    connected: Connect,
) -> None:
    scheduler = await connected(BrokerUser.SCHEDULER)
    stored = await scheduler.client.subscribe(subjects.USAGE_STORED)
    await scheduler.client.publish(subjects.USAGE, b"records", reply=ROW)
    message = await stored.next_msg(timeout=5)
    assert (message.data, message.reply) == (b"records", "")


@pytest.mark.parametrize(
    ("server", "subject", "asker"),
    [
        (BrokerUser.SCHEDULER, subjects.QUOTA, BrokerUser.GATEWAY),
        (BrokerUser.CONTROL, subjects.OWN_USAGE, BrokerUser.GATEWAY),
        (BrokerUser.SCHEDULER, subjects.park(MODEL), BrokerUser.WORKER),
    ],
)
async def test_no_answer_is_sent_to_where_its_receiver_may_not_publish(
    connected: Connect, server: BrokerUser, subject: str, asker: BrokerUser
) -> None:
    serving, control = await connected(server), await connected(BrokerUser.CONTROL)
    answered = asyncio.Event()

    async def answer(payload: bytes) -> bytes:
        answered.set()
        return payload

    await serving.serve(subject, answer)
    await synced(serving)
    client = (await connected(asker)).client
    await client.publish(subject, b"forged", reply=ROW)
    async with asyncio.timeout(5):
        await answered.wait()
    await synced(serving)
    assert await control.rows(subjects.KEYS_TABLE) == {}


async def test_gateways_receive_results_once_they_are_stored(connected: Connect) -> None:
    gateway, scheduler = await connected(BrokerUser.GATEWAY), await connected(BrokerUser.SCHEDULER)
    received: asyncio.Queue[bytes] = asyncio.Queue()
    await gateway.subscribe(subjects.ended("acme.1/r"), received.put_nowait)
    await synced(gateway)
    await scheduler.put_result("acme.1/r", b"result")
    async with asyncio.timeout(5):
        assert await received.get() == b"result"
