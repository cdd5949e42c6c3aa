"""Quota keepers within the test's event loop, their clients, and the tables that both need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from headrace.bus import Bus, BusError, Tables, subjects
from headrace.bus.jetstream import connect
from headrace.clock import SystemClock
from headrace.internal.v1.access_pb2 import (
    KeyRow,
    Limits,
    ModelLimits,
    PriceRow,
    TableStamp,
    TenantRow,
)
from headrace.internal.v1.quota_pb2 import DescribeQuota, LimitState, QuotaEntry, Reserve
from headrace.internal.v1.usage_pb2 import UsageRecord, UsageRecords
from headrace.quota import QuotaClient
from headrace_scheduler.keeper.election import KeeperElection
from headrace_scheduler.quota.record import QuotaRecord
from headrace_scheduler.quota.snapshot import Replay
from helpers.running_scheduler import settings

CLOCK = SystemClock()


async def publish_tables(
    tables: Tables,
    limits: Limits,
    *,
    key_limits: Limits | None = None,
    model_limits: dict[str, Limits] | None = None,
    prices: tuple[PriceRow, ...] = (),
) -> None:
    """Write tenant `acme` and its key `k`, and say that all tables are whole."""
    of_models = [ModelLimits(model=m, limits=each) for m, each in (model_limits or {}).items()]
    tenant = TenantRow(tenant="acme", limits=limits, model_limits=of_models)
    key = KeyRow(key_id="k", tenant="acme", limits=key_limits)
    await tables.put_row(subjects.TENANTS_TABLE, "acme", tenant.SerializeToString())
    await tables.put_row(subjects.KEYS_TABLE, "k", key.SerializeToString())
    for number, price in enumerate(prices):
        await tables.put_row(subjects.PRICES_TABLE, f"{number}", price.SerializeToString())
    stamp = TableStamp(time_ms=round(CLOCK.unix_s() * 1000)).SerializeToString()
    for table in subjects.TABLES:
        await tables.put_row(table, subjects.TABLE_STAMP, stamp)


class KeeperProcess:
    """A keeper, or a standby, in this event loop, with a connection of its own."""

    def __init__(self, name: str, bus: Bus, task: asyncio.Task[None]) -> None:
        self.name, self._bus, self._task = name, bus, task

    async def stop(self) -> None:
        """End as on SIGTERM: release the lease."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._bus.close()

    async def kill(self) -> None:
        """End as by SIGKILL: without a message to any process."""
        await self._bus.close()
        self._task.cancel()
        with suppress(asyncio.CancelledError, BusError, ExceptionGroup):
            await self._task


async def start_keeper(url: str, name: str = "one", *, replicas: int = 1) -> KeeperProcess:
    bus = await connect(url, name=name, replicas=replicas)
    election = KeeperElection(name, bus, settings(), CLOCK)
    return KeeperProcess(name, bus, asyncio.create_task(election.run()))


@asynccontextmanager
async def keeper(url: str, name: str = "one", *, replicas: int = 1) -> AsyncIterator[KeeperProcess]:
    process = await start_keeper(url, name, replicas=replicas)
    try:
        yield process
    finally:
        await process.stop()


@asynccontextmanager
async def quota_client(url: str, name: str = "gateway-0") -> AsyncIterator[QuotaClient]:
    """A client as a gateway has it."""
    bus = await connect(url, name=name, replicas=None)
    client = QuotaClient(bus, name, CLOCK)
    running = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        running.cancel()
        await bus.close()


def reservation(
    name: str, tokens: int = 1, *, output: int = 0, lasts_s: float = 600.0, batch: bool = False
) -> Reserve:
    """Of tenant `acme`, key `k`, model `m`."""
    return Reserve(
        reservation_id=name,
        tenant="acme",
        key_id="k",
        model="m",
        input_tokens=tokens,
        output_tokens=output,
        batch=batch,
        deadline_ms=round((CLOCK.unix_s() + lasts_s) * 1000),
    )


async def publish_usage(bus: Bus, name: str, tokens: int, *, sequence: int = 1) -> None:
    """As the leader of model `m` does, of one request."""
    record = UsageRecord(
        source="requests:test",
        sequence=sequence,
        reservation_id=name,
        tenant="acme",
        key_id="k",
        model="m",
        input_tokens=tokens,
        end_ms=round(CLOCK.unix_s() * 1000),
    )
    await bus.publish_usage(UsageRecords(records=[record]).SerializeToString())


async def states(client: QuotaClient) -> list[LimitState]:
    """Of all limits of `acme`, `k` and `m`."""
    reply = await client.describe(DescribeQuota(tenant="acme", key_id="k", model="m"))
    return list(reply.limits)


async def used(client: QuotaClient) -> list[int]:
    return [state.used for state in await states(client)]


async def journal_record(bus: Bus) -> QuotaRecord:
    """Return what a successor would know."""
    replay = Replay()
    for entry in (await bus.read_journal()).entries:
        replay.apply(QuotaEntry.FromString(entry))
    return replay.record
