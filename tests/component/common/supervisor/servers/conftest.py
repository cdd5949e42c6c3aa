"""A broker with the users of a mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.bus.jetstream import JetStreamBus, connect
from headrace.supervisor.child import Child
from headrace.supervisor.servers.nats import Broker
from headrace.supervisor.servers.nats_permissions import BrokerUser
from helpers.broker_users import PASSWORDS, Connect


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path / "nats", passwords=PASSWORDS)
    broker.prepare()
    child = await Child.start(broker.argv(), log=tmp_path / "nats.log", folder=tmp_path)
    try:
        async with asyncio.timeout(10):
            while await broker.read_ports(child.pid) is None:
                assert child.running, (tmp_path / "nats.log").read_text()
                await asyncio.sleep(0.02)
        yield broker
    finally:
        await child.stop(deadline_s=5)


@pytest.fixture
async def connected(broker: Broker, tmp_path: Path) -> AsyncIterator[Connect]:
    buses: list[JetStreamBus] = []

    async def as_user(user: BrokerUser) -> JetStreamBus:
        file = tmp_path / f"{user}.credentials"
        file.touch(mode=0o600)
        file.write_text(f"{user}:{PASSWORDS[user]}")
        bus = await connect(broker.url, name=user, wait_s=10, credentials_file=file)
        buses.append(bus)
        return bus

    yield as_user
    for bus in buses:
        await bus.close()
