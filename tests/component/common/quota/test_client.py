"""The client of the quota keeper, over a real broker and a keeper that the test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from headrace.bus import subjects
from headrace.bus.jetstream import JetStreamBus
from headrace.clock import SystemClock
from headrace.errors import QuotaUnavailable
from headrace.internal.v1.quota_pb2 import (
    DescribeQuota,
    LimitState,
    QuotaCall,
    QuotaRefusal,
    QuotaReply,
    QuotaRequest,
    QuotaResponse,
    Reserve,
)
from headrace.quota import QuotaClient
from headrace.quota.client import DEADLINE_S
from helpers.eventually import eventually

KEEPER_MS = 1_000_000
"""Its clock is far behind."""


class ScriptedKeeper:
    """Answers while `answers` is set; refuses reservations of more than 100 tokens."""

    def __init__(self) -> None:
        self.messages: list[list[QuotaCall]] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def start(self, bus: JetStreamBus) -> None:
        await bus.serve(subjects.QUOTA, self._answer)

    async def _answer(self, payload: bytes) -> bytes:
        calls = list(QuotaRequest.FromString(payload).calls)
        self.messages.append(calls)
        await self.answers.wait()
        response = QuotaResponse(replies=map(_reply, calls), time_ms=KEEPER_MS)
        return response.SerializeToString()


def _reply(call: QuotaCall) -> QuotaReply:
    limits = [LimitState(reset_ms=KEEPER_MS + 9000), LimitState(reset_ms=0)]
    if call.reserve.input_tokens > 100:
        tokens = call.reserve.input_tokens
        refusal = QuotaRefusal(requested=tokens, retry_after_ms=KEEPER_MS + 5000)
        return QuotaReply(refusal=refusal, limits=limits)
    return QuotaReply(limits=limits)


@pytest.fixture
async def client(bus: JetStreamBus) -> AsyncIterator[QuotaClient]:
    made = QuotaClient(bus, "gateway-0", SystemClock())
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()


def reserve(name: str, tokens: int = 10) -> Reserve:
    return Reserve(reservation_id=name, tenant="acme", input_tokens=tokens)


async def test_each_call_gets_its_own_reply(bus: JetStreamBus, client: QuotaClient) -> None:
    await ScriptedKeeper().start(bus)
    replies = await asyncio.gather(
        *(client.reserve(reserve(f"r{i}", 95 + i)) for i in range(10)),
        client.describe(DescribeQuota(tenant="acme")),
    )
    refused = [reply.refusal.requested for reply in replies if reply.HasField("refusal")]
    assert refused == [101, 102, 103, 104]


async def test_what_waits_while_a_message_is_under_way_is_the_next_message(
    bus: JetStreamBus, client: QuotaClient
) -> None:
    keeper = ScriptedKeeper()
    keeper.answers.clear()
    await keeper.start(bus)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.reserve(reserve("first")))
        await eventually(lambda: len(keeper.messages) == 1)
        for i in range(1000):
            tasks.create_task(client.reserve(reserve(f"r{i}")))
        await asyncio.sleep(0)
        keeper.answers.set()
    assert [len(calls) for calls in keeper.messages] == [1, 256, 256, 256, 232]


async def test_a_call_is_repeated_with_its_id_until_a_keeper_answers(
    bus: JetStreamBus, client: QuotaClient
) -> None:
    waiting = asyncio.create_task(client.reserve(reserve("r")))
    silent, keeper = ScriptedKeeper(), ScriptedKeeper()
    silent.answers.clear()
    await silent.start(bus)
    await eventually(lambda: len(silent.messages) == 1)
    await keeper.start(bus)
    await waiting
    assert [call.reserve.reservation_id for call in keeper.messages[0]] == ["r"]


async def test_without_a_keeper_every_call_fails_at_its_deadline(client: QuotaClient) -> None:
    began_s = SystemClock().monotonic_s()

    async def refused(name: str) -> float:
        with pytest.raises(QuotaUnavailable, match="has not answered in 2 s") as error:
            await client.reserve(reserve(name))
        assert error.value.retry_after_s == 3
        return SystemClock().monotonic_s() - began_s

    took_s = await asyncio.gather(*(refused(f"r{i}") for i in range(600)))
    assert min(took_s) >= DEADLINE_S
    assert max(took_s) < DEADLINE_S + 1


async def test_calls_of_a_keeper_that_is_silent_for_long_wait_for_one_message(
    bus: JetStreamBus, client: QuotaClient
) -> None:
    keeper = ScriptedKeeper()
    keeper.answers.clear()
    await keeper.start(bus)
    with pytest.raises(QuotaUnavailable):
        await client.reserve(reserve("first"))
    for _ in range(2):
        sent, began_s = len(keeper.messages), SystemClock().monotonic_s()
        with pytest.raises(QuotaUnavailable):
            await client.reserve(reserve("later"))
        assert len(keeper.messages) - sent <= 2
        assert SystemClock().monotonic_s() - began_s < DEADLINE_S
    keeper.answers.set()
    await client.reserve(reserve("answered"))


async def test_a_silent_keeper_is_given_up_at_the_deadline_too(
    bus: JetStreamBus, client: QuotaClient
) -> None:
    keeper = ScriptedKeeper()
    keeper.answers.clear()
    await keeper.start(bus)
    with pytest.raises(QuotaUnavailable):
        async with asyncio.timeout(DEADLINE_S + 1):
            await client.reserve(reserve("r"))


async def test_confirmations_and_releases_go_with_the_next_call_and_before_it(
    bus: JetStreamBus, client: QuotaClient
) -> None:
    keeper = ScriptedKeeper()
    await keeper.start(bus)
    client.confirm("a", tenant="acme")
    client.release("b", tenant="acme")
    await client.reserve(reserve("c"))
    kinds = [[call.WhichOneof("call") for call in calls] for calls in keeper.messages]
    assert kinds == [["confirm", "release", "reserve"]]


async def test_without_a_call_they_go_alone_and_outlive_the_absence_of_a_keeper(
    bus: JetStreamBus, client: QuotaClient
) -> None:
    client.confirm("a", tenant="acme")
    with pytest.raises(QuotaUnavailable):
        await client.reserve(reserve("late"))
    keeper = ScriptedKeeper()
    await keeper.start(bus)
    await eventually(lambda: bool(keeper.messages))
    assert [call.confirm.reservation_id for call in keeper.messages[0]] == ["a"]
    client.release("b", tenant="acme")
    await eventually(lambda: len(keeper.messages) > 1)
    assert [call.release.reservation_id for call in keeper.messages[-1]] == ["b"]


async def test_a_caller_that_has_gone_is_not_asked_for(
    bus: JetStreamBus, client: QuotaClient
) -> None:
    gone = asyncio.create_task(client.reserve(reserve("gone")))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    keeper = ScriptedKeeper()
    await keeper.start(bus)
    await client.reserve(reserve("stays"))
    assert [call.reserve.reservation_id for call in keeper.messages[-1]] == ["stays"]


async def test_once_it_has_ended_every_call_fails_at_once(bus: JetStreamBus) -> None:
    client = QuotaClient(bus, "gateway-0", SystemClock())
    running = asyncio.create_task(client.run())
    waiting = asyncio.create_task(client.reserve(reserve("r")))
    await asyncio.sleep(0.1)
    running.cancel()
    for call in (waiting, client.reserve(reserve("later"))):
        with pytest.raises(QuotaUnavailable, match="shuts down"):
            await call


async def test_times_are_those_of_the_callers_clock(bus: JetStreamBus, client: QuotaClient) -> None:
    await ScriptedKeeper().start(bus)
    before_ms = SystemClock().unix_s() * 1000
    reply = await client.reserve(reserve("r", 101))
    after_ms = SystemClock().unix_s() * 1000
    assert before_ms + 4999 <= reply.refusal.retry_after_ms <= after_ms + 5001
    assert before_ms + 8999 <= reply.limits[0].reset_ms <= after_ms + 9001
    assert reply.limits[1].reset_ms == 0
