"""Every call is checked before its handler runs, on a real gRPC server and a real broker."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.auth.keys import new_key
from headrace.auth.scopes import ADMIN, MODELS_READ
from headrace.auth.settings import AccessSettings
from headrace.bus import Bus
from headrace.bus.subjects import TENANTS_TABLE
from headrace.errors import (
    ControlUnavailable,
    InvalidApiKey,
    PermissionDenied,
    TooManyFailedAttempts,
)
from headrace.v1.common_pb2 import Priority
from headrace.v1.probes_pb2_grpc import (
    ProbeServiceStub,
)
from helpers.access_tables import PublishedTables
from helpers.checked_server import EDGE, serving
from helpers.eventually import eventually


async def test_a_call_has_its_caller_and_no_other_call_has_it(
    bus: Bus, settings: AccessSettings, tables: PublishedTables
) -> None:
    keys = [await tables.key("a", scopes=[MODELS_READ]) for _ in range(20)]
    async with serving(bus, settings) as served:
        await eventually(lambda: served.access.not_ready_reason() is None)
        await asyncio.gather(*(served.list_models(key) for key in keys))
        found = {caller.key_id for caller in served.handlers.callers}
        assert found == {key[3:14] for key in keys}
        caller = await served.list_models("", x_api_key=keys[0])
        assert (caller.tenant, caller.client) == ("a", "127.0.0.1")


async def test_a_rejected_call_reaches_no_handler_and_errors_are_alike(
    bus: Bus, settings: AccessSettings, tables: PublishedTables
) -> None:
    expired = await tables.key("a", expire_ms=1)
    revoked = await tables.key("a")
    await tables.revoke(revoked)
    async with serving(bus, settings) as served:
        await eventually(lambda: served.access.not_ready_reason() is None)
        for key in ("", "none", new_key(), expired, revoked):
            error = await served.error(key)
            assert type(error) is InvalidApiKey
            assert error.message == "Incorrect API key provided."
        admin = await tables.key("a", scopes=[ADMIN])
        await asyncio.sleep(0.1)
        denied = await served.error(admin)
        assert type(denied) is PermissionDenied
        assert "needs the scope models:read" in denied.message


async def test_what_is_public_needs_no_key_and_gives_no_rights(
    bus: Bus, settings: AccessSettings, tables: PublishedTables
) -> None:
    async with serving(bus, settings) as served:
        for metadata in ((), (("x-api-key", new_key()),)):
            await ProbeServiceStub(served.channel).GetHealth(Empty(), metadata=metadata)
            caller = served.handlers.callers[-1]
            assert (caller.tenant, caller.scopes, caller.may_use("m")) == ("", frozenset(), False)
        check = health_pb2.HealthCheckRequest()
        stub: Any = health_pb2_grpc.HealthStub(served.channel)
        assert await stub.Check(check)


async def test_before_the_tables_are_whole_callers_may_come_again(
    bus: Bus, settings: AccessSettings
) -> None:
    tables = PublishedTables(bus)
    await tables.tenant("a")
    key = await tables.key("a")
    async with serving(bus, settings) as served:
        assert type(await served.error(key)) is ControlUnavailable
        assert "keys, tenants, sessions" in (served.access.not_ready_reason() or "")
        await tables.stamp()
        await eventually(lambda: served.access.not_ready_reason() is None)
        assert await served.list_models(key)


async def test_only_envoy_says_from_where_a_call_comes(
    bus: Bus, settings: AccessSettings, tables: PublishedTables
) -> None:
    key = await tables.key("a", networks=["203.0.113.0/24"])
    cookie = await tables.session("a", role="viewer")
    async with serving(bus, settings) as served:
        await eventually(lambda: served.access.not_ready_reason() is None)
        forged = {"x_hr_client": "203.0.113.9", "x_hr_same_origin": "1"}
        session = {"cookie": f"headrace_session={cookie}"}
        for secret in ({}, {"x_hr_edge": "guess"}, {"x_hr_edge": ""}):
            assert type(await served.error(key, **forged, **secret)) is PermissionDenied
            assert type(await served.error("", **forged, **session, **secret)) is InvalidApiKey
        proven = forged | {"x_hr_edge": EDGE}
        assert (await served.list_models(key, **proven)).client == "203.0.113.9"
        assert (await served.list_models("", **proven, **session)).role == "viewer"
        proven["x_hr_same_origin"] = "0"
        assert type(await served.error("", **proven, **session)) is InvalidApiKey


async def test_failed_attempts_are_limited_and_valid_keys_are_not(
    bus: Bus, settings: AccessSettings, tables: PublishedTables
) -> None:
    key = await tables.key("a")
    async with serving(bus, settings) as served:
        await eventually(lambda: served.access.not_ready_reason() is None)
        errors = [await served.error(new_key()) for _ in range(25)]
        assert [type(error) for error in errors[:20]] == [InvalidApiKey] * 20
        assert type(errors[-1]) is TooManyFailedAttempts
        assert 0 < (errors[-1].retry_after_s or 0) <= 3
        assert await served.list_models(key)
        assert type(await served.error()) is InvalidApiKey, "a call without a key tries none"


async def test_without_keys_everybody_may_and_a_tenants_row_is_in_force(bus: Bus) -> None:
    async with serving(bus, AccessSettings(), "x-tenant") as served:
        assert served.access.not_ready_reason() is None
        caller = await served.list_models("not a key", x_tenant="team.a")
        assert (caller.tenant, caller.anonymous, caller.is_operator) == ("team.a", True, True)
        tables = PublishedTables(bus)
        await tables.tenant("team.a", default_priority=Priority.PRIORITY_BULK)
        await tables.stamp()
        await eventually(lambda: served.access.tables.tenant("team.a") is not None)
        assert (
            await served.list_models(x_tenant="team.a")
        ).default_priority == Priority.PRIORITY_BULK
        assert (await served.list_models()).tenant == "default"


async def test_with_keys_the_header_of_the_tenant_is_ignored(
    bus: Bus, settings: AccessSettings, tables: PublishedTables
) -> None:
    key = await tables.key("a")
    async with serving(bus, settings, "x-tenant") as served:
        await eventually(lambda: served.access.not_ready_reason() is None)
        assert (await served.list_models(key, x_tenant="b")).tenant == "a"


async def test_a_method_whose_proto_says_nothing_is_refused(
    bus: Bus, settings: AccessSettings, tables: PublishedTables
) -> None:
    key = await tables.key("a")
    async with serving(bus, settings) as served:
        await eventually(lambda: served.access.not_ready_reason() is None)
        internal: Any = served.channel.unary_unary("/headrace.tests.Unknown/Call")
        for metadata, code in (
            ((), grpc.StatusCode.UNAUTHENTICATED),
            ((("x-api-key", key),), grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await internal(b"", metadata=metadata)
            assert refused.value.code() is code


async def test_a_row_that_cannot_be_read_grants_nothing(
    bus: Bus, settings: AccessSettings, tables: PublishedTables
) -> None:
    key = await tables.key("a")
    async with serving(bus, settings) as served:
        await eventually(lambda: served.access.not_ready_reason() is None)
        assert await served.list_models(key)
        await bus.put_row(TENANTS_TABLE, "a", b"\xff\xff")
        await eventually(lambda: served.access.tables.tenant("a") is None)
        assert type(await served.error(key)) is InvalidApiKey
