"""The administration API of a mesh, as commands call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click
import grpc

from headrace.cli.console.options import MeshTarget
from headrace.errors import HeadraceError, InvalidApiKey, PermissionDenied
from headrace.rpc.addresses import InvalidAddress, grpc_target
from headrace.rpc.channels import CLIENT_PINGS, aio_channel
from headrace.rpc.status import from_rpc_error

T = TypeVar("T")

CALL_S = 15.0
"""Deadline of a call with one answer that names none."""


@asynccontextmanager
async def admin_api(mesh: MeshTarget) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel to the mesh, for the stubs of `headrace.admin.v1`.

    Its calls have the key of HEADRACE_API_KEY, or else admin.key of the mesh's state directory, if
    there is one.

        async with admin_api(mesh) as channel:
            found = await TenantServiceStub(channel).GetTenant(request)

    Raises:
        HeadraceError: in place of any AioRpcError, from the body of the `with` too.
        MeshNotRunning: no URL was given and no mesh runs in the state directory.
        ClickException: the URL is not an address, or the key file cannot be read.
    """
    try:
        target = grpc_target(mesh.url)
    except InvalidAddress as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
    key = mesh.admin_key()
    channel = aio_channel(
        target, pings=CLIENT_PINGS, interceptors=key_interceptors(key), security=mesh.security()
    )
    try:
        yield channel
    except grpc.aio.AioRpcError as failed:
        raise _explained(from_rpc_error(failed), mesh, has_key=key is not None) from None
    finally:
        await channel.close()


def call_admin_api(mesh: MeshTarget, make: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
    """Return what a call answers that `make` makes on the channel. Raises as `admin_api`."""

    async def called() -> T:
        async with admin_api(mesh) as channel:
            return await make(channel)

    return asyncio.run(called())


def _explained(error: HeadraceError, mesh: MeshTarget, *, has_key: bool) -> HeadraceError:
    if isinstance(error, InvalidApiKey) and not has_key:
        return InvalidApiKey(
            f"{mesh.url} requires a key: set HEADRACE_API_KEY to an administrator's, or name the"
            f" state directory that has admin.key; {mesh.state_dir.folder} has none"
        )
    if isinstance(error, PermissionDenied):
        return PermissionDenied(
            f"{error.message} (commands that administer use HEADRACE_API_KEY, else admin.key)"
        )
    return with_option(error, click.get_current_context(silent=True))


def with_option(error: HeadraceError, context: click.Context | None) -> HeadraceError:
    """Return an error with the command's option in place of the field that it gives: `--currency`
    for `tenant.currency`."""
    if context is None or not error.field:
        return error
    name = error.field.rpartition(".")[2].partition("[")[0]
    names = {name, name.removesuffix("s"), name.removesuffix("_nanos"), name.removesuffix("_time")}
    flags = {f"--{each.replace('_', '-')}" for each in names}
    for option in context.command.params:
        if isinstance(option, click.Option) and (option.name in names or flags & set(option.opts)):
            error.message = error.message.replace(error.field, option.opts[0])
            error.args = (error.message,)
            break
    return error


def key_interceptors(key: str | None) -> list[grpc.aio.ClientInterceptor]:
    """Return what gives a channel's calls the key, and a deadline to those with one answer."""
    authorization = None if key is None else f"Bearer {key}"
    return [_UnaryCalls(authorization), _StreamCalls(authorization)]


class _WithKey:
    def __init__(self, authorization: str | None) -> None:
        self._authorization = authorization

    def _details(
        self, details: grpc.aio.ClientCallDetails, *, deadline_s: float | None = None
    ) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if self._authorization is not None:
            metadata.add("authorization", self._authorization)
        return grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=deadline_s if details.timeout is None else details.timeout,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _UnaryCalls(_WithKey, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        return await continuation(self._details(client_call_details, deadline_s=CALL_S), request)


class _StreamCalls(_WithKey, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        return await continuation(self._details(client_call_details), request)
