"""Answers go to whoever asked, and to no subject that the asker may not publish."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.msg import Msg

from headrace.bus import subjects
from headrace.supervisor.servers.nats_permissions import BrokerUser, permissions
from helpers.broker_users import MODEL, NOT_ALLOWED_S, Connect, synced


@pytest.mark.parametrize("user", [BrokerUser.GATEWAY, BrokerUser.SCHEDULER, BrokerUser.WORKER])
async def test_no_role_answers_itself_at_a_subject_that_it_may_not_publish(
    connected: Connect, user: BrokerUser
) -> None:
    control, other = await connected(BrokerUser.CONTROL), await connected(user)
    client, row = other.jetstream._nc, "$KV.headrace_keys.forged"

    async def answer(message: Msg) -> None:
        await client.publish(message.reply or row, b"forged")

    allowed = permissions(user)
    for subject in filter(lambda each: not each.startswith("$"), allowed.publish):
        await client.subscribe(subject, cb=answer)
        await client.publish(subject.replace("*", "forged"), b"", reply=row)
    await synced(other)
    await asyncio.sleep(NOT_ALLOWED_S)
    # The broker's own answer, that it has stored a message, is no row that can be read.
    assert b"forged" not in (await control.rows(subjects.KEYS_TABLE)).values()


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
    client = (await connected(asker)).jetstream._nc
    await client.publish(subject, b"forged", reply="$KV.headrace_keys.forged")
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
