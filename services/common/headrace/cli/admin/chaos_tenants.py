"""Tenants of a chaos run: each has a key, and rows of usage that are read at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.admin.v1 import keys_pb2, tenants_pb2, usage_pb2
from headrace.admin.v1.keys_pb2_grpc import KeyServiceStub
from headrace.admin.v1.tenants_pb2_grpc import TenantServiceStub
from headrace.admin.v1.usage_pb2_grpc import UsageServiceStub
from headrace.auth.scopes import ANY_MODEL, USER_SCOPES
from headrace.chaos.history import AccountsRead, Event, UsageRowRead
from headrace.cli.console.admin_api import admin_api
from headrace.cli.console.options import MeshTarget

T = TypeVar("T")

TENANTS = 3
_KEPT_MINUTES = 60.0
"""How long the keys are valid after the faults, until all answers are whole."""
_ROWS_WITHIN_S = 60.0
_POLL_S = 0.5
_CONTROL_AWAY_S = 30.0
_COMPARE_S = 120.0
_PAGE = 1000


class ChaosTenants:
    """Tenants made for one run; `keys` are theirs, in order."""

    def __init__(self, mesh: MeshTarget, tenants: Sequence[str], keys: Sequence[str]) -> None:
        self._mesh, self._tenants, self.keys = mesh, tenants, tuple(keys)
        self._since = Timestamp()
        self._since.GetCurrentTime()

    async def accounts(self, now_s: float, expected: Collection[str]) -> list[Event]:
        """Return events of all rows, once there is one of each of these request ids; or of those
        that there are after `_ROWS_WITHIN_S`."""
        async with admin_api(self._mesh) as channel:
            rows = await self._expected_rows(channel, set(expected))
            service = UsageServiceStub(channel)
            request = usage_pb2.ReconcileUsageRequest(since=self._since)
            found = await _patiently(lambda: service.ReconcileUsage(request, timeout=_COMPARE_S))
        differences = [f"{each.kind} {each.tenant}: {each.detail}" for each in found.differences]
        return [*_events(now_s, rows), AccountsRead(now_s, differences)]

    async def _expected_rows(
        self, channel: grpc.aio.Channel, expected: set[str]
    ) -> list[usage_pb2.UsageRow]:
        rows: list[usage_pb2.UsageRow] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ROWS_WITHIN_S):
                while True:
                    rows = await _patiently(lambda: self._rows(channel))
                    if {_request_of(row) for row in rows if row.billed} >= expected:
                        break
                    await asyncio.sleep(_POLL_S)
        return rows

    async def _rows(self, channel: grpc.aio.Channel) -> list[usage_pb2.UsageRow]:
        service, rows = UsageServiceStub(channel), list[usage_pb2.UsageRow]()
        for tenant in self._tenants:
            token = ""
            while True:
                page = await service.ListUsageRows(
                    usage_pb2.ListUsageRowsRequest(
                        parent=f"tenants/{tenant}", page_size=_PAGE, page_token=token
                    )
                )
                rows += page.rows
                if not (token := page.next_page_token):
                    break
        return rows


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what a call answers; control may have been killed a moment ago.

    Raises:
        AioRpcError: it fails for longer than control may be away.
    """
    until_s = asyncio.get_running_loop().time() + _CONTROL_AWAY_S
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError:
            if asyncio.get_running_loop().time() >= until_s:
                raise
        await asyncio.sleep(_POLL_S)


def _events(now_s: float, rows: Sequence[usage_pb2.UsageRow]) -> Iterator[Event]:
    for row in rows:
        yield UsageRowRead(
            now_s,
            row.tenant,
            _request_of(row),
            row.billed,
            row.code,
            row.input_tokens,
            row.output_tokens,
        )


def _request_of(row: usage_pb2.UsageRow) -> str:
    """Return which request it is, of a batch's row whichever of its runs."""
    return f"{row.batch_id}_{row.batch_line}" if row.batch_id else row.request_id


@asynccontextmanager
async def chaos_tenants(mesh: MeshTarget, *, minutes: float) -> AsyncIterator[ChaosTenants]:
    """Yield new tenants, which are deleted at the end; their keys expire soon after."""
    run = token_hex(3)
    tenants = [f"headrace-chaos-{run}-{number}" for number in range(TENANTS)]
    async with admin_api(mesh) as channel:
        service, made = TenantServiceStub(channel), list[str]()
        keys = []
        try:
            for tenant in tenants:
                await service.CreateTenant(tenants_pb2.CreateTenantRequest(tenant_id=tenant))
                made.append(tenant)
                keys.append(await _new_key(channel, tenant, minutes))
            yield ChaosTenants(mesh, tenants, keys)
        finally:
            for tenant in made:
                # Why: control may have been killed a moment ago.
                with contextlib.suppress(grpc.aio.AioRpcError):
                    name = f"tenants/{tenant}"
                    await service.DeleteTenant(tenants_pb2.DeleteTenantRequest(name=name))


async def _new_key(channel: grpc.aio.Channel, tenant: str, minutes: float) -> str:
    key = keys_pb2.Key(display_name="headrace chaos", scopes=USER_SCOPES, models=[ANY_MODEL])
    key.expire_time.FromDatetime(datetime.now(UTC) + timedelta(minutes=minutes + _KEPT_MINUTES))
    made = await KeyServiceStub(channel).CreateKey(
        keys_pb2.CreateKeyRequest(parent=f"tenants/{tenant}", key=key)
    )
    return made.secret
