"""Calls inside a mesh with TLS: who may call whom, and certificates that change under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.credentials.tls_files import TlsFiles
from headrace.rpc.addresses import join_host_port
from headrace.rpc.channels import aio_channel
from headrace.rpc.roles import Roles
from headrace.rpc.server import add_health_and_reflection, bind, make_server, set_serving
from headrace.rpc.tls import ChannelSecurity, mesh_security
from helpers.mesh_certificates import MeshAuthority

BY_WORKERS: Roles = {"grpc.health.v1.Health": frozenset({"worker"})}


@pytest.fixture
def authority(tmp_path: Path) -> MeshAuthority:
    return MeshAuthority(tmp_path)


@asynccontextmanager
async def serving(files: TlsFiles, roles: Roles = BY_WORKERS) -> AsyncIterator[str]:
    server = make_server(tls=files, roles=roles)
    health = add_health_and_reflection(server, [])
    target = join_host_port("127.0.0.1", bind(server, "127.0.0.1", 0, files))
    await server.start()
    await set_serving(health, [], serving=True)
    yield target
    await server.stop(grace=None)


async def call(target: str, security: ChannelSecurity | None) -> None:
    async with aio_channel(target, security=security) as channel:
        await call_on(channel)


async def call_on(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    await stub.Check(  # type: ignore[attr-defined]
        health_pb2.HealthCheckRequest(), timeout=10
    )


async def refusal(target: str, security: ChannelSecurity | None) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(target, security)
    return refused.value


async def test_only_roles_that_may_call_a_service_call_it(authority: MeshAuthority) -> None:
    async with serving(TlsFiles(authority.issue("gateway"))) as target:
        await call(target, mesh_security(TlsFiles(authority.issue("worker")), "gateway"))
        for role in ("scheduler", "gateway", "envoy"):
            security = mesh_security(TlsFiles(authority.issue(role, "two")), "gateway")
            error = await refusal(target, security)
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            fact = f"a {role} may not call grpc.health.v1.Health; worker may call it"
            assert error.details() == fact


async def test_streams_are_refused_like_calls(authority: MeshAuthority) -> None:
    async with serving(TlsFiles(authority.issue("gateway"))) as target:
        security = mesh_security(TlsFiles(authority.issue("scheduler")), "gateway")
        async with aio_channel(target, security=security) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
            with pytest.raises(grpc.aio.AioRpcError, match="a scheduler may not call"):
                await watch.read()


async def test_a_service_that_is_not_named_is_called_by_nobody(authority: MeshAuthority) -> None:
    async with serving(TlsFiles(authority.issue("gateway")), roles={}) as target:
        security = mesh_security(TlsFiles(authority.issue("worker")), "gateway")
        error = await refusal(target, security)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_clients_without_a_valid_certificate_of_the_mesh_get_no_connection(
    authority: MeshAuthority, tmp_path: Path
) -> None:
    stranger = MeshAuthority(tmp_path / "stranger")
    trusting = stranger.issue("worker", trusted=authority.pair.certificate)
    expired = authority.issue("worker", "old", age=timedelta(days=91))
    async with serving(TlsFiles(authority.issue("gateway"))) as target:
        without = ChannelSecurity(
            grpc.ssl_channel_credentials(authority.pair.certificate),
            (("grpc.ssl_target_name_override", "gateway.headrace.internal"),),
        )
        by_stranger = mesh_security(TlsFiles(trusting), "gateway")
        too_old = mesh_security(TlsFiles(expired), "gateway")
        for security in (None, without, by_stranger, too_old):
            error = await refusal(target, security)
            assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_must_have_the_role_that_is_called(authority: MeshAuthority) -> None:
    """The certificate of a worker is of no use to pretend to be a gateway."""
    files = TlsFiles(authority.issue("worker"))
    async with serving(TlsFiles(authority.issue("worker", "two"))) as target:
        await call(target, mesh_security(files, "worker"))
        error = await refusal(target, mesh_security(files, "gateway"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_no_call_fails_while_certificates_of_both_ends_change(
    authority: MeshAuthority, tmp_path: Path
) -> None:
    """Renewed ten times, then signed by another authority after an overlap of both."""
    ends = {role: authority.issue(role) for role in ("gateway", "worker")}
    files = {role: TlsFiles(paths) for role, paths in ends.items()}
    calls, stop = 0, asyncio.Event()

    async def load(target: str, channel: grpc.aio.Channel) -> None:
        nonlocal calls
        while not stop.is_set():
            await call_on(channel)
            await call(target, mesh_security(files["worker"], "gateway"))
            calls += 2

    async def renew(by: MeshAuthority, trusted: bytes = b"") -> None:
        for role, paths in ends.items():
            before = calls
            by.issue(role, at=paths.cert.parent, trusted=trusted)
            while calls < before + 6:
                await asyncio.sleep(0.005)

    new = MeshAuthority(tmp_path / "new")
    async with serving(files["gateway"]) as target, asyncio.TaskGroup() as group:
        opened = mesh_security(files["worker"], "gateway")
        async with aio_channel(target, security=opened) as channel:
            loads = [group.create_task(load(target, channel)) for _ in range(3)]
            for _ in range(10):
                await renew(authority)
            await renew(authority, trusted=new.pair.certificate)
            await renew(new, trusted=authority.pair.certificate)
            await renew(new)
            stop.set()
            await asyncio.gather(*loads)
            by_old = mesh_security(TlsFiles(authority.issue("worker", "old")), "gateway")
            error = await refusal(target, by_old)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert calls >= 130


async def test_files_that_do_not_match_leave_the_certificate_in_use(
    authority: MeshAuthority,
) -> None:
    paths = authority.issue("gateway")
    files = TlsFiles(paths)
    good = files.current
    whole = paths.cert.read_bytes()
    paths.cert.write_bytes(authority.issue("gateway", "two").cert.read_bytes())
    assert files.current is good
    paths.cert.write_bytes(whole)
    assert files.current.cert == whole


async def test_the_time_of_expiry_is_that_of_the_certificate_in_use(
    authority: MeshAuthority,
) -> None:
    paths = authority.issue("gateway", age=timedelta(days=80))
    files = TlsFiles(paths)
    before = files.expires_s
    authority.issue("gateway", at=paths.cert.parent)
    assert files.expires_s - before == pytest.approx(80 * 86400, abs=10)
