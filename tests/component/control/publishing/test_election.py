"""At most one control process is active, and one that loses its lease stops at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.bus.jetstream import connect
from headrace.clock import SystemClock
from headrace.errors import ControlUnavailable
from headrace.testing.nats_server import NatsServer
from headrace_control.base.settings import ControlSettings
from headrace_control.publishing.election import Election
from helpers.eventually import eventually

SETTINGS = ControlSettings(lease_ttl_s=1, lease_renew_s=0.2, lease_acquire_s=0.05)


class Candidate:
    """A process that counts how often it became active."""

    def __init__(self, election: Election) -> None:
        self.election = election
        self.begun = 0
        self.works = False
        self.fails = False

    async def work(self) -> None:
        self.begun += 1
        if self.fails:
            raise ControlUnavailable("the database is away")
        self.works = True
        try:
            await asyncio.Event().wait()
        finally:
            self.works = False


@asynccontextmanager
async def candidate(nats: NatsServer, name: str) -> AsyncIterator[Candidate]:
    bus = await connect(nats.url, name=name)
    running = Candidate(Election(bus, name, SETTINGS, SystemClock()))
    task = asyncio.create_task(running.election.run(running.work))
    yield running
    task.cancel()
    await asyncio.wait({task})
    await bus.close()


async def test_a_standby_takes_over_when_the_active_one_leaves(nats: NatsServer) -> None:
    async with candidate(nats, "b") as second:
        async with candidate(nats, "a") as first:
            await eventually(lambda: first.works or second.works)
            active, standby = (first, second) if first.works else (second, first)
            await eventually(lambda: standby.election.knows_other)
            assert (active.election.is_active, standby.election.is_active) == (True, False)
            assert standby.begun == 0
        await eventually(lambda: second.works, within_s=3)


async def test_a_process_that_cannot_renew_stops_before_another_may_begin(
    nats: NatsServer,
) -> None:
    async with candidate(nats, "a") as only:
        await eventually(lambda: only.works)
        nats.freeze()
        await eventually(lambda: not only.election.is_active, within_s=1.5)
        await eventually(lambda: not only.works, within_s=1.5)
        nats.thaw()
        await eventually(lambda: only.works, within_s=8)
        assert only.begun == 2


async def test_a_process_that_cannot_work_lets_another_try(nats: NatsServer) -> None:
    async with candidate(nats, "a") as broken:
        broken.fails = True
        await eventually(lambda: broken.begun >= 1)
        async with candidate(nats, "b") as sound:
            await eventually(lambda: sound.works)
            assert not broken.works
