"""What surrounds each call of the API: the active process, errors, and the wait for gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from headrace.admin.v1 import people_pb2, people_pb2_grpc, tenants_pb2, tenants_pb2_grpc
from headrace.bus import BusUnavailable
from headrace.errors import ControlUnavailable, HeadraceError, InternalError, ResourceNotFound
from headrace.rpc.channels import aio_channel
from headrace.rpc.server import bind, make_server
from headrace_control.api.calls import CallInterceptor
from headrace_control.api.http.replies import send_error
from helpers.control_api import refused


class Tenants(tenants_pb2_grpc.TenantServiceServicer):
    """Answers, or raises what a test says."""

    error: Exception | None = None

    async def GetTenant(self, request: Any, context: Any) -> tenants_pb2.Tenant:  # noqa: N802
        return self._answer()

    async def CreateTenant(self, request: Any, context: Any) -> tenants_pb2.Tenant:  # noqa: N802
        return self._answer()

    def _answer(self) -> tenants_pb2.Tenant:
        if self.error is not None:
            raise self.error
        return tenants_pb2.Tenant(name="tenants/acme")


class Members(people_pb2_grpc.MemberServiceServicer):
    async def AcceptInvitation(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[HttpBody]:
        yield HttpBody(data=b"signed in")


class World:
    """A server, whose process may be active, and whose changes may be published."""

    def __init__(self) -> None:
        self.active = True
        self.waited = 0
        self.publish: Callable[[], Awaitable[None]] = self.at_once
        self.tenants = Tenants()  # type: ignore[abstract]  # the other methods are not called

    async def at_once(self) -> None:
        return

    async def settled(self) -> None:
        self.waited += 1
        await self.publish()


@asynccontextmanager
async def served(world: World) -> AsyncIterator[grpc.aio.Channel]:
    calls = CallInterceptor(
        is_active=lambda: world.active, settled=world.settled, settle_s=0.1, send_error=send_error
    )
    server = make_server([calls])
    tenants_pb2_grpc.add_TenantServiceServicer_to_server(world.tenants, server)
    people_pb2_grpc.add_MemberServiceServicer_to_server(Members(), server)  # type: ignore[abstract]
    port = bind(server, "127.0.0.1", 0)
    await server.start()
    async with aio_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


def create(channel: grpc.aio.Channel) -> Any:
    stub: Any = tenants_pb2_grpc.TenantServiceStub(channel)
    return stub.CreateTenant(tenants_pb2.CreateTenantRequest())


def get(channel: grpc.aio.Channel) -> Any:
    stub: Any = tenants_pb2_grpc.TenantServiceStub(channel)
    return stub.GetTenant(tenants_pb2.GetTenantRequest())


async def accept(channel: grpc.aio.Channel) -> bytes:
    stub: Any = people_pb2_grpc.MemberServiceStub(channel)
    bodies = [b async for b in stub.AcceptInvitation(people_pb2.AcceptInvitationRequest())]
    return bytes(bodies[0].data)


async def never() -> None:
    await asyncio.Event().wait()


async def without_database() -> None:
    raise ControlUnavailable("the database is away")


async def test_changes_wait_for_gateways_and_questions_do_not() -> None:
    async with served(world := World()) as channel:
        await get(channel)
        assert world.waited == 0
        await create(channel)
        assert world.waited == 1
        assert await accept(channel) == b"signed in"
        assert world.waited == 2


@pytest.mark.parametrize("publish", [never, without_database])
async def test_a_stored_change_is_answered_though_gateways_do_not_have_it_yet(
    publish: Callable[[], Awaitable[None]],
) -> None:
    async with served(world := World()) as channel:
        world.publish = publish
        assert (await create(channel)).name == "tenants/acme"
        assert await accept(channel) == b"signed in"


async def test_a_standby_serves_nothing() -> None:
    async with served(world := World()) as channel:
        world.active = False
        for call in (get(channel), create(channel), accept(channel)):
            error = await refused(call)
            assert (type(error), error.retry_after_s) == (ControlUnavailable, 1.0)
        assert world.waited == 0


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ResourceNotFound("tenant acme not found"), ResourceNotFound),
        (BusUnavailable("nats://secret@host"), ControlUnavailable),
        (RuntimeError("a secret"), InternalError),
    ],
)
async def test_callers_read_errors_and_none_of_what_is_inside(
    raised: Exception, seen: type[HeadraceError]
) -> None:
    async with served(world := World()) as channel:
        world.tenants.error = raised
        error = await refused(create(channel))
        assert error.code == seen.code
        assert "secret" not in error.message
        assert world.waited == 0
