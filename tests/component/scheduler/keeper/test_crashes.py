"""Keepers and brokers die under load: what callers were granted is what the journal says."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from headrace.bus.jetstream import JetStreamBus, connect
from headrace.bus.stores import KEEPER_LEASE, LEASE_BUCKET
from headrace.errors import QuotaUnavailable
from headrace.internal.v1.access_pb2 import Limits
from headrace.quota import QuotaClient
from headrace.testing.nats_server import NatsServer, nats_cluster
from helpers.eventually import eventually
from helpers.quota_judge import Charged, JournalHistory
from helpers.running_keeper import (
    KeeperProcess,
    keeper,
    publish_tables,
    quota_client,
    reservation,
    start_keeper,
    used,
)
from helpers.service_process import service_process

pytestmark = pytest.mark.timeout(180)

CLIENTS, IN_FLIGHT = 4, 8
PACE_S = 0.02
LIMIT = Limits(tokens_per_minute=60_000, tokens_per_day=100_000_000)


class Load:
    """Clients that repeat each reservation with its id until it is granted or refused."""

    def __init__(self, clients: list[QuotaClient]) -> None:
        self._clients = clients
        self.granted: dict[str, int] = {}
        self.refused = 0
        self._ends = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number, client in enumerate(self._clients):
                for task in range(IN_FLIGHT):
                    tasks.create_task(self._caller(client, f"{number}.{task}"))

    def end(self) -> None:
        self._ends = True

    async def grows(self) -> None:
        """Wait until something was granted or refused."""
        before = len(self.granted) + self.refused
        await eventually(lambda: len(self.granted) + self.refused > before + 150, within_s=60)

    async def _caller(self, client: QuotaClient, name: str) -> None:
        choose, number = random.Random(name), 0
        while not self._ends:
            number += 1
            await self._reserve(client, f"{name}.{number}", choose.randint(50, 200))
            await asyncio.sleep(PACE_S)

    async def _reserve(self, client: QuotaClient, name: str, tokens: int) -> None:
        while True:
            with suppress(QuotaUnavailable):
                reply = await client.reserve(reservation(name, tokens))
                break
        if reply.HasField("refusal"):
            self.refused += 1
            return
        self.granted[name] = tokens
        client.confirm(name, tenant="acme")


@asynccontextmanager
async def loaded(urls: list[str]) -> AsyncIterator[Load]:
    """The load runs for the length of the `with`; then each reservation is answered."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(quota_client(",".join(urls), f"gateway-{i}"))
            for i in range(CLIENTS)
        ]
        load = Load(clients)
        running = asyncio.create_task(load.run())
        try:
            yield load
            load.end()
            async with asyncio.timeout(40):
                await running
            # Their confirmations are on their way.
            await asyncio.gather(*(used(client) for client in clients))
        finally:
            running.cancel()


async def judged(history: JournalHistory, load: Load) -> Charged:
    """Raise AssertionError unless the journal has what clients were granted, and no more."""
    await history.catch_up()
    charged = Charged.of(history.entries)
    assert len(load.granted) > 100
    assert charged.tokens == load.granted, "each once, and none that no client knows of"
    _, tokens = charged.fullest_minute()
    assert tokens <= LIMIT.tokens_per_minute
    return charged


@asynccontextmanager
async def followed(urls: list[str]) -> AsyncIterator[JournalHistory]:
    bus = await connect(",".join(urls), name="judge", replicas=None)
    history = JournalHistory(bus)
    following = asyncio.create_task(history.follow())
    try:
        yield history
    finally:
        following.cancel()
        await bus.close()


async def test_three_keepers_die_and_what_was_granted_is_what_the_journal_says(
    bus: JetStreamBus, nats_url: str
) -> None:
    await publish_tables(bus, LIMIT)
    keepers = [await start_keeper(nats_url, f"keeper-{i}") for i in range(2)]
    async with followed([nats_url]) as history:
        async with loaded([nats_url]) as load:
            for number in range(3):
                await load.grows()
                in_office = await holder(bus, keepers)
                await in_office.kill()
                keepers.remove(in_office)
                keepers.append(await start_keeper(nats_url, f"keeper-{2 + number}"))
            await load.grows()
        charged = await judged(history, load)
    assert len(charged.epochs) == 4
    for each in keepers:
        await each.stop()


async def holder(bus: JetStreamBus, keepers: list[KeeperProcess]) -> KeeperProcess:
    name = await holder_id(bus)
    return next(each for each in keepers if each.name == name)


async def holder_id(bus: JetStreamBus) -> str:
    held = await bus.jetstream.get_last_msg(
        f"KV_{LEASE_BUCKET}", f"$KV.{LEASE_BUCKET}.{KEEPER_LEASE}"
    )
    return (held.data or b"").decode()


async def test_a_keeper_that_was_frozen_past_its_lease_grants_nothing_when_it_goes_on(
    bus: JetStreamBus, nats_url: str, tmp_path: Path
) -> None:
    await publish_tables(bus, LIMIT)
    async with AsyncExitStack() as stack:
        processes: dict[str, asyncio.subprocess.Process] = {}
        for name in ("one", "two"):
            running = service_process("headrace_scheduler", tmp_path, name, nats_url=nats_url)
            processes[name] = (await stack.enter_async_context(running)).process
        history = await stack.enter_async_context(followed([nats_url]))
        async with loaded([nats_url]) as load:
            await load.grows()
            frozen = processes[(await holder_id(bus)).rpartition("-")[0]]
            frozen.send_signal(signal.SIGSTOP)
            stack.callback(frozen.send_signal, signal.SIGCONT)
            await load.grows()
            frozen.send_signal(signal.SIGCONT)
            await load.grows()
        charged = await judged(history, load)
    assert len(charged.epochs) == 2


async def test_the_broker_is_killed_under_load(
    nats: NatsServer, bus: JetStreamBus, nats_url: str
) -> None:
    await publish_tables(bus, LIMIT)
    async with (
        keeper(nats_url, "one"),
        keeper(nats_url, "two"),
        followed([nats_url]) as history,
    ):
        async with loaded([nats_url]) as load:
            for _ in range(2):
                await load.grows()
                await nats.kill()
                await nats.start()
            await load.grows()
        await judged(history, load)


async def test_a_cluster_loses_the_leader_of_the_journal(tmp_path: Path) -> None:
    async with nats_cluster(tmp_path) as servers, AsyncExitStack() as stack:
        urls = [server.url for server in servers]
        bus = await connect(",".join(urls), name="test", replicas=3)
        stack.push_async_callback(bus.close)
        await publish_tables(bus, LIMIT)
        for name in ("one", "two"):
            await stack.enter_async_context(keeper(",".join(urls), name, replicas=3))
        history = await stack.enter_async_context(followed(urls))
        async with loaded(urls) as load:
            await load.grows()
            info = await bus.jetstream.stream_info("QUOTA_JOURNAL")
            assert info.cluster is not None
            lost = next(each for each in servers if each.name == info.cluster.leader)
            await lost.kill()
            await load.grows()
            await lost.start()
            await load.grows()
        await judged(history, load)
