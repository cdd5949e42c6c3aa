"""Two control processes on one PostgreSQL: one is active, and the other takes over."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc

from headrace.admin.v1 import keys_pb2, tenants_pb2
from headrace.bus.jetstream import connect
from headrace.bus.subjects import KEYS_TABLE
from headrace.errors import ControlUnavailable
from headrace.testing.nats_server import NatsServer
from helpers.control_api import ControlApi, refused
from helpers.control_process import control_process, is_serving, readiness, serving, write_peppers
from helpers.eventually import eventually
from helpers.postgres import PostgresServer


async def test_a_standby_takes_over_from_a_killed_process(
    nats: NatsServer, tmp_path: Path, postgres: PostgresServer
) -> None:
    url = await postgres.new_database()
    peppers = write_peppers(tmp_path / "peppers", "a")
    options: dict[str, Any] = {"database_url": url, "peppers_file": peppers}
    async with AsyncExitStack() as stack:
        started = [
            await stack.enter_async_context(
                control_process(tmp_path, nats.url, name=name, **options)
            )
            for name in ("one", "two")
        ]
        first, second = started
        await serving(first)
        assert not await is_serving(second)
        assert (await readiness(second)).text == "ok\nstands by\n"
        async with ControlApi(second.ports["grpc"]) as standby:
            listing = standby.tenants.ListTenants(tenants_pb2.ListTenantsRequest())
            error = await refused(listing)
            assert isinstance(error, ControlUnavailable)
            assert error.retry_after_s == 1.0
        async with ControlApi(first.ports["grpc"]) as active:
            made = await active.create_key("acme")
        first.process.kill()
        await serving(second)
        async with ControlApi(second.ports["grpc"]) as active:
            found = await active.keys.GetKey(keys_pb2.GetKeyRequest(name=made.key.name))
            assert found == made.key
            await active.keys.RevokeKey(keys_pb2.RevokeKeyRequest(name=made.key.name))
        bus = await connect(nats.url, name="watcher", replicas=None)

        async def is_gone() -> bool:
            return made.key.name.rpartition("/")[2] not in await bus.rows(KEYS_TABLE)

        await eventually(is_gone)
        await bus.close()


async def test_without_its_database_control_says_when_to_retry_and_works_when_it_is_back(
    nats: NatsServer, tmp_path: Path, postgres: PostgresServer
) -> None:
    url = await postgres.new_database()
    peppers = write_peppers(tmp_path / "peppers", "a")
    async with control_process(
        tmp_path, nats.url, database_url=url, peppers_file=peppers
    ) as running:
        await serving(running)
        async with ControlApi(running.ports["grpc"]) as api:
            await postgres.admit(url, connections=False)
            for call in (
                api.tenants.ListTenants(tenants_pb2.ListTenantsRequest()),
                api.create_key("acme"),
            ):
                error = await refused(call)
                assert (type(error), error.retry_after_s) == (ControlUnavailable, 1.0)
                assert "test_" not in error.message
            await postgres.admit(url, connections=True)

            async def is_back() -> bool:
                listing = tenants_pb2.ListTenantsRequest()
                try:
                    return (await api.tenants.ListTenants(listing)) is not None
                except grpc.aio.AioRpcError:
                    return False

            await eventually(is_back, within_s=10)
            await api.create_key("acme")
